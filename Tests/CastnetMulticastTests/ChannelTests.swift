#if Multicast
    import CastnetCore
    import CastnetMulticast
    import NIOCore
    import Synchronization
    import Testing

    /// Channels on the loopback interface, each on a port of its own.
    @Suite(.serialized) struct ChannelTests {
        private func open(_ name: String, port: UInt16, _ recorder: Recorder, seed: UInt64) async throws
            -> (PGMChannel, NodeIdentity)
        {
            let interface = try InterfaceChoice(name: "lo", listen: "127.0.0.1")
            let identity = NodeIdentity(name: name, incarnation: Incarnation(seed))
            var settings = ChannelSettings(name: "test", group: "239.192.55.1", port: port)
            // There are no links here: what a full member refuses could not be had again.
            settings.repair = .pgmOnly
            let channel = try await PGMChannel.open(
                settings, limits: LimitSettings(), identity: identity, interface: interface, seed: seed,
                sink: recorder)
            return (channel, identity)
        }

        private func topic(_ name: String = "agents.l2") throws -> Topic { try Topic(name) }

        private func casts(_ payloads: [ByteBuffer], first: UInt64 = 1) throws -> [OutboundCast] {
            let topic = try topic()
            return payloads.enumerated().map { offset, payload in
                OutboundCast(
                    topic: topic, sequence: first + UInt64(offset), sentAtMicroseconds: 0, payload: payload)
            }
        }

        @Test func smallAndLargeMessagesArriveOnceInOrder() async throws {
            let (here, there) = (Recorder(), Recorder())
            let (sender, senderNode) = try await open("a", port: 17551, here, seed: 1)
            let (member, memberNode) = try await open("b", port: 17551, there, seed: 2)
            sender.membersChanged([memberNode])
            member.membersChanged([senderNode])
            var payloads = (0..<2000).map { ByteBuffer(string: "message \($0)") }
            payloads.append(ByteBuffer(repeating: 7, count: 3 << 20))
            payloads.append(ByteBuffer())
            sender.send(try casts(payloads))
            let count = payloads.count
            #expect(await there.wait { $0.messages.count >= count })
            let got = there.state.withLock { $0.messages }
            #expect(got.map(\.sequence) == Array(1...UInt64(payloads.count)))
            #expect(got.map(\.payload) == payloads)
            #expect(there.losses.isEmpty)
            #expect(here.count == 0, "a node does not hear its own stream")
            await sender.close(linger: .seconds(2))
            await member.close(linger: .zero)
        }

        @Test func aSlowMemberHoldsTheSenderBackAndLosesNothing() async throws {
            let (here, there) = (Recorder(), Recorder())
            let (sender, _) = try await open("a", port: 17552, here, seed: 3)
            let (member, memberNode) = try await open("b", port: 17552, there, seed: 4)
            sender.membersChanged([memberNode])
            there.state.withLock { $0.backlog = LimitSettings().subscriptionBacklog }
            sender.send(try casts((0..<40).map { _ in ByteBuffer(repeating: 1, count: 100_000) }))
            #expect(await there.wait { _ in sender.counters[.streamReportsReceived] > 0 })
            let held = there.count
            #expect(held < 40, "a full member was sent everything")
            there.state.withLock { $0.backlog = 0 }
            #expect(await there.wait { $0.messages.count == 40 })
            #expect(there.losses.isEmpty)
            await sender.close(linger: .seconds(2))
            await member.close(linger: .zero)
        }
    }
#endif
