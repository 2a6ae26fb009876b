package import NIOCore

/// One length-prefixed unit on a link. The bytes are specified in docs/wire-links.md.
package enum Packet: Hashable, Sendable {
    case hello(Hello)
    case goodbye(Goodbye)
    case message(MessageHead, ByteBuffer)
    case reply(ReplyHead, ByteBuffer)
    /// More bytes of a message (`isReply` false) or of a reply.
    case chunk(id: UInt64, isReply: Bool, ByteBuffer)
    case cancel(id: UInt64)
    case heartbeat(UInt64)
    case heartbeatAnswer(UInt64)
    case credit(Credit)
    /// So many replies have come whole on this link, from its first one on.
    case confirmed(UInt64)
    /// The message was turned away unseen: there is no room for it now.
    case busy(id: UInt64)
    case room(Room)
    /// The acceptor wants to start a message that asks for that; the dialler lets it; it starts.
    case mayStart(id: UInt64)
    case start(id: UInt64)
    case started(id: UInt64)
    case repair(RepairPacket)
    /// A beacon (docs/wire-beacons.md), not larger than ``BeaconFormat/linkSizeMax``.
    case directory(ByteBuffer)

    /// The most bytes of a message in one packet: a large one is cut so that small ones pass between.
    package static let chunkBytes = 64 << 10
    /// The most bytes a packet may have behind its length.
    package static let bytesMax = chunkBytes + (32 << 10)

    package enum Kind: UInt8 {
        case hello = 0x01
        case goodbye = 0x02
        case message = 0x10
        case reply = 0x11
        case chunk = 0x12
        case cancel = 0x13
        case heartbeat = 0x20
        case heartbeatAnswer = 0x21
        case credit = 0x22
        case confirmed = 0x23
        case busy = 0x24
        case room = 0x25
        case mayStart = 0x26
        case start = 0x27
        case started = 0x28
        case repairRequest = 0x40
        case repairFrames = 0x41
        case repairGone = 0x42
        case repairLater = 0x43
        case repairHead = 0x44
        case repairEvicted = 0x45
        case repairSince = 0x46
        case repairPlace = 0x47
        // 0x61–0x6F: directory.
        case directory = 0x60
    }

    /// Set by the sender of a packet that must be understood.
    package static let criticalFlag: UInt8 = 0x80
}

/// The first packet of each side.
package struct Hello: Hashable, Sendable {
    package static let magic: UInt32 = 0x4341_5354  // "CAST"
    package static let version: UInt8 = 1

    package var versionMin: UInt8 = Hello.version
    package var versionMax: UInt8 = Hello.version
    package var purpose: Purpose
    package var features: Features = []
    package var cluster: String
    package var node: NodeIdentity
    /// The node the dialler wants to reach (incarnation 0: any start of that name); nil: whoever answers.
    /// Another node refuses the hello, and with it every message behind it.
    package var expected: NodeIdentity?
    /// Milliseconds between heartbeats this side wants; 0: none.
    package var heartbeatMilliseconds: UInt32 = 0
    package var packetMax = UInt32(Packet.bytesMax)
    package var messageMax: UInt64
    /// Which key signed this hello; 0: none (the only value today).
    package var keyID: UInt32 = 0
    /// The signature; zero today.
    package var tag = AuthenticationTag()

    /// What a side can do besides the least that every node of this version does.
    package struct Features: OptionSet, Hashable, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }
        /// It grants credit, and keeps to what is granted.
        package static let credit = Features(rawValue: 1)
        /// It knows a message that comes again on another persistent link.
        package static let replay = Features(rawValue: 2)
        /// It may turn messages away, and understands when its own are.
        package static let busy = Features(rawValue: 4)
        /// It asks before it starts a message that wants that.
        package static let claims = Features(rawValue: 8)
    }

    package enum Purpose: UInt8, Sendable {
        case persistent = 0
        case ephemeral = 1
        case service = 2
    }

    package init(purpose: Purpose, cluster: String, node: NodeIdentity, messageMax: UInt64) {
        self.purpose = purpose
        self.cluster = cluster
        self.node = node
        self.messageMax = messageMax
    }
}

/// Sixteen bytes that prove who sent something, once there are keys.
package struct AuthenticationTag: Hashable, Sendable {
    package var high: UInt64 = 0
    package var low: UInt64 = 0
    package init() {}
}

