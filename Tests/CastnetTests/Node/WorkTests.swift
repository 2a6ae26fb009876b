import CastnetCore
import CastnetTestKit
import Foundation
import NIOCore
import Synchronization
import Testing

@testable import Castnet

/// Who gets the work on real sockets: by capacity, past a long job, past a flood, past a full queue.
@Suite("Work", .serialized, .timeLimit(.minutes(2))) struct WorkTests {
    private func configuration(_ name: String, policy: String, port: Int = 18_150) throws -> Configuration {
        let text = """
            node: {name: \(name), listen: "127.0.0.1:0", interface: lo, cluster: work}
            directory: {beacon: {group: 239.192.0.1, port: \(port)}}
            policies: [{match: "**", carrier: persistent, \(policy)}]
            """
        let report = Configuration.parse(text, file: "work.yaml")
        #expect(report.problems.isEmpty, "\(report.problems)")
        return try #require(report.configuration)
    }

    private func waitFor(_ count: Int, serving topic: Topic, in node: Node) async throws {
        try await eventually("\(count) members") { try await node.memberCount(serving: topic) == count }
    }

    private final class Tickets: Sendable {
        private let left: Mutex<Int>
        init(_ count: Int) { left = Mutex(count) }
        var areGone: Bool { left.withLock { $0 <= 0 } }
        /// Of those past the last, too.
        var taken: Int { left.withLock { -$0 } }
        func take() -> Bool {
            left.withLock { left in
                left -= 1
                return left >= 0
            }
        }
    }

    /// Calls `count` times with `inFlight` under way; returns how often each member answered.
    private func calls(
        _ count: Int, inFlight: Int, of topic: Topic, by node: Node
    ) async throws -> [String: Int] {
        let tickets = Tickets(count)
        return try await withThrowingTaskGroup(of: [String: Int].self) { group in
            for _ in 0..<inFlight {
                group.addTask {
                    var answers: [String: Int] = [:]
                    while tickets.take() {
                        let reply = try await node.call(topic, ByteBuffer(string: "short"))
                        answers[reply.from.name, default: 0] += 1
                    }
                    return answers
                }
            }
            return try await group.reduce(into: [:]) { $0.merge($1) { $0 + $1 } }
        }
    }

    @Test func `a persistent link ends with the topic it is for`() async throws {
        let (short, kept) = (try Topic("short"), try Topic("kept"))
        let policy = "balance: round-robin"
        try await Node.withNode(try configuration("server", policy: policy)) { server in
            try await Node.withNode(try configuration("client", policy: policy)) { client in
                try await server.serve(kept) { .reply($0.payload) }
                let service = try await server.serve(short) { .reply($0.payload) }
                for topic in [short, kept] { _ = try await client.call(topic, ByteBuffer(string: "x")) }
                #expect(try await client.snapshot().links.count { $0.isOpen } == 2)
                await service.withdraw()
                try await eventually("one link is left") {
                    try await client.snapshot().links.count { $0.isOpen } == 1
                }
                try await server.serve(short) { .reply($0.payload) }
                for topic in [short, kept] { _ = try await client.call(topic, ByteBuffer(string: "x")) }
            }
        }
    }

    @Test func `by capacity nothing waits behind a long job, whoever has more to do gets less`() async throws
    {
        let topic = try Topic("work")
        let policy = "balance: capacity"
        let longRuns = Tickets(1)
        try await Node.withNode(try configuration("fast", policy: policy)) { fast in
            try await Node.withNode(try configuration("slow", policy: policy)) { slow in
                try await Node.withNode(try configuration("client", policy: policy)) { client in
                    for (node, time) in [(fast, 10), (slow, 40)] {
                        try await node.serve(topic, concurrency: 1) { message in
                            let isLong = String(buffer: message.payload) == "long"
                            if isLong { _ = longRuns.take() }
                            try await HandlerWork.take(isLong ? .seconds(4) : .milliseconds(time))
                            return .done
                        }
                    }
                    try await waitFor(2, serving: topic, in: client)
                    let answers = try await calls(150, inFlight: 16, of: topic, by: client)
                    let (quick, tardy) = (answers["fast"] ?? 0, answers["slow"] ?? 0)
                    #expect(quick + tardy == 150)
                    // What they do besides counts under a sanitizer; CapacityTests have the exact shares.
                    #expect(Double(quick) > 1.3 * Double(tardy), "\(answers)")

                    async let long = client.call(topic, ByteBuffer(string: "long"))
                    try await eventually("the long one runs") { longRuns.areGone }
                    let start = MonotonicClock.now
                    _ = try await calls(40, inFlight: 8, of: topic, by: client)
                    #expect(MonotonicClock.now - start < .seconds(3), "short ones waited behind the long one")
                    _ = try await long
                    #expect(try await fast.snapshot().counters["messages.turned-away"] ?? 0 > 0)
                }
            }
        }
    }

    @Test func `a handler that does not end keeps nobody from stopping`() async throws {
        let topic = try Topic("work")
        let (end, ending) = AsyncStream.makeStream(of: Void.self)
        let hasBegun = Tickets(1)
        let server = try Node(configuration: try configuration("server", policy: "settle: processed"))
        try await server.start()
        try await server.serve(topic, concurrency: 1) { _ in
            _ = hasBegun.take()
            for await _ in end {}
            return .done
        }
        try await Node.withNode(try configuration("client", policy: "settle: processed")) { client in
            try await waitFor(1, serving: topic, in: client)
            async let call = client.call(topic, ByteBuffer(), options: SendOptions(deadline: .seconds(30)))
            try await eventually("it runs") { hasBegun.areGone }
            let start = MonotonicClock.now
            await server.stop(drain: .milliseconds(300))
            let time = MonotonicClock.now - start
            #expect(time >= .milliseconds(300) && time < .seconds(5), "\(time)")
            do {
                _ = try await call
                Issue.record("nobody has answered")
            } catch let error as CastnetError {
                #expect(error.code == .lost)
            }
        }
        ending.finish()
    }

    @Test func `who floods waits behind itself`() async throws {
        let topic = try Topic("work")
        let policy = "backlog: 100000"
        let handled = Tickets(0)
        try await Node.withNode(try configuration("server", policy: policy, port: 18_151)) { server in
            try await server.serve(topic, concurrency: 1) { message in
                if message.from.name == "flood" { _ = handled.take() }
                try await HandlerWork.take(.milliseconds(2))
                return .done
            }
            try await Node.withNode(try configuration("flood", policy: policy, port: 18_151)) { flood in
                try await Node.withNode(try configuration("other", policy: policy, port: 18_151)) { other in
                    try await waitFor(1, serving: topic, in: flood)
                    try await waitFor(1, serving: topic, in: other)
                    async let flooded = calls(400, inFlight: 400, of: topic, by: flood)
                    try await eventually("it floods") {
                        try await server.snapshot().topics.contains { $0.waiting > 20_000 }
                    }
                    let before = handled.taken
                    _ = try await calls(5, inFlight: 1, of: topic, by: other)
                    #expect(handled.taken - before < 200)
                    #expect(try await flooded == ["server": 400])
                }
            }
        }
    }

    @Test func `a sender that never lets its message start keeps no handler`() async throws {
        let topic = try Topic("work")
        let settings = try configuration("server", policy: "retry: other-member", port: 18_153)
        try await Node.withNode(settings) { server in
            try await server.serve(topic, concurrency: 1) { _ in .done }
            var hello = Hello(
                purpose: .persistent, cluster: "work",
                node: NodeIdentity(name: "stopped", incarnation: Incarnation(1)), messageMax: 1 << 20)
            hello.features = [.claims]
            var head = MessageHead(
                id: 1, kind: .call, topic: topic, sequence: 1, sentAtMicroseconds: 0,
                timeLeftMicroseconds: 20_000_000, total: 0)
            head.isClaimed = true
            let stopped = try await RawPeer.dial(
                try #require(server.listenAddress),
                greeting: RawPeer.bytes([.hello(hello), .message(head, ByteBuffer())]))
            try await eventually("it is asked") { stopped.packets.contains(.mayStart(id: 1)) }
            // Meanwhile others wait, and go on.
            let reply = try await server.call(topic, ByteBuffer())
            #expect(reply.latency < .seconds(4))
            try await eventually("it is given back") {
                stopped.packets.contains {
                    if case .reply(let head, _) = $0 { head.outcome == .released } else { false }
                }
            }
            stopped.close()
        }
    }

    @Test(arguments: ["", ", balance: capacity"])
    func `a full queue makes its senders wait, and loses nothing`(
        balance: String
    ) async throws {
        let topic = try Topic("work")
        let policy = "backlog: 10\(balance)"
        try await Node.withNode(try configuration("server", policy: policy, port: 18_152)) { server in
            try await server.serve(topic, concurrency: 2) { _ in
                try await HandlerWork.take(.milliseconds(1))
                return .done
            }
            let own = try await calls(200, inFlight: 50, of: topic, by: server)
            #expect(own == ["server": 200])
            // Their own policy lets more than ten go.
            let wide = "backlog: 1000\(balance)"
            try await Node.withNode(try configuration("one", policy: wide, port: 18_152)) { one in
                try await Node.withNode(try configuration("two", policy: wide, port: 18_152)) { two in
                    for client in [one, two] { try await waitFor(1, serving: topic, in: client) }
                    async let ones = calls(200, inFlight: 50, of: topic, by: one)
                    async let twos = calls(200, inFlight: 50, of: topic, by: two)
                    #expect(try await ones == ["server": 200])
                    #expect(try await twos == ["server": 200])
                    #expect(try await server.snapshot().counters["messages.turned-away"] ?? 0 > 0)
                }
            }
        }
    }
}
