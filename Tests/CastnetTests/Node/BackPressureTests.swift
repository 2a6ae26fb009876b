import Castnet
import CastnetCore
import CastnetTestKit
import NIOCore
import Synchronization
import Testing

/// What holds a sender back lets it go on again, and leaves no gap.
@Suite(.timeLimit(.minutes(1))) struct BackPressureTests {
    private final class Count: Sendable {
        let value = Atomic<Int>(0)
    }

    private func configuration(_ name: String, port: Int) throws -> Configuration {
        let text = """
            node: {name: \(name), listen: "127.0.0.1:0", interface: lo, cluster: pressure-\(port)}
            directory: {beacon: {group: 239.192.0.1, port: \(port), interval: \(100 * Patience.factor)ms}}
            limits: {subscription-backlog: 64KiB}
            policies: [{match: "**", carrier: persistent, deadline: 10s}]
            """
        let report = Configuration.parse(text, file: "pressure.yaml")
        return try #require(report.configuration, "\(report.problems)")
    }

    private func wait(_ what: String, for condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock().now + .seconds(10)
        while ContinuousClock().now < deadline {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("timed out waiting for \(what)")
    }

    @Test func aSendWithoutRoomTakesNoNumber() throws {
        let sender = Sender(router: Router(table: PolicyTable()))
        let topic = try Topic("agents")
        #expect(sender.numberedIfRoom(topic, count: 5) { _ in false } == nil)
        #expect(sender.numberedIfRoom(topic, count: 5) { $0 == 1 } == 5)
        #expect(sender.numberedIfRoom(topic, count: 1) { _ in false } == nil)
        #expect(sender.numbered(topic) { $0 } == 6)
    }

    /// A served topic with a full queue stops its links; they go on once the handler has caught up.
    @Test func aSlowHandlerGetsEverything() async throws {
        let topic = try Topic("jobs")
        try await Node.withNode(try configuration("server", port: 18_130)) { server in
            try await server.serve(topic, concurrency: 1) { message in
                try await Task.sleep(for: .milliseconds(1))
                return .reply(message.payload)
            }
            try await Node.withNode(try configuration("client", port: 18_130)) { client in
                try await withThrowingTaskGroup(of: Int.self) { group in
                    for number in 0..<100 {
                        group.addTask {
                            let payload = ByteBuffer(repeating: UInt8(number), count: 8192)
                            return try await client.call(topic, payload).payload.readableBytes
                        }
                    }
                    for try await size in group { #expect(size == 8192) }
                }
                let counters = try await server.snapshot().counters
                #expect(counters["limit.subscription-backlog.hit"] ?? 0 > 0)
            }
        }
    }

    /// The subscription everybody waits for may be cancelled instead of read.
    @Test func cancellingAFullSubscriptionLetsTheOthersGoOn() async throws {
        let topic = try Topic("news")
        let came = Count()
        try await Node.withNode(try configuration("reader", port: 18_135)) { reader in
            let unread = try await reader.subscribe(TopicPattern(topic))
            let read = try await reader.subscribe(TopicPattern(topic))
            try await Node.withNode(try configuration("writer", port: 18_135)) { writer in
                try await wait("the reader") { try await writer.memberCount(hearing: topic) == 1 }
                let sending = Task {
                    for number in 0..<200 {
                        var payload = ByteBuffer(integer: number)
                        payload.writeRepeatingByte(0, count: 8192)
                        try await writer.fanout(topic, payload)
                    }
                }
                // The other reader keeps up, so that only the cancelling can let the writer go on.
                let reading = Task {
                    var messages = read.makeAsyncIterator()
                    for number in 0..<200 {
                        #expect(await messages.next()?.sequence == UInt64(number + 1))
                        came.value.store(number + 1, ordering: .relaxed)
                    }
                }
                try await wait("a full subscription") {
                    let held = try await reader.snapshot().counters["limit.subscription-backlog.hit"] ?? 0
                    return held > 0 && came.value.load(ordering: .relaxed) >= 8
                }
                unread.cancel()
                try await wait("all messages") { came.value.load(ordering: .relaxed) == 200 }
                read.cancel()
                await reading.value
                try await sending.value
            }
        }
    }
}
