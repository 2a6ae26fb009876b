import Castnet
import NIOCore
import Synchronization
import Testing

/// Nodes of one cluster on loopback, each test on ports of its own.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NodeTests {
    private func configuration(_ name: String, ports: Int, rules: String = "") throws -> Configuration {
        let text = """
            node: {name: \(name), listen: "127.0.0.1:0", interface: lo, cluster: test-\(ports)}
            directory: {beacon: {group: 239.192.0.1, port: \(ports)}}
            channels:
              agents: {group: 239.192.7.10, port: \(ports + 1), retention: 32MiB, window: 4096}
            policies:
              - {match: "scheduler", kinds: [call, cast], carrier: persistent}
              - {match: "agents.**", kinds: [fanout], carrier: multicast, channel: agents}
              - {match: "copies", kinds: [fanout], carrier: persistent}
              - {match: "**", carrier: ephemeral, linger: 100ms}
            """
        let report = Configuration.parse(text, file: "test.yaml")
        #expect(report.problems.isEmpty, "\(report.problems)")
        return try #require(report.configuration)
    }

    private func wait(_ what: String, for condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock().now + .seconds(10)
        while ContinuousClock().now < deadline {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("timed out waiting for \(what)")
    }

    @Test func callsCastsAndFanoutsReachTheOtherNode() async throws {
        let topic = try Topic("scheduler")
        let agents = try Topic("agents.l2")
        let copies = try Topic("copies")
        try await Node.withNode(try configuration("server", ports: 18_100)) { server in
            try await server.serve(topic) { message in .reply(message.payload) }
            let heard = try await server.subscribe(try TopicPattern("agents.**"))
            let copied = try await server.subscribe(TopicPattern(copies))
            try await Node.withNode(try configuration("client", ports: 18_100)) { client in
                for number in 0..<200 {
                    let reply = try await client.call(topic, ByteBuffer(string: "ping \(number)"))
                    #expect(reply.payload == ByteBuffer(string: "ping \(number)"))
                    #expect(reply.carrier == .persistent)
                }
                let links = try await client.snapshot()
                #expect(links.counters["link.opened"] == 1)
                // Of the directory, too.
                #expect(links.counters["beacon.out"] ?? 0 > 0)
                try await client.cast(Target(topic), ByteBuffer(string: "cast"))

                try await wait("the subscriber") { try await client.memberCount(hearing: agents) == 1 }
                let receipt = try await client.fanout(agents, ByteBuffer(string: "all"), receipt: .received)
                // Without the trait the same topic travels as copies over TCP.
                let multicast = BuildFacts.hasMulticast
                #expect(receipt.rows.map(\.outcome) == [multicast ? .multicast : .unicast])
                try await client.fanout(agents, contentsOf: (0..<500).map { ByteBuffer(integer: $0) })
                var iterator = heard.makeAsyncIterator()
                for sequence in 1...501 as ClosedRange<UInt64> {
                    let message = try #require(await iterator.next())
                    #expect(message.sequence == sequence)
                    #expect(message.from == client.identity)
                    #expect(message.carrier == (multicast ? .multicast : .ephemeral))
                }
                let reader = Task {
                    var copies = copied.makeAsyncIterator()
                    // Asking for the next one says that the one before is processed.
                    while await copies.next() != nil {}
                }
                let copy = try await client.fanout(copies, ByteBuffer(string: "copy"), receipt: .processed)
                #expect(copy.rows.map(\.outcome) == [.unicast])
                copied.cancel()
                await reader.value
            }
        }
    }

    @Test func largeMessagesTravelBothWays() async throws {
        let topic = try Topic("scheduler")
        let big = ByteBuffer(repeating: 42, count: 20 << 20)
        try await Node.withNode(try configuration("server", ports: 18_110)) { server in
            try await server.serve(topic) { message in .reply(message.payload) }
            try await Node.withNode(try configuration("client", ports: 18_110)) { client in
                let reply = try await client.call(topic, big)
                #expect(reply.payload == big)
            }
        }
    }

    @Test func outcomesAreTold() async throws {
        let topic = try Topic("scheduler")
        try await Node.withNode(try configuration("one", ports: 18_120)) { node in
            await #expect(throws: CastnetError.self) {
                try await node.call(topic, ByteBuffer(), options: SendOptions(mandatory: true))
            }
            await #expect(throws: CastnetError.self) {
                try await node.call(topic, ByteBuffer(), options: SendOptions(deadline: .milliseconds(50)))
            }
            try await node.serve(topic) { message in .reject("no") }
            do {
                _ = try await node.call(topic, ByteBuffer())
                Issue.record("a rejected call returned")
            } catch let error as CastnetError {
                #expect(error.code == .rejected)
            }
        }
    }
}
