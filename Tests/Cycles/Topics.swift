internal import ArgumentParser
internal import Castnet
internal import NIOCore

/// Serves topics nobody has heard of, calls each from another node as soon as `serve` has returned, sends a
/// fanout to a subscription as young, and drops both.
///
/// The configuration's policies may bring `warm.**`, `cold.**` and `news.**` over one carrier each.
struct Topics: AsyncParsableCommand {
    @Argument(help: "The configuration of both nodes.")
    var configuration: String
    @Option(help: "How many topics.")
    var count = 2000
    @Option(help: "How many there are at a time.")
    var atOnce = 20

    mutating func run() async throws {
        var own = try Configuration.load(path: configuration)
        own.node.name = "caller"
        let every = max(1, count / 10)
        try await Node.withNode(own) { caller in
            own.node.name = "server"
            try await Node.withNode(own) { server in
                var callableMax = 0.0
                for number in stride(from: atOnce, through: count, by: atOnce) {
                    callableMax = max(callableMax, try await batch(at: server, from: caller))
                    guard number % every < atOnce else { continue }
                    try await forgotten(by: caller, server)
                    var held = try Held(after: number)
                    held.callableMax = callableMax
                    try held.print()
                    callableMax = 0
                }
            }
        }
    }

    /// How long it took at most until one of them could be called.
    private func batch(at server: Node, from caller: Node) async throws -> Double {
        try await withThrowingTaskGroup(of: Double.self) { group in
            for number in 0..<atOnce {
                let name = "\(["warm", "cold"][number % 2]).t\(UInt64.random(in: 0 ... .max))"
                group.addTask { try await topic(name, at: server, from: caller) }
            }
            return try await group.reduce(0, max)
        }
    }

    private func topic(_ name: String, at server: Node, from caller: Node) async throws -> Double {
        let (topic, news) = (try Topic(name), "news.\(name)")
        let payload = ByteBuffer(string: name)
        let heard = try await server.subscribe(try TopicPattern(news))
        let service = try await server.serve(topic) { .reply($0.payload) }
        let served = ContinuousClock.now
        let reply = try await caller.call(topic, payload)
        let callable = ContinuousClock.now - served
        try expect(reply.payload == payload, "the answer of \(name)")
        // Both were announced at once.
        let receipt = try await caller.fanout(try Topic(news), payload, receipt: .received)
        try expect(receipt.rows.count == 1, "\(news): \(receipt.rows)")
        for await message in heard {
            try expect(message.payload == payload, "what came as \(news)")
            break
        }
        heard.cancel()
        await service.withdraw()
        return callable / .seconds(1)
    }

    /// The directory keeps nothing of them, and no link is open for one.
    private func forgotten(by caller: Node, _ server: Node) async throws {
        for _ in 0..<400 {
            let isKnown = try await caller.members().contains {
                !$0.services.isEmpty || !$0.subscriptions.isEmpty
            }
            let links = try await caller.snapshot().links + server.snapshot().links
            let isLinked = links.contains { $0.isOpen && $0.carrier == "persistent" }
            if !isKnown && !isLinked { return }
            try await Task.sleep(for: .milliseconds(5))
        }
        try expect(false, "topics that nobody serves are still known, or have links")
    }
}
