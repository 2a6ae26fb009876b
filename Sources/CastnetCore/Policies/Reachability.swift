/// Why no message ever reaches a rule.
package enum Unreachable: Hashable, Sendable {
    /// Earlier rules, together, take everything it is for.
    case covered(by: [Int])
    /// No size a message may have fulfils its condition.
    case size
}

/// What can be said about a whole table before any message is sent.
///
/// Both questions are answered by trying, so both have a budget of steps; a table that is too large or too
/// tangled for it is judged only in its first rules, and says so.
package struct TableReview: Sendable {
    /// The steps all questions about one table may take together.
    static let effortMax = 400_000

    /// The rules no message can reach, in order. A rule counts only when that is proven: for every kind and
    /// size it is for, the earlier rules for that kind and size match all its topics.
    package private(set) var unreachable: [(index: Int, why: Unreachable)] = []
    /// Fanouts of one topic that go by different carriers or channels depending on their size: for each rule
    /// with a size condition at which they part, one topic and its policies.
    package private(set) var splitFanouts: [(index: Int, topic: Topic, policies: [Policy])] = []
    /// The rules looked at; fewer than the table has when the budget was used up.
    package private(set) var judgedCount = 0

    private let table: PolicyTable
    private let messageSizeMax: Int
    private var effort = TableReview.effortMax

    /// Looks at `table` for messages of at most `messageSizeMax` bytes.
    package init(_ table: PolicyTable, messageSizeMax: Int = .max) {
        self.table = table
        self.messageSizeMax = messageSizeMax
        for index in table.rules.indices {
            let why = reasonUnreachable(index)
            if effort < 0 { return }
            if let why { unreachable.append((index, why)) }
            judgedCount = index + 1
        }
        for index in table.rules.indices {
            guard let (topic, policies) = splitFanout(index) else { continue }
            splitFanouts.append((index, topic, policies))
        }
    }

    private mutating func reasonUnreachable(_ index: Int) -> Unreachable? {
        let rule = table.rules[index]
        if rule.kinds.isEmpty { return nil }
        let earlier = table.rules[..<index].filter {
            !$0.kinds.isDisjoint(with: rule.kinds) && !$0.match.isPlainlyDisjoint(from: rule.match)
        }
        let bounds = [0, messageSizeMax] + (earlier + [rule]).flatMap { $0.size?.representatives ?? [] }
        let sizes = Set(bounds).filter { $0 <= messageSizeMax && rule.takes(size: $0) }
        if sizes.isEmpty { return .size }
        guard isTaken(rule, by: earlier, sizes: sizes) else { return nil }
        return .covered(by: blame(rule, among: earlier, sizes: sizes))
    }

    /// True when, for every kind and each of `sizes`, the fitting `rivals` match all topics of `rule`.
    private mutating func isTaken(_ rule: Policy, by rivals: [Policy], sizes: Set<Int>) -> Bool {
        var answered: Set<[Int?]> = []
        for kind in rule.kinds {
            for size in sizes {
                effort -= 1 + rivals.count
                if effort < 0 { return false }
                let fitting = rivals.filter { $0.kinds.contains(kind) && $0.takes(size: size) }
                guard answered.insert(fitting.map(\.index)).inserted else { continue }
                let patterns = fitting.map(\.match)
                if PatternInclusion.isCovered(rule.match, by: patterns, effort: &effort) != true {
                    return false
                }
            }
        }
        return true
    }

    /// The one earlier rule that takes everything, or else as few as do it together.
    private mutating func blame(_ rule: Policy, among earlier: [Policy], sizes: Set<Int>) -> [Int] {
        for rival in earlier where isTaken(rule, by: [rival], sizes: sizes) {
            return [rival.index].compactMap { $0 }
        }
        var needed = earlier.filter { $0.match.overlap(with: rule.match) != nil }
        for rival in needed.reversed() {
            let rest = needed.filter { $0.index != rival.index }
            if isTaken(rule, by: rest, sizes: sizes) { needed = rest }
        }
        return needed.compactMap(\.index)
    }

    private mutating func splitFanout(_ index: Int) -> (topic: Topic, policies: [Policy])? {
        let rule = table.rules[index]
        guard rule.size != nil, rule.kinds.contains(.fanout) else { return nil }
        for other in table.rules.dropFirst(index) + [.builtIn] where other.kinds.contains(.fanout) {
            if rule.match.isPlainlyDisjoint(from: other.match) { continue }
            effort -= 64
            if effort < 0 { return nil }
            guard let topic = rule.match.overlap(with: other.match) else { continue }
            effort -= 8 * table.rules.count
            let choice = table.choice(for: topic, kind: .fanout)
            let policies = choice.policies.filter { $0.isReached(sizeMax: messageSizeMax) }
            guard policies.contains(where: { $0.index == index }) else { continue }
            if Set(policies.map { [$0.route.carrier.rawValue, $0.route.channel] }).count > 1 {
                return (topic, policies)
            }
        }
        return nil
    }
}

extension Policy {
    fileprivate func isReached(sizeMax: Int) -> Bool {
        guard let size else { return true }
        return size.representatives.contains { $0 <= sizeMax && size.holds($0) }
    }
}
