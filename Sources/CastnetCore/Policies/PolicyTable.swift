/// The rules in order; the first that matches a topic, kind and size decides. Behind the last one stands
/// ``Policy/builtIn``, so every message has a rule.
public struct PolicyTable: Hashable, Sendable {
    /// The rules in order, without the built-in last one; each rule's `index` is its place here.
    public let rules: [Policy]

    /// A table of `rules`; their indexes are set to their places.
    public init(_ rules: [Policy] = []) {
        self.rules = rules.enumerated().map { index, rule in
            var rule = rule
            rule.index = index
            return rule
        }
    }

    /// The first rule that is for the message.
    public func policy(for topic: Topic, kind: MessageKind, size: Int) -> Policy {
        rules.first { $0.mismatch(topic: topic, kind: kind) == nil && $0.takes(size: size) } ?? .builtIn
    }

    /// Everything the table can do with one topic and kind, whatever the size.
    public func choice(for topic: Topic, kind: MessageKind) -> RouteChoice {
        var candidates: [Policy] = []
        for rule in rules where rule.mismatch(topic: topic, kind: kind) == nil {
            candidates.append(rule)
            if rule.size == nil { return RouteChoice(candidates: candidates) }
        }
        return RouteChoice(candidates: candidates + [.builtIn])
    }
}

extension Configuration {
    /// The policy table.
    public var table: PolicyTable { PolicyTable(policies) }
}

/// What the table decides for one topic and kind: only the payload's size is still open.
///
/// A value to keep beside an interned topic: looking up a size neither allocates nor matches patterns.
public struct RouteChoice: Hashable, Sendable {
    /// The rules some size leads to, in table order; the last one takes every size left.
    public let policies: [Policy]

    /// `candidates` match the topic and kind, in table order; the last has no size condition.
    init(candidates: [Policy]) {
        if candidates.count == 1 {
            policies = candidates
        } else {
            // Only rules that win for some size matter later; sizes beside the bounds stand for all others.
            var winners: Set<Int> = []
            for size in candidates.flatMap({ $0.size?.representatives ?? [0, Int.max] }) {
                if let winner = candidates.firstIndex(where: { $0.takes(size: size) }) {
                    winners.insert(winner)
                }
            }
            policies = winners.sorted().map { candidates[$0] }
        }
    }

    /// The rule for a payload of `size` bytes.
    public func policy(forSize size: Int) -> Policy {
        for policy in policies where policy.takes(size: size) { return policy }
        return policies.last ?? .builtIn
    }
}

extension Policy {
    /// True when the rule's size condition, if it has one, holds.
    func takes(size bytes: Int) -> Bool { size?.holds(bytes) ?? true }

    /// Why the rule is not for messages of this topic and kind, whatever their size; nil: it is.
    func mismatch(topic: Topic, kind: MessageKind) -> String? {
        if !match.matches(topic) { return "the topic does not match \(match.text)" }
        if !kinds.contains(kind) { return "it is for \(kinds.sortedNames) only, not for a \(kind.rawValue)" }
        return nil
    }
}

extension SizeCondition {
    /// Sizes that stand for all: between two neighbours no condition changes its answer.
    var representatives: [Int] {
        [
            0, max(0, bytes == .min ? 0 : bytes - 1), max(0, bytes), bytes == .max ? .max : max(0, bytes + 1),
            .max,
        ]
    }
}

extension Set<MessageKind> {
    /// `call, cast`: the kinds in their fixed order.
    package var sortedNames: String {
        MessageKind.allCases.filter(contains).map(\.rawValue).joined(separator: ", ")
    }
}
