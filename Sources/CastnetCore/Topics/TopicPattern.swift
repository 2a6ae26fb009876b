/// A topic with wildcards: `*` stands for exactly one segment, `**` for any number of them, none included.
public struct TopicPattern: Hashable, Sendable, CustomStringConvertible {
    /// The pattern as written.
    public let text: String
    private let segments: [Segment]

    private enum Segment: Hashable, Sendable {
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
        Self.matches(segments[...], topic.name.split(separator: ".")[...])
    }

    /// True when every topic that `other` matches is matched by this pattern too (language inclusion).
    public func covers(_ other: TopicPattern) -> Bool {
        Self.covers(segments[...], other.segments[...])
    }

    private static func matches(_ pattern: ArraySlice<Segment>, _ topic: ArraySlice<Substring>) -> Bool {
        guard let head = pattern.first else { return topic.isEmpty }
        switch head {
        case .any:
            return (topic.startIndex...topic.endIndex).contains { matches(pattern.dropFirst(), topic[$0...]) }
        case .one:
            return !topic.isEmpty && matches(pattern.dropFirst(), topic.dropFirst())
        case .literal(let text):
            return topic.first == text && matches(pattern.dropFirst(), topic.dropFirst())
        }
    }

    /// Segment-wise inclusion. `**` on the right can only be swallowed by `**` on the left.
    private static func covers(_ left: ArraySlice<Segment>, _ right: ArraySlice<Segment>) -> Bool {
        guard let head = left.first else { return right.isEmpty }
        switch head {
        case .any:
            return (right.startIndex...right.endIndex).contains { covers(left.dropFirst(), right[$0...]) }
        case .one:
            guard let other = right.first, other != .any else { return false }
            return covers(left.dropFirst(), right.dropFirst())
        case .literal:
            return right.first == head && covers(left.dropFirst(), right.dropFirst())
        }
    }
}
