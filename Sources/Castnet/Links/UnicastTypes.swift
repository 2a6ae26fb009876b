package import CastnetCore
package import NIOCore

/// A call or cast, or one copy of a fanout, on its way to one member.
package struct OutboundMessage: Sendable {
    package var kind: MessageKind
    package var topic: Topic
    package var server: String?
    package var instance: String?
    package var sequence: UInt64
    package var sentAtMicroseconds: UInt64
    package var deadline: Instant
    package var settle: Settlement
    package var headers: Headers
    package var payload: ByteBuffer
    package var route: Route
    package var mandatory: Bool

    package init(
        kind: MessageKind, topic: Topic, server: String? = nil, instance: String? = nil, sequence: UInt64,
        sentAtMicroseconds: UInt64, deadline: Instant, settle: Settlement, headers: Headers = Headers(),
        payload: ByteBuffer, route: Route, mandatory: Bool
    ) {
        self.kind = kind
        self.topic = topic
        self.server = server
        self.instance = instance
        self.sequence = sequence
        self.sentAtMicroseconds = sentAtMicroseconds
        self.deadline = deadline
        self.settle = settle
        self.headers = headers
        self.payload = payload
        self.route = route
        self.mandatory = mandatory
    }
}

/// Where a peer listens.
package enum PeerAddress: Hashable, Sendable {
    /// The path of a Unix-domain socket on this host.
    case unix(String)
    case tcp(HostPort)
}

/// How a message ended, with what came back.
package struct SendResult: Sendable {
    package var outcome: Outcome
    package var why: String?
    package var member: NodeIdentity?
    package var carrier: Carrier
    package var latency: Duration
    package var headers = Headers()
    package var payload = ByteBuffer()
}

/// Whom to tell how a message ended: exactly once, on the loop.
package enum Completion: Sendable {
    case continuation(UnsafeContinuation<SendResult, Never>)
    /// A copy of a fanout: the receipt's token, where one was asked, and whose copy it is.
    case copy(receipt: UInt64?, NodeIdentity)
}

/// Where an answer must go. Held by handlers on any thread, used only on the loop.
package enum ReplyToken: Sendable {
    case link(Link, id: UInt64, topic: Topic, bytes: Int)
    /// A message this node sent to itself.
    case local(id: UInt64)
}

/// Who serves topics; asked on the loop.
package protocol MemberSource: AnyObject {
    /// The members that serve a topic, the own node among them.
    func members(serving topic: Topic) -> [Member]
}

/// What became of a message that arrived.
package enum Reception: Sendable {
    case taken
    /// It was taken; no more is read from its link until ``Unicast/resumeReading()``.
    case takenLast
    /// There is no room for it, and nobody has looked at it; its slip hears when there is.
    case turnedAway
}

/// What links bring up; called on the loop.
package protocol UnicastSink: AnyObject {
    /// The desk that answers are left at.
    var answers: AnswerDesk { get }
    /// A message for this node's members; its answer comes back through the delivery's slip.
    func received(_ delivery: Delivery, settle: Settlement) -> Reception
    /// Who was told of room for a topic has no use for it.
    func passed(_ topic: Topic, by sender: NodeIdentity)
    /// A copy of a fanout has ended.
    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int)
    /// A peer that was probed lives.
    func heard(_ peer: NodeIdentity)
    /// A peer said who it is.
    func met(_ peer: NodeIdentity)
    /// The link on which a peer said who it is has ended; `isLost` where neither side meant it to.
    func parted(from peer: NodeIdentity, isLost: Bool)
    /// Nobody answered at any address of a peer.
    func missed(_ peer: NodeIdentity)
    /// A peer has said something about missing frames.
    func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity)
    /// A peer's directory has said a beacon.
    func directoryReceived(_ word: ByteBuffer, from peer: NodeIdentity)
    /// The link for requests to a peer has ended or could not be opened.
    func repairLinkEnded(_ peer: NodeIdentity)
}

/// A sink that cares for messages only, and lets the rest pass.
package protocol MessageSink: UnicastSink {}

extension MessageSink {
    package func passed(_ topic: Topic, by sender: NodeIdentity) {}
    package func heard(_ peer: NodeIdentity) {}
    package func met(_ peer: NodeIdentity) {}
    package func parted(from peer: NodeIdentity, isLost: Bool) {}
    package func missed(_ peer: NodeIdentity) {}
    package func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {}
    package func directoryReceived(_ word: ByteBuffer, from peer: NodeIdentity) {}
    package func repairLinkEnded(_ peer: NodeIdentity) {}
}

/// Stands in for a node that is gone.
final class Nobody: MemberSource, MessageSink {
    let answers: AnswerDesk

    init(loop: any EventLoop) { answers = AnswerDesk(loop: loop) { _ in } }

    func members(serving topic: Topic) -> [Member] { [] }
    func received(_ delivery: Delivery, settle: Settlement) -> Reception { .taken }
    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {}
}
