import Castnet
import Synchronization

/// What one member got, in the order in which it got it.
final class ConformanceInbox: Sendable {
    private let arrived = Mutex<[Message]>([])

    var messages: [Message] { arrived.withLock { $0 } }
    var count: Int { arrived.withLock { $0.count } }

    func put(_ message: Message) { arrived.withLock { $0.append(message) } }

    /// Waits for `count` messages and returns everything that has come.
    func wait(for count: Int, _ what: String) async throws -> [Message] {
        try await waitUntil("\(what): \(count) messages (\(self.count) came)") { self.count >= count }
        return messages
    }
}

/// A count that several tasks share.
final class ConformanceCount: Sendable {
    private let count = Atomic<Int>(0)

    var value: Int { count.load(ordering: .relaxed) }

    func add(_ more: Int) { count.add(more, ordering: .relaxed) }
}

/// One member of a check: a node that hears or serves the check's topics.
struct ConformanceMember: Sendable {
    let node: Node
    let inbox = ConformanceInbox()

    /// Reads the fanouts of `pattern` into the inbox until the subscription ends.
    func read(_ pattern: String, in group: inout ThrowingTaskGroup<Void, any Error>) async throws {
        let subscription = try await node.subscribe(TopicPattern(pattern))
        let inbox = inbox
        group.addTask { for await message in subscription { inbox.put(message) } }
    }

    /// Serves `topic`, one message at a time, into the inbox; calls get their payload back.
    func serve(_ topic: Topic, server: String? = nil) async throws {
        let inbox = inbox
        try await node.serve(topic, server: server, concurrency: 1) { message in
            inbox.put(message)
            return .reply(message.payload, headers: message.headers)
        }
    }
}

/// The nodes of one check: a sender, and the nodes its members are on.
struct ConformanceNodes: Sendable {
    let carrier: CarrierUnderTest
    let sender: Node
    let others: [Node]

    /// A new member on the node at `place`; within one node all members are there.
    func member(_ place: Int = 0) -> ConformanceMember {
        ConformanceMember(node: carrier.isWithinOneNode ? sender : others[place])
    }

    /// Waits until the sender reaches the members of `topics` by the carrier under test.
    func settle(hearing topics: [Topic] = [], serving: [Topic] = [], members: Int = 1) async throws {
        let remote = carrier.isWithinOneNode ? 0 : members
        for topic in topics {
            try await waitUntil("\(members) members that hear \(topic)") {
                try await sender.memberCount(hearing: topic) == remote
            }
        }
        for topic in serving {
            try await waitUntil("\(members) members that serve \(topic)") {
                try await sender.memberCount(serving: topic) >= 1
            }
        }
        guard carrier.carrier == .multicast else { return }
        try await waitUntil("\(remote) members in the group") {
            let paths = try await sender.members().filter { $0.identity != sender.identity }.map(\.paths)
            return paths.count { $0.contains { $0.path == "multicast" } } >= remote
        }
    }

    /// Starts the nodes of a check, runs it and stops them, whatever happened.
    static func run(
        _ carrier: CarrierUnderTest, others count: Int, port: Int, backlog: Int,
        _ body: (ConformanceNodes) async throws -> Void
    ) async throws {
        var nodes: [Node] = []
        do {
            for place in 0...(carrier.isWithinOneNode ? 0 : count) {
                let text = carrier.configuration(ConformancePlace(node: place, port: port, backlog: backlog))
                let report = Configuration.parse(text, file: "\(carrier.name).yaml")
                guard let configuration = report.configuration else {
                    throw ConformanceFailure("the configuration is broken: \(report.problems)")
                }
                let node = try Node(configuration: configuration)
                nodes.append(node)
                try await node.start()
            }
            let all = ConformanceNodes(carrier: carrier, sender: nodes[0], others: Array(nodes[1...]))
            try await body(all)
        } catch {
            await stop(nodes)
            throw error
        }
        await stop(nodes)
    }

    private static func stop(_ nodes: [Node]) async {
        await withTaskGroup(of: Void.self) { group in
            for node in nodes { group.addTask { await node.stop(drain: .seconds(1)) } }
        }
    }
}
