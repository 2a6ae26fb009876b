/// How messages of a matching topic, kind and size travel: one rule of the policy table.
public struct Policy: Hashable, Sendable {
    /// The rule's place in the table, from 0; nil for the built-in last rule.
    public var index: Int?
    /// The rule's line in the configuration file; nil for the built-in rule or a table made in code.
    public var line: Int?
    /// The topics it is for.
    public var match: TopicPattern
    /// The kinds it is for.
    public var kinds: Set<MessageKind>
    /// The sizes it is for; nil means every size.
    public var size: SizeCondition?
    /// How such messages travel.
    public var route: Route

    /// A rule made in code; a table sets its place.
    public init(
        match: TopicPattern, kinds: Set<MessageKind> = Set(MessageKind.allCases), size: SizeCondition? = nil,
        route: Route
    ) {
        self.init(index: nil, match: match, kinds: kinds, size: size, route: route)
    }

    package init(
        index: Int?, line: Int? = nil, match: TopicPattern,
        kinds: Set<MessageKind> = Set(MessageKind.allCases),
        size: SizeCondition? = nil, route: Route
    ) {
        self.index = index
        self.line = line
        self.match = match
        self.kinds = kinds
        self.size = size
        self.route = route
    }

    /// The rule behind the last one: every topic, ephemeral.
    public static let builtIn = Policy(index: nil, match: .everything, route: Route(carrier: .ephemeral))
}

/// A condition on the payload's size in bytes: `>= 64KiB`.
public struct SizeCondition: Hashable, Sendable, CustomStringConvertible {
    /// The comparison.
    public enum Comparison: String, Hashable, Sendable, CaseIterable {
        /// At least the bound.
        case atLeast = ">="
        /// More than the bound.
        case above = ">"
        /// At most the bound.
        case atMost = "<="
        /// Less than the bound.
        case below = "<"
    }
    /// How a size is compared.
    public var comparison: Comparison
    /// What it is compared with, in bytes.
    public var bytes: Int

    /// Compares sizes with `bytes`.
    public init(_ comparison: Comparison, _ bytes: Int) {
        self.comparison = comparison
        self.bytes = bytes
    }

    /// True for sizes the condition is for.
    public func holds(_ size: Int) -> Bool {
        switch comparison {
        case .atLeast: size >= bytes
        case .above: size > bytes
        case .atMost: size <= bytes
        case .below: size < bytes
        }
    }

    /// `>= 65536 B`.
    public var description: String { "\(comparison.rawValue) \(bytes) B" }
}

/// How a message travels once a rule has matched.
public struct Route: Hashable, Sendable {
    /// The carrier.
    public var carrier: Carrier
    /// The channel of a multicast route.
    public var channel: String?
    /// What serves a member that does not hear the group.
    public var fallback: Fallback = .unicast
    /// What a new subscriber gets (the subscriber's own table decides).
    public var lateJoin: LateJoin = .new
    /// The heartbeat interval of a persistent link.
    public var heartbeatInterval: Duration = .seconds(2)
    /// Connections per topic and peer of a persistent route.
    public var connections: Int = 1
    /// Who gets the next message.
    public var balance: Balance = .roundRobin
    /// When a cast counts as settled.
    public var settle: Settlement = .received
    /// What is done with a message that failed.
    public var retry: Retry = .none
    /// True when executing a message twice does no harm.
    public var idempotent = false
    /// How often a message may be tried in all.
    public var attempts: Int = 2
    /// How long an ephemeral connection stays open after its last message.
    public var linger: Duration = .seconds(5)
    /// True when messages to one peer share an ephemeral connection.
    public var share = true
    /// When a hot ephemeral topic becomes persistent; nil: never.
    public var promote: Promotion?
    /// How long a message may take when the caller does not say.
    public var deadline: Duration = .seconds(30)
    /// Messages of the topic that may wait in this node.
    public var backlog: Int = 10_000
    /// True: a message nobody serves fails at once instead of waiting for its deadline.
    public var mandatory = false

    /// A route with every other key at its default.
    public init(carrier: Carrier, channel: String? = nil) {
        self.carrier = carrier
        self.channel = channel
    }

    /// What serves a member that does not hear the group.
    public enum Fallback: String, Hashable, Sendable, CaseIterable {
        /// The same frames over TCP.
        case unicast
        /// Nothing.
        case none
    }
    /// What a new subscriber gets.
    public enum LateJoin: String, Hashable, Sendable, CaseIterable {
        /// What is sent from now on.
        case new
        /// What the senders still keep, too.
        case retained
    }
    /// Who gets the next message.
    public enum Balance: String, Hashable, Sendable, CaseIterable {
        /// Strict turns per client and topic.
        case roundRobin = "round-robin"
        /// The member with the fewest messages outstanding.
        case leastOutstanding = "least-outstanding"
        /// As the members' granted credit says.
        case capacity
    }
    /// What is done with a message that failed.
    public enum Retry: String, Hashable, Sendable, CaseIterable {
        /// Nothing.
        case none
        /// It goes to the same member again.
        case same
        /// It goes to another member.
        case otherMember = "other-member"
    }
    /// Rates, in messages a minute, at which a topic becomes persistent and ephemeral again.
    public struct Promotion: Hashable, Sendable {
        /// Persistent above this rate.
        public var afterPerMinute: Int
        /// Ephemeral again below this rate.
        public var backPerMinute: Int
        /// Persistent above the one rate, ephemeral again below the other.
        public init(afterPerMinute: Int, backPerMinute: Int) {
            self.afterPerMinute = afterPerMinute
            self.backPerMinute = backPerMinute
        }
    }
}
