import CastnetCore
import Testing

@Suite("Router")
struct PoliciesRouterTests {
    /// A table with its topics, made from a seed.
    private struct Sample {
        var table: PolicyTable
        var topics: [Topic]
        var sizes: [Int]

        init(seed: UInt64, letters: [String] = ["a", "b", "agents", "l2"]) {
            var random = SeededGenerator(seed: seed)
            func segments(_ alphabet: [String], _ count: Int) -> String {
                (0..<count).map { _ in alphabet.randomElement(using: &random) ?? "a" }.joined(separator: ".")
            }
            let bounds = [0, 1, 100, 65_536]
            table = PolicyTable(
                (0..<Int.random(in: 0...10, using: &random)).map { _ in
                    let count = Int.random(in: 1...4, using: &random)
                    let kinds = MessageKind.allCases.filter { _ in Bool.random(using: &random) }
                    let comparison = SizeCondition.Comparison.allCases.randomElement(using: &random) ?? .above
                    let bound = bounds.randomElement(using: &random) ?? 0
                    return Policy(
                        match: TopicPattern(unchecked: segments(letters + ["*", "**"], count)),
                        kinds: kinds.isEmpty ? Set(MessageKind.allCases) : Set(kinds),
                        size: Bool.random(using: &random) ? nil : SizeCondition(comparison, bound),
                        route: Route(carrier: Bool.random(using: &random) ? .persistent : .ephemeral))
                })
            topics = (0..<20).map { _ in
                Topic(unchecked: segments(letters + ["zz"], Int.random(in: 1...5, using: &random)))
            }
            sizes = bounds.flatMap { [max(0, $0 - 1), $0, $0 + 1] } + [.max]
        }

        /// The reference: written without looking at the router.
        func firstMatch(_ topic: Topic, _ kind: MessageKind, _ size: Int) -> Int? {
            for (index, rule) in table.rules.enumerated() {
                guard rule.match.matches(topic), rule.kinds.contains(kind) else { continue }
                guard let condition = rule.size else { return index }
                switch condition.comparison {
                case .atLeast: if size >= condition.bytes { return index }
                case .above: if size > condition.bytes { return index }
                case .atMost: if size <= condition.bytes { return index }
                case .below: if size < condition.bytes { return index }
                }
            }
            return nil
        }
    }

    @Test("routes, explains and a first-match reading agree", arguments: UInt64(1)...80)
    func routeAgreesWithReference(seed: UInt64) {
        let sample = Sample(seed: seed)
        var router = Router(table: sample.table, topicCountMax: 7)
        for topic in sample.topics + sample.topics {
            for kind in MessageKind.allCases {
                for size in sample.sizes {
                    let expected = sample.firstMatch(topic, kind, size)
                    let policy = router.route(topic: topic, kind: kind, size: size)
                    let explanation = router.explain(topic: topic, kind: kind, size: size)
                    #expect(policy.index == expected, "seed \(seed): \(topic) \(kind) \(size)")
                    #expect(explanation.policy == policy, "seed \(seed): \(topic) \(kind) \(size)")
                    #expect(sample.table.policy(for: topic, kind: kind, size: size) == policy, "seed \(seed)")
                    let skipped = Array(0..<(expected ?? sample.table.rules.count))
                    #expect(explanation.skipped.compactMap(\.index) == skipped, "seed \(seed)")
                    #expect(explanation.skipped.allSatisfy { !$0.why.isEmpty })
                }
            }
            #expect(router.topicCount <= 7)
        }
    }

    @Test(
        "unreachable rules are never reached, and rules nobody proved unreachable are",
        arguments: UInt64(1)...80)
    func unreachableAgreesWithTopics(seed: UInt64) {
        let sample = Sample(seed: seed, letters: ["a", "b"])
        let unreachable = Set(TableReview(sample.table).unreachable.map(\.index))
        var reached: Set<Int> = []
        for topic in Self.everyTopic {
            for kind in MessageKind.allCases {
                reached.formUnion(sample.table.choice(for: topic, kind: kind).policies.compactMap(\.index))
            }
        }
        #expect(unreachable == Set(sample.table.rules.indices).subtracting(reached), "seed \(seed)")
    }

