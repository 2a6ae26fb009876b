/// Why a message travels as it does: every rule looked at, in order, up to the one that matched.
public struct Explanation: Hashable, Sendable, CustomStringConvertible {
    /// A rule looked at that is not for the message.
    public struct Skipped: Hashable, Sendable {
        /// The rule's place in the table.
        public var index: Int?
        /// The rule's line in the configuration file; nil for a table made in code.
        public var line: Int?
        /// The rule's pattern.
        public var match: TopicPattern
        /// Why it is not for the message.
        public var why: String
    }

    /// The message's topic.
    public var topic: Topic
    /// The message's kind.
    public var kind: MessageKind
    /// The payload's size in bytes.
    public var size: Int
    /// The rule that matched.
    public var policy: Policy
    /// Why it is for the message.
    public var why: String
    /// The rules before it.
    public var skipped: [Skipped]

    /// One line for an error text: `cast to scheduler: rule 0 (line 7, match scheduler) → persistent`.
    public var description: String {
        "\(kind.rawValue) to \(topic): \(policy.place) → \(policy.route.carrier.rawValue)"
            + (policy.route.channel.map { " on channel \($0)" } ?? "")
    }
}

extension PolicyTable {
    /// The decision for a message with its reasons; agrees with ``policy(for:kind:size:)`` because both ask
    /// the same question of the same rules.
    public func explain(topic: Topic, kind: MessageKind, size: Int) -> Explanation {
        var skipped: [Explanation.Skipped] = []
        for rule in rules {
            let why: String
            if let reason = rule.mismatch(topic: topic, kind: kind) {
                why = reason
            } else if !rule.takes(size: size), let condition = rule.size {
                why = "\(size) B is not \(condition)"
            } else {
                return Explanation(
                    topic: topic, kind: kind, size: size, policy: rule,
                    why: rule.reason(kind: kind, size: size),
                    skipped: skipped)
            }
            skipped.append(.init(index: rule.index, line: rule.line, match: rule.match, why: why))
        }
        return Explanation(
            topic: topic, kind: kind, size: size, policy: .builtIn,
            why: rules.isEmpty ? "the table has no rules" : "no rule of the table is for it", skipped: skipped
        )
    }
}

extension Policy {
    /// `rule 0 (line 7, match scheduler)`, or `the built-in last rule`.
    public var place: String {
        guard let index else { return "the built-in last rule" }
        return "rule \(index) (\(line.map { "line \($0), " } ?? "")match \(match.text))"
    }

    fileprivate func reason(kind: MessageKind, size bytes: Int) -> String {
        var reasons = ["the topic matches \(match.text)"]
        if kinds.count < MessageKind.allCases.count { reasons.append("it is for \(kinds.sortedNames)") }
        if let size { reasons.append("\(bytes) B is \(size)") }
        return reasons.joined(separator: ", ")
    }
}
