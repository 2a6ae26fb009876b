package import NIOCore

/// A frame after its parser.
package struct Frame: Sendable {
    package var header: FrameHeader
    package var records: [FrameRecord]
}

/// Bytes → frame. Everything a peer can get wrong is found here, as a reason; nothing is copied but names.
package struct FrameDecoder: Sendable {
    private var cache = TopicCache()
    /// The topics the current frame has named so far.
    private var topics: [Topic] = []

    package init() {}

    /// Parses `bytes` as one whole frame.
    package mutating func decode(_ bytes: ByteBuffer) throws(WireError) -> Frame {
        var records: [FrameRecord] = []
        let header = try decode(bytes, into: &records)
        return Frame(header: header, records: records)
    }

    /// Parses `bytes` as one whole frame; the records replace what `records` held, in its memory.
    package mutating func decode(
        _ bytes: ByteBuffer, into records: inout [FrameRecord]
    ) throws(WireError) -> FrameHeader {
        var rest = bytes
        records.removeAll(keepingCapacity: true)
        topics.removeAll(keepingCapacity: true)
        let header = try FrameHeader(reading: &rest)
        while rest.readableBytes > 0 {
            guard let (kind, length) = rest.readMultipleIntegers(as: (UInt8, UInt16).self) else {
                throw .truncated
            }
            guard var body = rest.readSlice(length: Int(length)) else { throw .truncated }
            // Each record is made where it stays: it is a value with several references to count.
            switch kind {
            case FrameRecord.Kind.run:
                if header.isHead { throw .inconsistent }
                records.append(.run(try run(&body)))
            case FrameRecord.Kind.chunk:
                if header.isHead { throw .inconsistent }
                records.append(.chunk(try chunk(&body)))
            case FrameRecord.Kind.announce: records.append(.announce(try announce(&body)))
            case FrameRecord.Kind.head:
                let head = try head(&body)
                if !header.isHead || head.next != header.sequence { throw .inconsistent }
                records.append(.head(head))
            // A kind that this version does not know.
            default: continue
            }
        }
        return header
    }

    private mutating func topic(_ body: inout ByteBuffer) throws(WireError) -> Topic {
        guard let index = body.readInteger(as: UInt8.self) else { throw .truncated }
        if Int(index) < topics.count { return topics[Int(index)] }
        guard Int(index) == topics.count, let length = body.readInteger(as: UInt8.self),
            let name = body.readSlice(length: Int(length)), let topic = cache.topic(name)
        else { throw .name }
        topics.append(topic)
        return topic
    }

    private mutating func run(_ body: inout ByteBuffer) throws(WireError) -> RunRecord {
        let topic = try topic(&body)
        guard
            let (first, sentAt, count) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt16).self)
        else { throw .truncated }
        guard first <= FrameWire.numberMax, sentAt <= FrameWire.numberMax else { throw .range }
        guard count > 0 else { throw .range }
        var index = body.readerIndex
        let end = body.writerIndex
        for _ in 0..<count {
            guard let length = body.getInteger(at: index, as: UInt16.self) else { throw .truncated }
            index += 2 + Int(length)
            guard index <= end else { throw .truncated }
        }
        guard index == end else { throw .trailing }
        return RunRecord(
            topic: topic, firstSequence: first, sentAtMicroseconds: sentAt, count: Int(count), body: body)
    }

    private mutating func chunk(_ body: inout ByteBuffer) throws(WireError) -> ChunkRecord {
        guard let (flags, number, offset) = body.readMultipleIntegers(as: (UInt8, UInt64, UInt64).self)
        else { throw .truncated }
        guard number <= FrameWire.numberMax, offset <= FrameWire.numberMax else { throw .range }
        guard flags & 1 != 0 else {
            guard offset > 0, body.readableBytes > 0 else { throw .inconsistent }
            return ChunkRecord(number: number, offset: offset, start: nil, data: body)
        }
        let topic = try topic(&body)
        guard
            let (sequence, sentAt, total, headersLength, extensions) =
                body.readMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt32, UInt8).self),
            var extensionBytes = body.readSlice(length: Int(extensions))
        else { throw .truncated }
        guard max(sequence, sentAt, total) <= FrameWire.numberMax else { throw .range }
        let length = UInt64(body.readableBytes)
        guard offset == 0, length <= total, UInt64(headersLength) <= total, length > 0 || total == 0 else {
            throw .inconsistent
        }
        var start = ChunkStart(
            topic: topic, sequence: sequence, sentAtMicroseconds: sentAt, total: total,
            headersLength: headersLength)
        try extend(&start, &extensionBytes)
        return ChunkRecord(number: number, offset: 0, start: start, data: body)
    }

    /// Extensions are kind, length, bytes; unknown kinds are skipped.
    private func extend(_ start: inout ChunkStart, _ bytes: inout ByteBuffer) throws(WireError) {
        while bytes.readableBytes > 0 {
            guard let (kind, length) = bytes.readMultipleIntegers(as: (UInt8, UInt8).self),
                var body = bytes.readSlice(length: Int(length))
            else { throw .inconsistent }
            if kind == 2 { start.asksProcessed = true }
            guard kind == 1 else { continue }
            guard body.readableBytes == 16,
                let (previous, last) = body.readMultipleIntegers(as: (UInt64, UInt64).self)
            else { throw .inconsistent }
            guard last <= FrameWire.numberMax else { throw .range }
            start.carrierChange = CarrierChange(stream: previous, last: last)
        }
    }

    private func announce(_ body: inout ByteBuffer) throws(WireError) -> AnnounceRecord {
        let identity = try body.readNode()
        guard
            let (digest, oldest, open, age) = body.readMultipleIntegers(
                as: (UInt64, UInt64, UInt64, UInt32).self)
        else { throw .truncated }
        guard max(oldest, open) <= FrameWire.numberMax else { throw .range }
        return AnnounceRecord(
            identity: identity, digest: digest, oldest: oldest, firstOpenMessage: open, ageMilliseconds: age)
    }

    private func head(_ body: inout ByteBuffer) throws(WireError) -> HeadRecord {
        guard let (next, oldest, open) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self) else {
            throw .truncated
        }
        guard max(next, oldest, open) <= FrameWire.numberMax else { throw .range }
        return HeadRecord(next: next, oldest: oldest, firstOpenMessage: open)
    }
}
