/// What a channel tells its node besides messages.
package enum StreamEvent: Sendable {
    case loss(Loss)
    case streamStarted(UInt64, NodeIdentity)
    case streamEnded(UInt64, NodeIdentity?)
    /// A member stopped reporting: the group no longer waits for it.
    case memberStalled(NodeIdentity)
    case memberBack(NodeIdentity)
    /// The message named by the token ends in this frame.
    case sent(token: UInt64, lastFrame: UInt64)
    /// A member has everything below `received`.
    case position(NodeIdentity, received: UInt64)
    /// Ask the sender of a stream for frames that are missing here.
    case repairWanted(stream: UInt64, from: NodeIdentity, [ClosedRange<UInt64>])
    /// Send this to a member that asked; `bytes` of frames are in it.
    case repairAnswer(RepairPacket, to: NodeIdentity, bytes: Int)
    /// Another node has the channel configured differently.
    case digestDiffers(NodeIdentity)
}
