/// Frames of a stream that could not be had: every message in them is lost to one member.
public struct Loss: Hashable, Sendable {
    /// Why the frames are gone.
    public enum Reason: String, Hashable, Sendable {
        /// The transport gave up on them and nothing else could repair them.
        case unrepaired
        /// The sender no longer keeps them.
        case beyondRetention = "beyond-retention"
        /// The sender evicted this member, which was too slow.
        case evicted
        /// The sender is gone.
        case senderGone = "sender-gone"
        /// The memory for a hole's successors was full.
        case reorderFull = "reorder-full"
        /// A message was larger than this member takes.
        case tooLarge = "too-large"
    }

    /// The sending node's name, or the stream's number where the sender never said its name.
    public var from: String
    /// The channel's name.
    public var channel: String
    /// The stream's id.
    public var stream: UInt64
    /// The first missing frame number.
    public var first: UInt64
    /// The last missing frame number.
    public var last: UInt64
    /// Why.
    public var reason: Reason
    /// The member that has to do without them, where this node is their sender; nil: this node itself.
    public var member: String?

    /// How many frames are missing.
    public var count: UInt64 { last - first + 1 }

    package init(
        from: String, channel: String, stream: UInt64, first: UInt64, last: UInt64, reason: Reason,
        member: String? = nil
    ) {
        self.from = from
        self.channel = channel
        self.stream = stream
        self.first = first
        self.last = last
        self.reason = reason
        self.member = member
    }
}
