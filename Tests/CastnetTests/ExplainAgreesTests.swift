import Castnet
import CastnetTestKit
import NIOCore
import Synchronization
import Testing

/// What `explain` says of a message is what happens to it: generated policy tables, real sends over loopback.
@Suite("Explain agrees", .timeLimit(.minutes(2))) struct ExplainAgreesTests {
    private static let port = 18_900
    private static let topics = ["a", "a.b", "a.b.c", "a.c", "b", "b.c", "b.c.c", "jobs", "jobs.hot"]
    private static let patterns =
        topics + ["**", "*", "a.*", "a.**", "**.c", "*.c", "*.*", "b.**", "jobs.**", "a.*.c", "**.b.**"]
    private static let bounds = [1, 100, 1400, 5000]
    private static let sizes = [0, 1, 2, 99, 100, 101, 1399, 1400, 1401, 4999, 5000, 5001]

    /// The carrier each message arrived by.
    private final class Arrivals: Sendable {
        private let carriers = Mutex<[MessageID: [Carrier]]>([:])

        func put(_ message: Message) {
            carriers.withLock { $0[message.id, default: []].append(message.carrier) }
        }

        subscript(id: MessageID) -> [Carrier] { carriers.withLock { $0[id] ?? [] } }
    }

    private static func configuration(_ name: String) throws -> Configuration {
        var channels = ""
        if BuildFacts.hasMulticast {
            channels = """
                channels:
                  one: {group: 239.192.7.12, port: \(port + 1), retention: 8MiB, window: 1024}
                  two: {group: 239.192.7.13, port: \(port + 2), retention: 8MiB, window: 1024}
                """
        }
        let text = """
            node: {name: \(name), listen: "127.0.0.1:0", interface: lo, cluster: explain-agrees}
            directory: {beacon: {group: 239.192.0.1, port: \(port), interval: \(100 * Patience.factor)ms}}
            \(channels)
            """
        let report = Configuration.parse(text, file: "explain.yaml")
        return try #require(report.configuration, "\(report.problems)")
    }

    /// A configuration with a table of 0 to 8 rules; one that no message would reach is left out again.
    private static func configuration(
        _ name: String, using generator: inout some RandomNumberGenerator
    ) throws -> Configuration {
        var configuration = try configuration(name)
        for _ in 0..<Int.random(in: 0...8, using: &generator) {
            configuration.policies.append(try policy(using: &generator))
            if !configuration.validate().isEmpty { configuration.policies.removeLast() }
        }
        return configuration
    }

    private static func policy(using generator: inout some RandomNumberGenerator) throws -> Policy {
        let pattern = try TopicPattern(patterns.randomElement(using: &generator) ?? "**")
        var size: SizeCondition?
        if Bool.random(using: &generator) {
            let comparison = SizeCondition.Comparison.allCases.randomElement(using: &generator) ?? .above
            size = SizeCondition(comparison, bounds.randomElement(using: &generator) ?? 1)
        }
        if BuildFacts.hasMulticast, Int.random(in: 0..<3, using: &generator) == 0 {
            let channel = Bool.random(using: &generator) ? "one" : "two"
            return Policy(
                match: pattern, kinds: [.fanout], size: size,
                route: Route(carrier: .multicast, channel: channel))
        }
        let kinds = MessageKind.allCases.filter { _ in Bool.random(using: &generator) }
        return Policy(
            match: pattern, kinds: kinds.isEmpty ? [.call] : Set(kinds), size: size,
            route: Route(carrier: Bool.random(using: &generator) ? .persistent : .ephemeral))
    }

    private func wait(_ what: String, for condition: () async throws -> Bool) async throws {
        let deadline = ContinuousClock().now + .seconds(10)
        while ContinuousClock().now < deadline {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("timed out waiting for \(what)")
    }

    @Test func everySendTakesTheCarrierExplained() async throws {
        let base = UInt64.random(in: .min ... .max)
        let arrivals = Arrivals()
        try await Node.withNode(try Self.configuration("receiver")) { receiver in
            for topic in Self.topics {
                try await receiver.serve(
                    try Topic(topic),
                    inline: { message in
                        arrivals.put(message)
                        return .done
                    })
            }
            for round in 0..<50 {
                let seed = base &+ UInt64(round)
                do {
                    try await checkTable(seed: seed, round: round, receiver: receiver, arrivals)
                } catch {
                    Issue.record("seed \(seed): \(error)")
                }
            }
        }
    }

    private func checkTable(
        seed: UInt64, round: Int, receiver: Node, _ arrivals: Arrivals
    ) async throws {
        var generator = SeededGenerator(seed: seed)
        let configuration = try Self.configuration("sender-\(round)", using: &generator)
        try await Node.withNode(configuration) { sender in
            let topics = try Self.topics.map { try Topic($0) }
            try await wait("the receiver (seed \(seed))") {
                let known = try await sender.members().first { $0.identity == receiver.identity }
                let isReached = known?.paths.allSatisfy { $0.path == "multicast" } ?? false
                guard isReached, known?.services.count == topics.count else { return false }
                let others = try await receiver.members().filter { $0.identity == sender.identity }
                return others.contains { $0.paths.allSatisfy { $0.path == "multicast" } }
            }
            for topic in topics {
                for kind in MessageKind.allCases {
                    for _ in 0..<2 {
                        let size = Self.sizes.randomElement(using: &generator) ?? 0
                        try await check(kind, topic, size, sender, arrivals, seed: seed)
                    }
                }
            }
        }
    }

    private func check(
        _ kind: MessageKind, _ topic: Topic, _ size: Int, _ sender: Node, _ arrivals: Arrivals, seed: UInt64
    ) async throws {
        let explained = sender.explain(topic, kind: kind, size: size)
        let payload = ByteBuffer(repeating: 7, count: size)
        let id: MessageID
        switch kind {
        case .call: id = try await sender.call(topic, payload).id
        case .cast: id = try await sender.cast(topic, payload, options: SendOptions(settle: .processed)).id
        case .fanout: id = try await sender.fanout(topic, payload, receipt: .processed).id
        }
        try await wait("\(explained), seed \(seed)") { !arrivals[id].isEmpty }
        #expect(
            arrivals[id] == [explained.policy.route.carrier],
            "seed \(seed), \(size) B: \(explained); the table is \(sender.configuration.policies)")
    }
}
