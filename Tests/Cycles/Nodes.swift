internal import ArgumentParser
internal import Castnet
internal import NIOCore

/// Starts and stops a node.
///
/// The configuration's policies should bring `cycle`, `steady` and `news` over one carrier each.
struct Nodes: AsyncParsableCommand {
    @Argument(help: "The configuration of both nodes.")
    var configuration: String
    @Option(help: "How often the node is started and stopped.")
    var count = 1000

    mutating func run() async throws {
        var own = try Configuration.load(path: configuration)
        own.node.name = "steady"
        let every = max(1, count / 10)
        try await Node.withNode(own) { steady in
            let (steadyTopic, news) = (try Topic("steady"), try TopicPattern("news"))
            try await steady.serve(steadyTopic) { .reply($0.payload) }
            let heard = try await steady.subscribe(news)
            let reader = Task { for await _ in heard {} }
            defer { reader.cancel() }
            own.node.name = "cycle"
            var first: Held?
            for cycle in 1...count {
                try await Node.withNode(own) { try await talk(node: $0, steady) }
                guard cycle % every == 0 else { continue }
                let held = try await settled(after: cycle, as: first)
                try held.print()
                first = first ?? held
            }
        }
    }

    /// What is held once `steady` has closed its ends of what the stopped node had open: a moment after that
    /// node's own; or after two seconds, whatever it is then.
    private func settled(after cycle: Int, as first: Held?) async throws -> Held {
        var held = try Held(after: cycle)
        for _ in 0..<400 {
            guard let first, held.descriptors > first.descriptors else { break }
            try await Task.sleep(for: .milliseconds(5))
            held = try Held(after: cycle)
        }
        return held
    }

    /// Calls both ways, a fanout heard by the other, and a large reply.
    private func talk(node: Node, _ steady: Node) async throws {
        try await node.serve(try Topic("cycle")) { .reply($0.payload) }
        let payload = ByteBuffer(repeating: 7, count: 100_000)
        for _ in 0..<3 {
            try expect(try await node.call(try Topic("steady"), payload).payload == payload, "a call")
            try expect(try await steady.call(try Topic("cycle"), payload).payload == payload, "a call")
        }
        let receipt = try await node.fanout(try Topic("news"), payload, receipt: .received)
        try expect(receipt.rows.count == 1 && receipt.rows.allSatisfy { $0.outcome != .timedOut }, "a fanout")
    }
}
