package import NIOCore

/// A message on its way into a stream.
package struct OutboundCast: Sendable {
    package var topic: Topic
    /// Counts the messages of this sender on this topic, from 1.
    package var sequence: UInt64
    /// Microseconds since 1970 at the call.
    package var sentAtMicroseconds: UInt64
    package var headers: Headers
    package var payload: ByteBuffer
    /// Names the message in the events about it; nil: nobody asked to be told.
    package var token: UInt64?
    /// True: members tell when they have handled it.
    package var asksProcessed: Bool
    /// Above 0: so many messages with successive numbers, each in the payload behind its length in two bytes.
    var packed = 0

    package init(
        topic: Topic, sequence: UInt64, sentAtMicroseconds: UInt64, headers: Headers = Headers(),
        payload: ByteBuffer, token: UInt64? = nil, asksProcessed: Bool = false
    ) {
        self.topic = topic
        self.sequence = sequence
        self.sentAtMicroseconds = sentAtMicroseconds
        self.headers = headers
        self.payload = payload
        self.token = token
        self.asksProcessed = asksProcessed
    }

    /// How many messages it is.
    package var count: Int { max(1, packed) }
    /// Bytes of the messages themselves.
    package var payloadBytes: Int { payload.readableBytes - 2 * packed }
}

/// A frame of a stream whose message is being handled.
package struct FrameMark: Hashable, Sendable {
    package var stream: UInt64
    package var frame: UInt64
}

/// One or more whole messages of one sender and topic, as they came out of one record.
///
/// A run of small messages stays one value until the consumer reads it: the engine thread never touches
/// the single messages, and they share the frame's memory.
package struct InboundRecord: Sendable {
    package var topic: Topic
    package var from: NodeIdentity
    /// The first message's number; the others follow without a gap.
    package var firstSequence: UInt64
    package var sentAtMicroseconds: UInt64
    package var headers: Headers
    package var count: Int
    /// `count == 1`: the payload. Otherwise `count` times a 16-bit length and that many bytes, checked.
    package var body: ByteBuffer
    package var isRun: Bool
    package var repaired: RepairPath
    /// It was sent before this node listened: only for those that want what was retained.
    package var isReplayed = false
    /// Names the message to its sender, which waits to hear that it was handled; nil: it does not.
    package var mark: FrameMark?

    package init(
        topic: Topic, from: NodeIdentity, firstSequence: UInt64, sentAtMicroseconds: UInt64,
        headers: Headers = Headers(), count: Int = 1, body: ByteBuffer, isRun: Bool = false,
        repaired: RepairPath = .none, mark: FrameMark? = nil
    ) {
        self.topic = topic
        self.from = from
        self.firstSequence = firstSequence
        self.sentAtMicroseconds = sentAtMicroseconds
        self.headers = headers
        self.count = count
        self.body = body
        self.isRun = isRun
        self.repaired = repaired
        self.mark = mark
    }
}

/// What brought a message that did not come the direct way.
public enum RepairPath: String, Hashable, Sendable {
    /// Nothing: it came the direct way.
    case none
    /// PGM repair.
    case pgm
    /// The sender's retention ring, over TCP.
    case tcp
}

/// An IPv4 address and a UDP port, in host byte order.
package struct DatagramAddress: Hashable, Sendable, CustomStringConvertible {
    package var address: UInt32
    package var port: UInt16

    package init(address: UInt32, port: UInt16) {
        self.address = address
        self.port = port
    }

    package var description: String {
        "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255):\(port)"
    }
}
