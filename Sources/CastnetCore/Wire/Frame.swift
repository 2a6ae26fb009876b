package import NIOCore

/// What stands in front of a frame's records. The bytes are specified in docs/wire.md, chapter Frames.
package struct FrameHeader: Hashable, Sendable {
    package static let magic: UInt16 = 0x434E  // "CN"
    package static let version: UInt8 = 1
    package static let length = 48

    /// The stream's id, random per incarnation and channel.
    package var stream: UInt64
    /// The frame's number; of a head, which has none of its own, the next one to be sent.
    package var sequence: UInt64
    package var isHead: Bool
    /// Where members send their reports.
    package var reportTo: DatagramAddress
    /// Time between two reports of a member, in units of 100 µs.
    package var intervalUnits: UInt16
    /// Which key signed the frame; 0: none (the only value today).
    package var keyID: UInt32 = 0
    /// The signature; zero today.
    package var tag = AuthenticationTag()

    package init(
        stream: UInt64, sequence: UInt64, isHead: Bool = false, reportTo: DatagramAddress,
        intervalUnits: UInt16
    ) {
        self.stream = stream
        self.sequence = sequence
        self.isHead = isHead
        self.reportTo = reportTo
        self.intervalUnits = intervalUnits
    }
}

/// One record of a frame. Payload bytes share the frame's memory.
package enum FrameRecord: Hashable, Sendable {
    /// Consecutive small messages of one topic; `body` holds `count` times a 16-bit length and the bytes.
    case run(topic: Topic, first: UInt64, sentAt: UInt64, count: Int, body: ByteBuffer)
    case chunk(Chunk)
    case announce(Announcement)
    case head(next: UInt64, oldest: UInt64)

    package enum Kind: UInt8 {
        case run = 1
        case chunk = 2
        case announce = 3
        case head = 4
    }
}

/// A part of a large message, or a whole one with headers.
package struct Chunk: Hashable, Sendable {
    /// Names the message within its stream, so that parts of several may interleave.
    package var message: UInt64
    /// Where `data` begins in the message.
    package var offset: UInt64
    /// What the message is: in its first part only.
    package var head: Head?
    package var data: ByteBuffer

    package struct Head: Hashable, Sendable {
        package var topic: Topic
        package var sequence: UInt64
        package var sentAt: UInt64
        package var total: UInt64
        package var headers = Headers()
        package var carrierChange: CarrierChange?
        /// The message's bytes begin with its headers, which were too many for one frame.
        package var headersInBody = false

        package init(
            topic: Topic, sequence: UInt64, sentAt: UInt64, total: UInt64, headers: Headers = Headers(),
            carrierChange: CarrierChange? = nil
        ) {
            self.topic = topic
            self.sequence = sequence
            self.sentAt = sentAt
            self.total = total
            self.headers = headers
            self.carrierChange = carrierChange
        }
    }

    package init(message: UInt64, offset: UInt64, head: Head?, data: ByteBuffer) {
        self.message = message
        self.offset = offset
        self.head = head
        self.data = data
    }
}

/// Who sends a stream, and how its channel is configured.
package struct Announcement: Hashable, Sendable {
    package var node: NodeIdentity
    package var channelDigest: UInt64
    package var oldest: UInt64
    package init(node: NodeIdentity, channelDigest: UInt64, oldest: UInt64) {
        self.node = node
        self.channelDigest = channelDigest
        self.oldest = oldest
    }
}

extension ByteBuffer {
    package mutating func write(_ header: FrameHeader) {
        writeInteger(FrameHeader.magic)
        writeInteger(FrameHeader.version)
        writeInteger(UInt8(header.isHead ? 1 : 0))
        writeInteger(header.keyID)
        writeInteger(header.stream)
        writeInteger(header.sequence)
        writeInteger(header.reportTo.address)
        writeInteger(header.reportTo.port)
        writeInteger(header.intervalUnits)
        writeInteger(header.tag.high)
        writeInteger(header.tag.low)
    }

