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
    /// Another node has the channel configured differently.
    case digestDiffers(NodeIdentity)
}