/// Why a side ends the link: it takes no message from now on.
package struct Goodbye: Hashable, Sendable {
    package enum Reason: UInt8, Sendable, CaseIterable {
        case stopping = 0
        case idle = 1
        case protocolError = 2
        case version = 3
        case cluster = 4
        case wrongNode = 5
        case ownNode = 6
        case limit = 7
        case helloDeadline = 8
        case dead = 9
    }
    /// Longer texts are cut.
    package static let textBytesMax = 2048

    package var reason: Reason
    /// How many messages this side has taken in on the link. The peer's later ones were never looked at.
    package var taken: UInt64
    package var text: String
    /// With reason *limit*: the time after which the dialler may come back; nil: it finds one itself.
    package var comeBackMilliseconds: UInt32?

    package init(
        _ reason: Reason, _ text: String = "", taken: UInt64 = 0, comeBackMilliseconds: UInt32? = nil
    ) {
        self.reason = reason
        self.taken = taken
        self.text = text
        self.comeBackMilliseconds = comeBackMilliseconds
    }
}

/// What stands before a message's first bytes.
package struct MessageHead: Hashable, Sendable {
    package var id: UInt64
    package var kind: MessageKind
    package var settle: Settlement
    package var mandatory: Bool
    /// True for one that was sent on a link which broke: the receiver may have it.
    package var isAgain = false
    /// True for one that is taken in only where a handler is free.
    package var isPrompt = false
    /// True for one that is started only once its sender has let it.
    package var isClaimed = false
    package var topic: Topic
    package var server: String?
    package var instance: String?
    package var sequence: UInt64
    package var sentAtMicroseconds: UInt64
    /// Microseconds left until the deadline when the packet was written.
    package var timeLeftMicroseconds: UInt64
    package var carrierChange: CarrierChange?
    package var headers: Headers
    package var total: UInt64

    package init(
        id: UInt64, kind: MessageKind, settle: Settlement = .received, mandatory: Bool = false, topic: Topic,
        server: String? = nil, instance: String? = nil, sequence: UInt64, sentAtMicroseconds: UInt64,
        timeLeftMicroseconds: UInt64, carrierChange: CarrierChange? = nil, headers: Headers = Headers(),
        total: UInt64
    ) {
        self.id = id
        self.kind = kind
        self.settle = settle
        self.mandatory = mandatory
        self.topic = topic
        self.server = server
        self.instance = instance
        self.sequence = sequence
        self.sentAtMicroseconds = sentAtMicroseconds
        self.timeLeftMicroseconds = timeLeftMicroseconds
        self.carrierChange = carrierChange
        self.headers = headers
        self.total = total
    }
}

/// Said by the first message of a topic on a new carrier: hold it until the old one has delivered `last`.
package struct CarrierChange: Hashable, Sendable {
    /// The stream the topic used before; 0: links.
    package var stream: UInt64
    /// The last message number of the topic there.
    package var last: UInt64
    package init(stream: UInt64, last: UInt64) {
        self.stream = stream
        self.last = last
    }
}

/// What stands before a reply's first bytes; an acknowledgement is a reply without bytes.
package struct ReplyHead: Hashable, Sendable {
    /// Longer reasons are cut.
    package static let whyBytesMax = 4096

    package var id: UInt64
    package var outcome: Outcome
    package var why: String?
    package var headers: Headers
    package var total: UInt64

    package init(
        id: UInt64, outcome: Outcome, why: String? = nil, headers: Headers = Headers(), total: UInt64
    ) {
        self.id = id
        self.outcome = outcome
        self.why = why
        self.headers = headers
        self.total = total
    }
}

/// How much more of a topic the sender of this packet takes.
package struct Credit: Hashable, Sendable {
    package var topic: String
    package var messages: UInt32
    package var bytes: UInt64
    package init(topic: String, messages: UInt32, bytes: UInt64) {
        self.topic = topic
        self.messages = messages
        self.bytes = bytes
    }
}

/// There is room again for what was turned away of a topic.
package struct Room: Hashable, Sendable {
    package var topic: String
    /// For how many messages; 0: as many as credit allows.
    package var messages: UInt32
    package init(topic: String, messages: UInt32) {
        self.topic = topic
        self.messages = messages
    }
}
