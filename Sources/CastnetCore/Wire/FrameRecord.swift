package import NIOCore

/// One record of a frame, checked: nobody behind the decoder looks at its lengths again.
package enum FrameRecord: Sendable {
    case run(RunRecord)
    case chunk(ChunkRecord)
    case announce(AnnounceRecord)
    case head(HeadRecord)

    /// The kinds' numbers on the wire.
    package enum Kind {
        package static let run: UInt8 = 1
        package static let chunk: UInt8 = 2
        package static let announce: UInt8 = 3
        package static let head: UInt8 = 4
    }
}

extension [FrameRecord] {
    /// What the sender says of itself, where it does.
    var announcement: AnnounceRecord? {
        for case .announce(let announcement) in self { return announcement }
        return nil
    }
}

/// Consecutive small messages of one topic, without headers.
package struct RunRecord: Sendable {
    package var topic: Topic
    package var firstSequence: UInt64
    package var sentAtMicroseconds: UInt64
    package var count: Int
    /// `count` times a 16-bit length and that many bytes; shares the frame's memory.
    package var body: ByteBuffer
}

/// A part of a message: its header block followed by its payload, cut anywhere.
package struct ChunkRecord: Sendable {
    /// Counts the chunked messages of the stream, from 1.
    package var number: UInt64
    /// Where `data` belongs in the message.
    package var offset: UInt64
    /// In the message's first chunk only.
    package var start: ChunkStart?
    package var data: ByteBuffer

    package init(number: UInt64, offset: UInt64, start: ChunkStart?, data: ByteBuffer) {
        self.number = number
        self.offset = offset
        self.start = start
        self.data = data
    }
}

/// What the first chunk says about its message.
package struct ChunkStart: Hashable, Sendable {
    package var topic: Topic
    package var sequence: UInt64
    package var sentAtMicroseconds: UInt64
    /// Bytes of the header block and the payload together.
    package var total: UInt64
    /// Bytes of the header block at the message's beginning.
    package var headersLength: UInt32
    package var carrierChange: CarrierChange?
    /// True: the sender waits to hear that the message was handled.
    package var asksProcessed: Bool

    package init(
        topic: Topic, sequence: UInt64, sentAtMicroseconds: UInt64, total: UInt64, headersLength: UInt32,
        carrierChange: CarrierChange? = nil, asksProcessed: Bool = false
    ) {
        self.topic = topic
        self.sequence = sequence
        self.sentAtMicroseconds = sentAtMicroseconds
        self.total = total
        self.headersLength = headersLength
        self.carrierChange = carrierChange
        self.asksProcessed = asksProcessed
    }

    /// Bytes of the extensions.
    var extensionsLength: Int { (carrierChange == nil ? 0 : 18) + (asksProcessed ? 2 : 0) }
}

/// Who sends the stream, and its state before the frame it comes in.
package struct AnnounceRecord: Hashable, Sendable {
    package var identity: NodeIdentity
    /// The digest of the channel's settings that all its nodes must share.
    package var digest: UInt64
    /// The oldest frame the sender can still repair.
    package var oldest: UInt64
    /// Every chunked message with a smaller number was complete before this frame.
    package var firstOpenMessage: UInt64
    /// Milliseconds since the stream's first frame: who listens for longer is owed all of it.
    package var ageMilliseconds: UInt32

    package init(
        identity: NodeIdentity, digest: UInt64, oldest: UInt64, firstOpenMessage: UInt64,
        ageMilliseconds: UInt32
    ) {
        self.identity = identity
        self.digest = digest
        self.oldest = oldest
        self.firstOpenMessage = firstOpenMessage
        self.ageMilliseconds = ageMilliseconds
    }

    var length: Int { FrameWire.recordHeadLength + 1 + identity.name.utf8.count + 36 }
}

/// Where the stream ends for now.
package struct HeadRecord: Hashable, Sendable {
    /// The next frame to be sent.
    package var next: UInt64
    /// The oldest frame the sender can still repair.
    package var oldest: UInt64
    /// Every chunked message with a smaller number is complete.
    package var firstOpenMessage: UInt64

    package init(next: UInt64, oldest: UInt64, firstOpenMessage: UInt64) {
        self.next = next
        self.oldest = oldest
        self.firstOpenMessage = firstOpenMessage
    }

    static let length = FrameWire.recordHeadLength + 24
}
