/// Who got a fanout: a row per member of the view at send time.
public struct Receipt: Sendable {
    /// The message.
    public var id: MessageID
    /// Which version of the membership the rows are of.
    public var view: UInt64
    /// A row per member; empty when no receipt was asked.
    public var rows: [Row]

    package init(id: MessageID, view: UInt64, rows: [Row]) {
        self.id = id
        self.view = view
        self.rows = rows
    }

    /// True when every member of the view has it.
    public var isComplete: Bool { rows.allSatisfy { $0.outcome.isDelivered } }

    /// What became of the message at one member.
    public struct Row: Hashable, Sendable {
        /// The member.
        public var node: NodeIdentity
        /// What became of it.
        public var outcome: Outcome
        /// From the call to the member's word, where it gave one.
        public var latency: Duration?

        package init(node: NodeIdentity, outcome: Outcome, latency: Duration? = nil) {
            self.node = node
            self.outcome = outcome
            self.latency = latency
        }
    }

    /// What became of a fanout at one member.
    public enum Outcome: String, Hashable, Sendable, CaseIterable {
        /// Delivered in memory: the sender's own node.
        case local
        /// Delivered by the group.
        case multicast
        /// Delivered after a repair over TCP.
        case repaired
        /// Delivered over TCP.
        case unicast
        /// The member left, died or restarted before it could say so.
        case left
        /// The member refused it.
        case rejected
        /// The deadline passed first.
        case timedOut = "timed-out"

        /// True where the member has the message.
        public var isDelivered: Bool {
            switch self {
            case .local, .multicast, .repaired, .unicast: true
            case .left, .rejected, .timedOut: false
            }
        }
    }
}
