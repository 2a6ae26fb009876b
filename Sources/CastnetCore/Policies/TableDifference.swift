/// One rule that two policy tables do not share.
public struct RuleChange: Hashable, Sendable, CustomStringConvertible {
    /// How the tables differ.
    public enum Change: String, Hashable, Sendable {
        /// Only the new table has the rule.
        case added
        /// Only the old table has the rule.
        case removed
        /// The rule stands before or behind another one than it did.
        case moved
        /// The rule's keys differ.
        case changed
    }
    /// One key with its two values; nil where a table does not set it.
    public struct KeyChange: Hashable, Sendable {
        /// The configuration key.
        public var key: String
        /// The value in the old table.
        public var old: String?
        /// The value in the new table.
        public var new: String?
    }

    /// How the tables differ.
    public var change: Change
    /// The rule in the old table.
    public var old: Policy?
    /// The rule in the new table.
    public var new: Policy?
    /// The keys that differ.
    public var keys: [KeyChange]

    /// One line: `rule 1 (line 8, match agents.**) changed: carrier multicast → persistent`.
    public var description: String {
        let place = (new ?? old)?.place ?? ""
        let details = keys.map { "\($0.key) \($0.old ?? "unset") → \($0.new ?? "unset")" }
        let moved = change == .moved ? ", from place \(old?.index ?? 0) to \(new?.index ?? 0)" : ""
        return "\(place) \(change.rawValue)\(moved)"
            + (details.isEmpty ? "" : ": " + details.joined(separator: ", "))
    }
}

extension PolicyTable {
    /// What it takes to get from this table to `new`: rules are the same rule when pattern, kinds and size
    /// agree, or else when only the pattern does and nothing stands between.
    public func changes(to new: PolicyTable) -> [RuleChange] {
        let kept = Self.longestCommonRun(rules, new.rules) { $0.hasSameCondition(as: $1) }
        var oldLeft = rules.indices.filter { index in !kept.contains { $0.old == index } }
        var newLeft = new.rules.indices.filter { index in !kept.contains { $0.new == index } }
        var changes: [RuleChange] = []

        func pair(_ change: RuleChange.Change, _ old: Int, _ new: Policy) {
            let keys = rules[old].keyChanges(to: new)
            if change == .changed, keys.isEmpty { return }
            changes.append(RuleChange(change: change, old: rules[old], new: new, keys: keys))
        }
        for run in kept { pair(.changed, run.old, new.rules[run.new]) }
        for index in newLeft {
            let rule = new.rules[index]
            if let old = oldLeft.first(where: { rules[$0].hasSameCondition(as: rule) }) {
                pair(.moved, old, rule)
                oldLeft.removeAll { $0 == old }
                newLeft.removeAll { $0 == index }
            } else if let old = oldLeft.first(where: { rules[$0].match == rule.match }) {
                pair(.changed, old, rule)
                oldLeft.removeAll { $0 == old }
                newLeft.removeAll { $0 == index }
            }
        }
        for index in newLeft {
            changes.append(.init(change: .added, old: nil, new: new.rules[index], keys: []))
        }
        for index in oldLeft {
            changes.append(.init(change: .removed, old: rules[index], new: nil, keys: []))
        }
        func place(_ change: RuleChange) -> Int { change.new?.index ?? change.old?.index ?? .max }
        return changes.sorted { place($0) < place($1) }
    }

    /// The longest common subsequence, as pairs of places.
    private static func longestCommonRun(
        _ old: [Policy], _ new: [Policy], by isSame: (Policy, Policy) -> Bool
    ) -> [(old: Int, new: Int)] {
        var lengths = [[Int]](repeating: [Int](repeating: 0, count: new.count + 1), count: old.count + 1)
        for row in old.indices.reversed() {
            for column in new.indices.reversed() {
                lengths[row][column] =
                    isSame(old[row], new[column])
                    ? lengths[row + 1][column + 1] + 1
                    : max(lengths[row + 1][column], lengths[row][column + 1])
            }
        }
        var (row, column, run) = (0, 0, [(old: Int, new: Int)]())
        while row < old.count, column < new.count {
            if isSame(old[row], new[column]) {
                run.append((row, column))
                (row, column) = (row + 1, column + 1)
            } else if lengths[row + 1][column] >= lengths[row][column + 1] {
                row += 1
            } else {
                column += 1
            }
        }
        return run
    }
}

extension Policy {
    fileprivate func hasSameCondition(as other: Policy) -> Bool {
        match == other.match && kinds == other.kinds && size == other.size
    }

    fileprivate func keyChanges(to other: Policy) -> [RuleChange.KeyChange] {
        let (old, new) = (namedValues, other.namedValues)
        var keys = old.map(\.key)
        keys += new.map(\.key).filter { !keys.contains($0) }
        return keys.compactMap { key in
            let before = old.first { $0.key == key }?.value.description
            let after = new.first { $0.key == key }?.value.description
            return before == after ? nil : .init(key: key, old: before, new: after)
        }
    }

    /// The conditions and the route's settings.
    private var namedValues: [RouteEntry] {
        var values = [RouteEntry(key: "kinds", value: .text(kinds.sortedNames))]
        if let size { values.append(RouteEntry(key: "size", value: .text(size.description))) }
        return values + route.entries
    }
}
