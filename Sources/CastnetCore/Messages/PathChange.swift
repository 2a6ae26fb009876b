/// How multicast frames get from one node to another has changed.
public struct PathChange: Hashable, Sendable {
    /// The other node.
    public var peer: NodeIdentity
    /// The channel, by its name in the configuration.
    public var channel: String
    /// How frames travel now.
    public var path: Path
    /// Why.
    public var why: Reason

    package init(peer: NodeIdentity, channel: String, why: Reason) {
        self.peer = peer
        self.channel = channel
        path = why.path
        self.why = why
    }

    /// A way for frames.
    public enum Path: String, Hashable, Sendable {
        /// By the group.
        case multicast
        /// The same frames over TCP, as far as the sender keeps them.
        case unicast
        /// None.
        case none
    }

    /// Why frames travel as they do.
    public enum Reason: String, Hashable, Sendable {
        /// The group is heard.
        case heard
        /// Nothing comes by the group, although the sender sends.
        case notHeard = "not-heard"
        /// The member says nothing, or takes much less than the others, which do not wait for it any more.
        case stalled
        /// The same, where the channel's `slow` is `evict`: what it missed it does not get.
        case evicted
        /// A member that was stalled or evicted is waited for again.
        case caughtUp = "caught-up"

        /// Where frames travel for this reason.
        package var path: Path {
            switch self {
            case .heard, .caughtUp: .multicast
            case .notHeard, .stalled: .unicast
            case .evicted: .none
            }
        }
        /// The reason that this one ends.
        package func ends(_ other: Self) -> Bool {
            switch self {
            case .heard: other == .notHeard
            case .caughtUp: other == .stalled || other == .evicted
            case .notHeard, .stalled, .evicted: false
            }
        }
    }
}
