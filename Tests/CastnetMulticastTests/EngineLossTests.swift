#if Multicast
    import CastnetCore
    import CastnetMulticast
    import NIOCore
    import Synchronization
    import Testing

    /// Two nodes on two hosts, each with an engine of its own: whole channels under loss.
    @Suite("Channels under loss, between two hosts", .namespaces, .serialized, .timeLimit(.minutes(3)))
    struct EngineLossTests {
        private struct Node: Sendable {
            let channel: PGMChannel
            let identity: NodeIdentity
            let recorder: Recorder
        }

        private static func open(_ host: TwoHosts.Host, on hosts: TwoHosts, rate: Int?) async throws -> Node {
            let interface = Mutex<InterfaceChoice?>(nil)
            let engine = Engine { hosts.enter(host) }
            try await TwoHosts.onThread { interface.withLock { $0 = try? hosts.interface(of: host) } }
            let identity = NodeIdentity(name: "\(host)", incarnation: Incarnation(7))
            let recorder = Recorder()
            var settings = ChannelSettings(name: "test", group: "239.192.9.9", port: 7700)
            settings.rate = rate
            let chosen = try #require(interface.withLock { $0 })
            let channel = try await PGMChannel.open(
                settings, limits: LimitSettings(), identity: identity, interface: chosen,
                seed: UInt64(host.rawValue + 1), sink: recorder, on: engine)
            return Node(channel: channel, identity: identity, recorder: recorder)
        }

        private static func pair(
            rate: Int? = nil, _ body: @escaping @Sendable (TwoHosts, Node, Node) async throws -> Void
        ) async throws {
            try await TwoHosts.runAsync { hosts in
                let left = try await open(.left, on: hosts, rate: rate)
                let right = try await open(.right, on: hosts, rate: rate)
                left.channel.membersChanged([right.identity])
                right.channel.membersChanged([left.identity])
                // The pair knows each other before anything is lost.
                left.channel.send(try casts(1...1))
                right.channel.send(try casts(1...1))
                #expect(await left.recorder.wait { !$0.messages.isEmpty })
                #expect(await right.recorder.wait { !$0.messages.isEmpty })
                try await body(hosts, left, right)
            }
        }

        private static func casts(_ numbers: ClosedRange<UInt64>, size: Int = 1000) throws -> [OutboundCast] {
            let topic = try Topic("agents.l2")
            return numbers.map { number in
                OutboundCast(
                    topic: topic, sequence: number, sentAtMicroseconds: 0,
                    payload: ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: size))
            }
        }

        @Test("with a tenth of all packets lost each way, everything arrives once and in order")
        func loss() async throws {
            try await Self.pair { hosts, left, right in
                try await TwoHosts.onThread {
                    try hosts.lose(0.1, at: .right)
                    try hosts.lose(0.1, at: .left)
                }
                left.channel.send(try Self.casts(2...5000))
                right.channel.send(try Self.casts(2...1000))
                #expect(await right.recorder.wait(40) { $0.messages.count >= 5000 })
                #expect(await left.recorder.wait(40) { $0.messages.count >= 1000 })
                let isWhole = [(right, 5000), (left, 1000)].allSatisfy { node, count in
                    node.recorder.state.withLock { $0.messages.map(\.sequence) == Array(1...UInt64(count)) }
                }
                #expect(isWhole, "not every number once and in order")
                #expect(right.channel.counters[.streamRepairedPGM] > 100)
                #expect(right.recorder.losses.isEmpty && left.recorder.losses.isEmpty)
                await left.channel.close(linger: .zero)
                await right.channel.close(linger: .zero)
            }
        }

        @Test("closing lingers until what was sent last is repaired")
        func linger() async throws {
            try await Self.pair { hosts, left, right in
                try await TwoHosts.onThread { try hosts.lose(0.2, at: .right) }
                left.channel.send(try Self.casts(2...500))
                await left.channel.close(linger: .seconds(20))
                #expect(await right.recorder.wait(5) { $0.messages.count >= 500 })
                #expect(right.recorder.losses.isEmpty)
                // Nothing more is taken, and a second close finds nothing to do.
                left.channel.send(try Self.casts(501...501))
                await left.channel.close(linger: .seconds(20))
                await right.channel.close(linger: .zero)
            }
        }
    }
#endif
