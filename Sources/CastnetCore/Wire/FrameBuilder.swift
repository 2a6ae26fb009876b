package import NIOCore

/// Frame → bytes: writes one frame behind whatever a buffer holds, record by record, never past its size.
package struct FrameBuilder: Sendable {
    /// The frame's first byte.
    private let start: Int
    /// One past the last byte the frame may have.
    private let end: Int
    /// The topics the frame has named so far.
    private var topics: [Topic] = []

    /// Starts a frame of at most `sizeMax` bytes with its header.
    package init(_ header: FrameHeader, sizeMax: Int, into buffer: inout ByteBuffer) {
        start = buffer.writerIndex
        end = start + min(sizeMax, Int(UInt16.max))
        header.write(into: &buffer)
    }

    /// Bytes still free.
    package func remaining(in buffer: ByteBuffer) -> Int { end - buffer.writerIndex }

    /// Bytes of the frame so far.
    package func length(in buffer: ByteBuffer) -> Int { buffer.writerIndex - start }

    /// True once a message or a part of one stands in the frame.
    package private(set) var hasMessages = false

    /// The index of `topic` in this frame, or nil where the frame has not named it.
    private func index(of topic: Topic) -> Int? {
        for index in topics.indices where topics[index] == topic { return index }
        return nil
    }

    /// Bytes a reference to `topic` takes here; nil: the frame's list is full.
    private func referenceLength(_ topic: Topic) -> Int? {
        if index(of: topic) != nil { return 1 }
        return topics.count < 255 ? 2 + topic.name.utf8.count : nil
    }

    private mutating func writeReference(_ topic: Topic, into buffer: inout ByteBuffer) {
        if let index = index(of: topic) {
            buffer.writeInteger(UInt8(truncatingIfNeeded: index))
            return
        }
        buffer.writeMultipleIntegers(
            UInt8(truncatingIfNeeded: topics.count), UInt8(truncatingIfNeeded: topic.name.utf8.count))
        buffer.writeString(topic.name)
        topics.append(topic)
    }

    /// Writes a record's kind and room for its length, which ``endRecord(_:in:)`` sets; returns its start.
    private func beginRecord(_ kind: UInt8, into buffer: inout ByteBuffer) -> Int {
        let index = buffer.writerIndex
        buffer.writeMultipleIntegers(kind, UInt16(0))
        return index
    }

    private func endRecord(_ index: Int, in buffer: inout ByteBuffer) {
        let length = buffer.writerIndex - index - FrameWire.recordHeadLength
        buffer.setInteger(UInt16(truncatingIfNeeded: length), at: index + 1)
    }

    package mutating func announce(_ record: AnnounceRecord, into buffer: inout ByteBuffer) {
        let index = beginRecord(FrameRecord.Kind.announce, into: &buffer)
        buffer.writeNode(record.identity)
        buffer.writeMultipleIntegers(record.digest, record.oldest, record.firstOpenMessage)
        buffer.writeInteger(record.ageMilliseconds)
        endRecord(index, in: &buffer)
    }

    package mutating func head(_ record: HeadRecord, into buffer: inout ByteBuffer) {
        let index = beginRecord(FrameRecord.Kind.head, into: &buffer)
        buffer.writeMultipleIntegers(record.next, record.oldest, record.firstOpenMessage)
        endRecord(index, in: &buffer)
    }

    /// A run being written.
    package struct OpenRun: Sendable {
        fileprivate let index: Int
        fileprivate let countIndex: Int
        package fileprivate(set) var count: UInt16 = 0
    }

    /// Starts a run, if it and a first message of `length` bytes fit.
    package mutating func beginRun(
        topic: Topic, firstSequence: UInt64, sentAt: UInt64, length: Int, into buffer: inout ByteBuffer
    ) -> OpenRun? {
        guard let reference = referenceLength(topic),
            FrameWire.recordHeadLength + reference + 18 + 2 + length <= remaining(in: buffer)
        else { return nil }
        let index = beginRecord(FrameRecord.Kind.run, into: &buffer)
        hasMessages = true
        writeReference(topic, into: &buffer)
        buffer.writeMultipleIntegers(firstSequence, sentAt)
        let run = OpenRun(index: index, countIndex: buffer.writerIndex)
        buffer.writeInteger(UInt16(0))
        return run
    }

    /// Adds a message to `run`, if it fits.
    package func add(
        _ payload: ByteBuffer, to run: inout OpenRun, into buffer: inout ByteBuffer
    ) -> Bool {
        let length = payload.readableBytes
        guard 2 + length <= remaining(in: buffer), run.count < .max else { return false }
        buffer.writeInteger(UInt16(truncatingIfNeeded: length))
        buffer.writeImmutableBuffer(payload)
        run.count += 1
        return true
    }

    /// Adds the first of packed messages, as many as fit, and no further one once there are `wanted` bytes;
    /// returns how many.
    func add(
        from cast: inout OutboundCast, wanted: Int, to run: inout OpenRun, into buffer: inout ByteBuffer
    ) -> Int {
        let added = cast.moveFirst(
            countMax: Int(UInt16.max - run.count), room: remaining(in: buffer), wanted: wanted, into: &buffer)
        run.count += UInt16(truncatingIfNeeded: added)
        return added
    }

    package func end(_ run: OpenRun, in buffer: inout ByteBuffer) {
        buffer.setInteger(run.count, at: run.countIndex)
        endRecord(run.index, in: &buffer)
    }

    /// Bytes of data a chunk written now could carry; negative or zero: none.
    package func chunkRoom(_ start: ChunkStart?, in buffer: ByteBuffer) -> Int {
        let fixed = FrameWire.recordHeadLength + 17
        guard let start else { return remaining(in: buffer) - fixed }
        guard let reference = referenceLength(start.topic) else { return 0 }
        return remaining(in: buffer) - fixed - reference - 29 - start.extensionsLength
    }

    /// Writes a chunk; its data are at most ``chunkRoom(_:in:)``.
    package mutating func chunk(_ record: ChunkRecord, into buffer: inout ByteBuffer) {
        let index = beginChunk(record.number, offset: record.offset, start: record.start, into: &buffer)
        buffer.writeImmutableBuffer(record.data)
        endRecord(index, in: &buffer)
    }

    /// Starts a chunk whose data the caller writes, at most ``chunkRoom(_:in:)``, before ``endChunk(_:in:)``.
    package mutating func beginChunk(
        _ number: UInt64, offset: UInt64, start: ChunkStart?, into buffer: inout ByteBuffer
    ) -> Int {
        let index = beginRecord(FrameRecord.Kind.chunk, into: &buffer)
        hasMessages = true
        buffer.writeMultipleIntegers(UInt8(start == nil ? 0 : 1), number, offset)
        guard let start else { return index }
        writeReference(start.topic, into: &buffer)
        buffer.writeMultipleIntegers(
            start.sequence, start.sentAtMicroseconds, start.total, start.headersLength,
            UInt8(start.extensionsLength))
        if let change = start.carrierChange {
            buffer.writeMultipleIntegers(UInt8(1), UInt8(16), change.stream, change.last)
        }
        if start.asksProcessed { buffer.writeMultipleIntegers(UInt8(2), UInt8(0)) }
        return index
    }

    /// Writes all of a chunk but its `length` bytes of data, where the message began in an earlier frame.
    package mutating func continueChunk(
        _ number: UInt64, offset: UInt64, length: Int, into buffer: inout ByteBuffer
    ) {
        hasMessages = true
        buffer.writeWithOutputRawSpan(minimumWritableBytes: FrameWire.recordHeadLength + 17) { bytes in
            bytes.appendBigEndian(FrameRecord.Kind.chunk)
            bytes.appendBigEndian(UInt16(truncatingIfNeeded: 17 + length))
            bytes.appendBigEndian(UInt8(0))
            bytes.appendBigEndian(number)
            bytes.appendBigEndian(offset)
        }
    }

    package func endChunk(_ index: Int, in buffer: inout ByteBuffer) { endRecord(index, in: &buffer) }
}
