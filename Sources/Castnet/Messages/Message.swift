public import CastnetCore
public import NIOCore

/// A message as a member gets it.
public struct Message: Sendable {
    /// What it asks for.
    public var kind: MessageKind
    /// The topic it was sent to.
    public var topic: Topic
    /// The sending node.
    public var from: NodeIdentity
    /// Counts the sender's messages on this topic, from 1; a sender of more than 65,536 topics leaves gaps.
    public var sequence: UInt64
    /// Microseconds since 1970 when the sender called.
    public var sentAtMicroseconds: UInt64
    /// When the sender stops waiting, on this node's monotonic clock; nil: it does not wait.
    public var deadline: Instant?
    /// Names and values that travel with it.
    public var headers: Headers
    /// The content. It may share memory with other messages of the same frame: copy what is kept for long.
    public var payload: ByteBuffer
    /// The way it came.
    public var carrier: Carrier
    /// What brought it, where the direct way failed.
    public var repaired: RepairPath

    /// The message's name: the same at every member, different for every message of a cluster.
    public var id: MessageID { MessageID(incarnation: from.incarnation, topic: topic, sequence: sequence) }
}

/// What a handler answers.
public enum Response: Sendable {
    /// Done; a call gets this reply.
    case reply(ByteBuffer, headers: Headers = Headers())
    /// Refused: the sender sees `rejected` with the reason.
    case reject(String)
    /// Not executed: the sender may give it to another member.
    case release(String)

    /// Done, with an empty reply.
    public static var done: Response { .reply(ByteBuffer()) }
}

/// What a call brought back.
public struct Reply: Sendable {
    /// The call's message.
    public var id: MessageID
    /// The reply's content.
    public var payload: ByteBuffer
    /// The reply's headers.
    public var headers: Headers
    /// Who answered.
    public var from: NodeIdentity
    /// The way the call went.
    public var carrier: Carrier
    /// From the call to its reply.
    public var latency: Duration
}

/// Who took a cast.
public struct CastReceipt: Sendable {
    /// The message.
    public var id: MessageID
    /// The member that took it.
    public var member: NodeIdentity
    /// The way it went.
    public var carrier: Carrier
    /// From the call to the acknowledgement.
    public var latency: Duration
}

/// What may be said about one send; nil keys take the policy's value.
public struct SendOptions: Sendable {
    /// How long the message may take in all.
    public var deadline: Duration?
    /// Names and values that travel with it.
    public var headers = Headers()
    /// When a cast counts as settled.
    public var settle: Settlement?
    /// True: fail at once where nobody serves the topic.
    public var mandatory: Bool?

    /// Everything as the policy says.
    public init(
        deadline: Duration? = nil, headers: Headers = Headers(), settle: Settlement? = nil,
        mandatory: Bool? = nil
    ) {
        self.deadline = deadline
        self.headers = headers
        self.settle = settle
        self.mandatory = mandatory
    }
}
