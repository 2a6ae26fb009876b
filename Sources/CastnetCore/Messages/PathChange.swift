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

    package init(peer: NodeIdentity, channel: String, path: Path, why: Reason) {
        self.peer = peer
        self.channel = channel
        self.path = path
        self.why = why
    }

    /// A way for frames.
    public enum Path: String, Hashable, Sendable {
        /// By the group.
        case multicast
        /// The same frames over TCP.
        case unicast
    }

    /// Why frames travel as they do.
    public enum Reason: String, Hashable, Sendable {
        /// The group is heard.
        case heard
        /// Nothing comes by the group, although the sender sends.
        case notHeard = "not-heard"
    }
}