    @Test("a full memory starts over and counts it")
    func memoryIsBounded() {
        var router = Router(table: PolicyTable(), topicCountMax: 10)
        for number in 0..<95 {
            _ = router.route(topic: Topic(unchecked: "t\(number)"), kind: .cast, size: 0)
            #expect(router.topicCount <= 10)
        }
        #expect(router.resets == 9)
        #expect(router.route(topic: Topic(unchecked: "t1"), kind: .call, size: 0) == .builtIn)
    }

    @Test("a choice keeps only the rules some size leads to")
    func choiceIsPruned() {
        let route = Route(carrier: .ephemeral)
        let table = PolicyTable([
            Policy(match: .everything, size: SizeCondition(.atLeast, 100), route: route),
            Policy(match: .everything, size: SizeCondition(.above, 200), route: route),
            Policy(match: .everything, size: SizeCondition(.below, 100), route: route),
            Policy(match: .everything, route: route),
        ])
        let choice = table.choice(for: Topic(unchecked: "a"), kind: .call)
        #expect(choice.policies.map(\.index) == [0, 2])
        #expect(TableReview(table).unreachable.map(\.index) == [1, 3])
        #expect(TableReview(table).unreachable.map(\.why) == [.covered(by: [0]), .covered(by: [0, 2])])
    }

    @Test("a rule can be covered by others' kinds together, and by no size at all")
    func unionsAndSizes() {
        let route = Route(carrier: .ephemeral)
        let table = PolicyTable([
            Policy(match: TopicPattern(unchecked: "a.**"), kinds: [.call], route: route),
            Policy(match: TopicPattern(unchecked: "**"), kinds: [.cast, .fanout], route: route),
            Policy(match: TopicPattern(unchecked: "a.b"), route: route),
            Policy(match: TopicPattern(unchecked: "b"), size: SizeCondition(.above, 1 << 20), route: route),
            Policy(match: TopicPattern(unchecked: "c"), size: SizeCondition(.below, 0), route: route),
        ])
        let found = TableReview(table, messageSizeMax: 1 << 20).unreachable
        #expect(found.map(\.index) == [2, 3, 4])
        #expect(found.map(\.why) == [.covered(by: [0, 1]), .size, .size])
    }

    @Test("a tangled table is judged as far as the budget goes")
    func tangled() {
        var random = SeededGenerator(seed: 5)
        let segments = ["a", "b", "*", "**", "**", "c"]
        let table = PolicyTable(
            (0..<300).map { number in
                let text = (0..<8).map { _ in segments.randomElement(using: &random) ?? "a" }.joined(
                    separator: ".")
                return Policy(
                    match: TopicPattern(unchecked: text), size: SizeCondition(.above, number * 1000),
                    route: Route(carrier: .ephemeral))
            })
        let review = TableReview(table)
        #expect((1..<300).contains(review.judgedCount))
    }

    @Test("fanouts split by size are found with a topic that shows it")
    func splits() {
        let table = PolicyTable([
            Policy(
                match: TopicPattern(unchecked: "a.**"), kinds: [.fanout], size: SizeCondition(.below, 10),
                route: Route(carrier: .ephemeral)),
            Policy(
                match: TopicPattern(unchecked: "*.b"), kinds: [.fanout],
                route: Route(carrier: .multicast, channel: "c")),
        ])
        let splits = TableReview(table).splitFanouts
        #expect(splits.map(\.index) == [0])
        #expect(splits.first?.topic.name == "a.b")
        let same = PolicyTable([
            Policy(match: .everything, size: SizeCondition(.below, 9), route: Route(carrier: .ephemeral))
        ])
        #expect(TableReview(same).splitFanouts.isEmpty)
    }

    private static let everyTopic: [Topic] = {
        let letters = ["a", "b", "other"]
        var (all, level) = ([String](), letters)
        for _ in 0..<6 {
            all += level
            level = level.flatMap { head in letters.map { "\(head).\($0)" } }
        }
        return all.map { Topic(unchecked: $0) }
    }()
}
