/// Why no message ever reaches a rule.
package enum Unreachable: Hashable, Sendable {
    /// Earlier rules, together, take everything it is for.
    case covered(by: [Int])
    /// No size a message may have fulfils its condition.
    case size
}

extension PolicyTable {
    /// The rules no message can reach, in order. A rule counts as unreachable only when that is proven: for
    /// every kind and size it is for, the earlier rules for that kind and size match all its topics.
    package func unreachableRules(messageSizeMax: Int = .max) -> [(index: Int, why: Unreachable)] {
        rules.indices.compactMap { index in
            reasonUnreachable(index, messageSizeMax: messageSizeMax).map { (index, $0) }
        }
    }

    /// The fanouts of one topic that go by different carriers or channels depending on their size: for each
    /// rule with a size condition at which they part, one topic and its policies.
    package func splitFanouts(messageSizeMax: Int = .max) -> [(index: Int, topic: Topic, policies: [Policy])]
    {
        rules.indices.compactMap { index in
            let rule = rules[index]
            guard rule.size != nil, rule.kinds.contains(.fanout) else { return nil }
            for other in rules.dropFirst(index) + [.builtIn] where other.kinds.contains(.fanout) {
                guard let topic = rule.match.overlap(with: other.match) else { continue }
                let choice = self.choice(for: topic, kind: .fanout)
                let policies = choice.policies.filter { $0.isReached(sizeMax: messageSizeMax) }
                guard policies.contains(where: { $0.index == index }) else { continue }
                if Set(policies.map { [$0.route.carrier.rawValue, $0.route.channel] }).count > 1 {
                    return (index, topic, policies)
                }
            }
            return nil
        }
    }

    private func reasonUnreachable(_ index: Int, messageSizeMax: Int) -> Unreachable? {
        let rule = rules[index]
        if rule.kinds.isEmpty { return nil }
        let earlier = rules[..<index].filter { !$0.kinds.isDisjoint(with: rule.kinds) }
        let bounds = [0, messageSizeMax] + (earlier + [rule]).flatMap { $0.size?.representatives ?? [] }
        let sizes = Set(bounds).filter { $0 <= messageSizeMax && rule.takes(size: $0) }
        if sizes.isEmpty { return .size }
        if earlier.isEmpty { return nil }

        guard Self.isTaken(rule, by: earlier, sizes: sizes) else { return nil }
        return .covered(by: Self.blame(rule, among: earlier, sizes: sizes))
    }

    /// True when, for every kind and each of `sizes`, the fitting rules of `rivals` match all topics of `rule`.
    private static func isTaken(_ rule: Policy, by rivals: [Policy], sizes: Set<Int>) -> Bool {
        var answered: Set<[Int?]> = []
        for kind in rule.kinds {
            for size in sizes {
                let fitting = rivals.filter { $0.kinds.contains(kind) && $0.takes(size: size) }
                guard answered.insert(fitting.map(\.index)).inserted else { continue }
                if PatternInclusion.isCovered(rule.match, by: fitting.map(\.match)) != true { return false }
            }
        }
        return true
    }

    /// The one earlier rule that takes everything, or else as few as do it together.
    private static func blame(_ rule: Policy, among earlier: [Policy], sizes: Set<Int>) -> [Int] {
        if let single = earlier.first(where: { isTaken(rule, by: [$0], sizes: sizes) }) {
            return [single.index].compactMap { $0 }
        }
        var needed = earlier.filter { $0.match.overlap(with: rule.match) != nil }
        for rival in needed.reversed() where needed.count <= 64 {
            let rest = needed.filter { $0.index != rival.index }
            if isTaken(rule, by: rest, sizes: sizes) { needed = rest }
        }
        return needed.compactMap(\.index)
    }
}

extension Policy {
    fileprivate func isReached(sizeMax: Int) -> Bool {
        guard let size else { return true }
        return size.representatives.contains { $0 <= sizeMax && size.holds($0) }
    }
}
