/// A topic with wildcards: `*` stands for exactly one segment, `**` for any number of them, none included.
public struct TopicPattern: Hashable, Sendable, CustomStringConvertible {
    /// The pattern as written.
    public let text: String
    let segments: [Segment]

    enum Segment: Hashable, Sendable {
        case literal(Substring)
        case one
        case any
    }

    /// Checks `text`; throws ``CastnetError`` with code `invalidTopic`.
    public init(_ text: String) throws {
        if let fault = Topic.fault(in: text, wildcards: true) {
            throw CastnetError(.invalidTopic, "pattern \(quoted(text)): \(fault)")
        }
        self.init(unchecked: text)
    }

    /// The pattern that matches exactly one topic.
    public init(_ topic: Topic) { self.init(unchecked: topic.name) }

    /// The pattern that matches every topic.
    public static let everything = TopicPattern(unchecked: "**")

    package init(unchecked text: String) {
        self.text = text
        segments = text.split(separator: ".").map { segment in
            switch segment {
            case "*": .one
            case "**": .any
            default: .literal(segment)
            }
        }
    }

    /// The pattern as written.
    public var description: String { text }

    /// True when the pattern holds no wildcard, so that it names one topic.
    public var isExact: Bool {
        segments.allSatisfy { if case .literal = $0 { true } else { false } }
    }

    /// True when `topic` matches.
    public func matches(_ topic: Topic) -> Bool {
        var positions = start
        for segment in topic.name.split(separator: ".") {
            positions = step(positions, over: segment)
            if positions.isEmpty { return false }
        }
        return accepts(positions)
    }

    /// True when every topic that `other` matches is matched by this pattern too.
    public func covers(_ other: TopicPattern) -> Bool {
        var effort = PatternInclusion.effortMax
        return PatternInclusion.isCovered(other, by: [self], effort: &effort) == true
    }

    /// True when the first or the last segments already keep the patterns apart; false says nothing.
    func isPlainlyDisjoint(from other: TopicPattern) -> Bool {
        func differ(_ left: Segment?, _ right: Segment?) -> Bool {
            if case .literal(let left) = left, case .literal(let right) = right {
                left != right
            } else {
                false
            }
        }
        return differ(segments.first, other.segments.first) || differ(segments.last, other.segments.last)
    }

    /// A topic that both patterns match, or nil when there is none.
    public func overlap(with other: TopicPattern) -> Topic? {
        PatternInclusion.commonTopic(self, other)
    }
}

/// A pattern is a small automaton over segments: a position is the number of pattern segments already
/// matched, and `**` lets several positions live at once.
extension TopicPattern {
    /// Positions alive at the same time, as bits; a pattern has at most 8 segments.
    struct Positions: Hashable, Sendable {
        var bits: UInt16 = 0
        var isEmpty: Bool { bits == 0 }
        func contains(_ position: Int) -> Bool { bits & (1 << position) != 0 }
        mutating func insert(_ position: Int) { bits |= 1 << position }
    }

    /// The positions before the first segment.
    var start: Positions { closed(Positions(bits: 1)) }

    /// The positions after one more topic segment; nil stands for a segment no literal is equal to.
    func step(_ positions: Positions, over segment: Substring?) -> Positions {
        var next = Positions()
        for (index, own) in segments.enumerated() where positions.contains(index) {
            switch own {
            case .literal(let text): if segment == text { next.insert(index + 1) }
            case .one: next.insert(index + 1)
            case .any: next.insert(index)
            }
        }
        return closed(next)
    }

    /// True when a topic may end here.
    func accepts(_ positions: Positions) -> Bool { positions.contains(segments.count) }

    /// True when every way to go on from here matches.
    func acceptsEverything(_ positions: Positions) -> Bool {
        segments.last == .any && positions.contains(segments.count - 1)
    }

    /// `**` may stand for nothing, so being before it is being behind it, too.
    private func closed(_ positions: Positions) -> Positions {
        var closed = positions
        for (index, own) in segments.enumerated() where own == .any && closed.contains(index) {
            closed.insert(index + 1)
        }
        return closed
    }
}
