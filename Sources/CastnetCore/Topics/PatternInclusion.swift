/// Questions about sets of patterns, answered by walking their automata side by side over at most as many
/// segments as a topic may have.
enum PatternInclusion {
    /// The steps one question may take: tables are small, and a hostile one must not stop a start.
    static let effortMax = 100_000
    private static let segmentCountMax = 8

    /// True when every topic that `pattern` matches is matched by at least one of `others`; nil when the
    /// question takes more steps than `effort` has left.
    static func isCovered(
        _ pattern: TopicPattern, by others: [TopicPattern], effort: inout Int
    ) -> Bool? {
        struct State: Hashable {
            var own: TopicPattern.Positions
            var others: [TopicPattern.Positions]
        }
        var level: Set<State> = [State(own: pattern.start, others: others.map(\.start))]
        for _ in 0..<segmentCountMax {
            var next: Set<State> = []
            for state in level {
                let alive = zip(others, state.others).map { Walker(pattern: $0, positions: $1) }
                for symbol in symbols(of: Walker(pattern: pattern, positions: state.own), beside: alive) {
                    effort -= 1 + others.count
                    if effort < 0 { return nil }
                    let own = pattern.step(state.own, over: symbol)
                    if own.isEmpty { continue }
                    let stepped = zip(others, state.others).map { $0.step($1, over: symbol) }
                    if zip(others, stepped).contains(where: { $0.acceptsEverything($1) }) { continue }
                    if pattern.accepts(own), !zip(others, stepped).contains(where: { $0.accepts($1) }) {
                        return false
                    }
                    next.insert(State(own: own, others: stepped))
                }
            }
            if next.isEmpty { return true }
            level = next
        }
        return true
    }

    /// The shortest topic that both patterns match.
    static func commonTopic(_ left: TopicPattern, _ right: TopicPattern) -> Topic? {
        struct Step {
            var left: TopicPattern.Positions
            var right: TopicPattern.Positions
            var path: [Substring]
        }
        let spare = spareSegment(beside: [left, right])
        var level = [Step(left: left.start, right: right.start, path: [])]
        var seen: Set<[UInt16]> = []
        for _ in 0..<segmentCountMax {
            var next: [Step] = []
            for step in level {
                let walkers = [
                    Walker(pattern: left, positions: step.left),
                    Walker(pattern: right, positions: step.right),
                ]
                for symbol in symbols(of: walkers[0], beside: [walkers[1]]) {
                    let (newLeft, newRight) = (
                        left.step(step.left, over: symbol), right.step(step.right, over: symbol)
                    )
                    if newLeft.isEmpty || newRight.isEmpty { continue }
                    let path = step.path + [symbol ?? spare]
                    if left.accepts(newLeft), right.accepts(newRight) {
                        return try? Topic(path.joined(separator: "."))
                    }
                    if seen.insert([newLeft.bits, newRight.bits]).inserted {
                        next.append(Step(left: newLeft, right: newRight, path: path))
                    }
                }
            }
            level = next
        }
        return nil
    }

    /// A pattern with the places where it stands.
    private struct Walker {
        var pattern: TopicPattern
        var positions: TopicPattern.Positions

        /// The literals that can be the next segment, and whether a wildcard can.
        var expected: (literals: [Substring], anything: Bool) {
            var literals: [Substring] = []
            var anything = false
            for (index, segment) in pattern.segments.enumerated() where positions.contains(index) {
                if case .literal(let text) = segment { literals.append(text) } else { anything = true }
            }
            return (literals, anything)
        }
    }

    /// The next segments worth trying: where `walker` takes anything, one of each kind the others tell
    /// apart; nil stands for a segment nobody names.
    private static func symbols(of walker: Walker, beside others: [Walker]) -> Set<Substring?> {
        let (literals, anything) = walker.expected
        var symbols: Set<Substring?> = Set(literals)
        guard anything else { return symbols }
        symbols.insert(nil)
        for other in others { symbols.formUnion(other.expected.literals) }
        return symbols
    }

    /// A segment that is no literal of `patterns`.
    private static func spareSegment(beside patterns: [TopicPattern]) -> Substring {
        var spare: Substring = "x"
        while patterns.contains(where: { $0.segments.contains(.literal(spare)) }) { spare += "x" }
        return spare
    }
}