    package mutating func readFrameHeader() throws(WireError) -> FrameHeader {
        guard try read(UInt16.self) == FrameHeader.magic else { throw .magic }
        guard try read(UInt8.self) == FrameHeader.version else { throw .version }
        let flags: UInt8 = try read()
        let keyID: UInt32 = try read()
        let (stream, sequence): (UInt64, UInt64) = (try read(), try read())
        let reportTo = DatagramAddress(address: try read(), port: try read())
        var header = FrameHeader(
            stream: stream, sequence: sequence, isHead: flags & 1 != 0, reportTo: reportTo,
            intervalUnits: try read())
        header.keyID = keyID
        header.tag.high = try read()
        header.tag.low = try read()
        // A number at the very end of the range could not be followed by another one.
        if header.sequence > UInt64.max / 2 { throw .range }
        return header
    }
}

/// Reads a frame's records one by one; the topics named in it are remembered for the records behind.
package struct FrameReader {
    private var rest: ByteBuffer
    private var topics: [Topic] = []

    /// `records` is a frame behind its header.
    package init(records: ByteBuffer) { rest = records }

    /// The next record of a known kind; nil at the end.
    package mutating func next() throws(WireError) -> FrameRecord? {
        while rest.readableBytes > 0 {
            let length = try rest.read(UInt16.self)
            var body = try rest.readBytes(Int(length))
            let code: UInt8 = try body.read()
            guard let kind = FrameRecord.Kind(rawValue: code) else { continue }
            switch kind {
            case .run: return try run(&body)
            case .chunk: return .chunk(try chunk(&body))
            case .announce:
                return .announce(
                    Announcement(
                        node: try body.readNode(), channelDigest: try body.read(), oldest: try body.read()))
            case .head: return .head(next: try body.read(), oldest: try body.read())
            }
        }
        return nil
    }

    private mutating func topic(_ body: inout ByteBuffer) throws(WireError) -> Topic {
        let index = Int(try body.read(UInt8.self))
        if index < topics.count { return topics[index] }
        guard index == topics.count else { throw .range }
        let topic = try body.readTopic()
        topics.append(topic)
        return topic
    }

    private mutating func run(_ body: inout ByteBuffer) throws(WireError) -> FrameRecord {
        let topic = try topic(&body)
        let (first, sentAt): (UInt64, UInt64) = (try body.read(), try body.read())
        let count = Int(try body.read(UInt16.self))
        if count == 0 { throw .range }
        var index = body.readerIndex
        for _ in 0..<count {
            guard let length = body.getInteger(at: index, as: UInt16.self) else { throw .truncated }
            index += 2 + Int(length)
            if index > body.writerIndex { throw .truncated }
        }
        if index != body.writerIndex { throw .trailing }
        return .run(topic: topic, first: first, sentAt: sentAt, count: count, body: body)
    }

    private mutating func chunk(_ body: inout ByteBuffer) throws(WireError) -> Chunk {
        let flags: UInt8 = try body.read()
        let (message, offset): (UInt64, UInt64) = (try body.read(), try body.read())
        guard flags & FrameWriter.firstFlag != 0 else {
            if offset == 0 || body.readableBytes == 0 { throw .inconsistent }
            return Chunk(message: message, offset: offset, head: nil, data: body)
        }
        let topic = try topic(&body)
        var head = Chunk.Head(
            topic: topic, sequence: try body.read(), sentAt: try body.read(), total: try body.read())
        if flags & FrameWriter.changeFlag != 0 {
            head.carrierChange = CarrierChange(stream: try body.read(), last: try body.read())
        }
        if flags & FrameWriter.headersFlag != 0 { head.headers = try body.readHeaders() }
        head.headersInBody = flags & FrameWriter.headersInBodyFlag != 0
        let length = UInt64(body.readableBytes)
        if offset != 0 || length > head.total || (length == 0 && head.total > 0) { throw .inconsistent }
        return Chunk(message: message, offset: 0, head: head, data: body)
    }
}
