/// What a channel tells its node besides messages.
package enum StreamEvent: Sendable {
    case loss(Loss)
    case streamStarted(UInt64, NodeIdentity)
    case streamEnded(UInt64, NodeIdentity?)
    /// The message named by the token begins in this frame.
    case began(token: UInt64, firstFrame: UInt64)
    /// It ends in this one.
    case sent(token: UInt64, lastFrame: UInt64)
    /// A member has come so far.
    case position(NodeIdentity, Progress)
    /// Frames went to a member over TCP, because it had asked for them.
    case served(NodeIdentity, ClosedRange<UInt64>)
    /// Ask the sender of a stream for frames that are missing here.
    case repairWanted(stream: UInt64, from: NodeIdentity, [ClosedRange<UInt64>])
    /// Ask the sender of a stream from which frame on it is for this node, which has listened for so long.
    case placeWanted(stream: UInt64, from: NodeIdentity, milliseconds: UInt32)
    /// Send this to a member that asked; `bytes` of frames are in it.
    case repairAnswer(RepairPacket, to: NodeIdentity, bytes: Int)
    /// Tell a member that seems not to hear the group, over a link, how far the own stream is.
    case headWanted(RepairPacket, to: NodeIdentity)
    /// How frames get to a member of the own stream has changed.
    case memberPath(NodeIdentity, PathChange.Reason)
    /// How a peer's frames get here has changed.
    case ownPath(from: NodeIdentity, PathChange.Reason)
    /// Another node has the channel configured differently.
    case digestDiffers(NodeIdentity)
}

/// How far a member has come in a stream since it reported last.
package struct Progress: Hashable, Sendable {
    /// The next frame it expected then, and below which everything was handled.
    package var before: UInt64
    package var processedBefore: UInt64
    /// What it says now.
    package var position: Report.StreamPosition
    /// The version of what it announced to the directory then.
    package var epoch: UInt64
    /// True: it lost something since.
    package var hasLost: Bool
    /// True: since then there is something that it will not handle.
    package var hasRefused: Bool

    package init(
        before: UInt64, processedBefore: UInt64? = nil, position: Report.StreamPosition,
        epoch: UInt64 = 0, hasLost: Bool = false, hasRefused: Bool = false
    ) {
        self.before = before
        self.processedBefore = processedBefore ?? before
        self.position = position
        self.epoch = epoch
        self.hasLost = hasLost
        self.hasRefused = hasRefused
    }
}
