/// Finds the rule for each message: a policy table with a memory of the topics it has seen.
///
/// A value, confined to whoever owns it. After a topic's first message a look-up is one hash of the topic;
/// it allocates nothing and matches no pattern. The memory holds at most `topicCountMax` topics; when one
/// more comes it is emptied and filled again, and ``resets`` counts that.
public struct Router: Sendable {
    /// The rules.
    public let table: PolicyTable
    /// The most topics remembered.
    public let topicCountMax: Int
    /// How often the memory was full.
    public private(set) var resets: UInt64 = 0
    private var remembered: [Topic: Choices] = [:]

    private struct Choices: Sendable {
        var call: RouteChoice?
        var cast: RouteChoice?
        var fanout: RouteChoice?

        subscript(kind: MessageKind) -> RouteChoice? {
            get {
                switch kind {
                case .call: call
                case .cast: cast
                case .fanout: fanout
                }
            }
            set {
                switch kind {
                case .call: call = newValue
                case .cast: cast = newValue
                case .fanout: fanout = newValue
                }
            }
        }
    }

    /// A router over `table` that remembers `topicCountMax` topics (`limits.topics`).
    public init(table: PolicyTable, topicCountMax: Int = LimitSettings().topics) {
        self.table = table
        self.topicCountMax = max(1, topicCountMax)
    }

    /// Topics remembered now.
    public var topicCount: Int { remembered.count }

    /// The rule for a message: the first whose pattern, kinds and size condition hold, else the built-in one.
    public mutating func route(topic: Topic, kind: MessageKind, size: Int) -> Policy {
        choice(topic: topic, kind: kind).policy(forSize: size)
    }

    /// What the table decides for this topic and kind; a caller with interned topics keeps it.
    public mutating func choice(topic: Topic, kind: MessageKind) -> RouteChoice {
        if let known = remembered[topic]?[kind] { return known }
        let choice = table.choice(for: topic, kind: kind)
        if remembered.count >= topicCountMax, remembered[topic] == nil {
            remembered.removeAll(keepingCapacity: true)
            resets += 1
        }
        remembered[topic, default: Choices()][kind] = choice
        return choice
    }

    /// The same decision with its reasons.
    public func explain(topic: Topic, kind: MessageKind, size: Int) -> Explanation {
        table.explain(topic: topic, kind: kind, size: size)
    }
}
