package import NIOCore

/// Writes one frame: header, then records while they fit.
package struct FrameWriter {
    private var topics: [Topic] = []
    private let bytesMax: Int
    /// Where the open run's length, count and last byte are; nil: the last record is no open run.
    private var run: (start: Int, countAt: Int, count: UInt16, topic: Topic, next: UInt64)?

    /// The bytes of a chunk record before its data, without topic name, headers and carrier change.
    private static let chunkOverhead = 2 + 1 + 1 + 1 + 40

    /// Begins a frame of at most `bytesMax` bytes in `frame`, which is emptied.
    package init(_ header: FrameHeader, into frame: inout ByteBuffer, bytesMax: Int) {
        frame.clear()
        frame.write(header)
        self.bytesMax = bytesMax
    }

    /// Appends a small message without headers to the open run, or opens one; false when it does not fit.
    package mutating func append(
        _ payload: ByteBuffer, topic: Topic, sequence: UInt64, sentAt: UInt64, to frame: inout ByteBuffer
    ) -> Bool {
        let needed = 2 + payload.readableBytes
        if let run, run.topic == topic, run.next == sequence, run.count < .max {
            guard frame.writerIndex + needed <= bytesMax else { return false }
        } else {
            guard frame.writerIndex + 2 + 1 + topicBytes(topic) + 18 + needed <= bytesMax else {
                return false
            }
            closeRun(in: &frame)
            let start = frame.writerIndex
            frame.writeInteger(UInt16(0))
            frame.writeInteger(FrameRecord.Kind.run.rawValue)
            write(topic, to: &frame)
            frame.writeInteger(sequence)
            frame.writeInteger(sentAt)
            run = (start, frame.writerIndex, 0, topic, sequence)
            frame.writeInteger(UInt16(0))
        }
        frame.writeInteger(UInt16(payload.readableBytes))
        frame.writeImmutableBuffer(payload)
        run?.count += 1
        run?.next = sequence &+ 1
        return true
    }

    /// Appends as much of a message as fits from `chunk.offset` on (`chunk.data` is the whole payload);
    /// returns how many bytes, nil when not even one (or the headers) would fit.
    package mutating func append(_ chunk: Chunk, to frame: inout ByteBuffer) -> Int? {
        let isFirst = chunk.offset == 0
        let hasHeaders = isFirst && !chunk.headers.isEmpty
        var overhead = Self.chunkOverhead + topicBytes(chunk.topic) - 1
        if hasHeaders { overhead += Self.bytes(of: chunk.headers) }
        if isFirst, chunk.carrierChange != nil { overhead += 16 }
        let left = Int(chunk.total - chunk.offset)
        let room = bytesMax - frame.writerIndex - overhead
        // A sliver of a large message is not worth its head, unless nothing else is in the frame.
        let isEmpty = frame.writerIndex == FrameHeader.length
        guard room >= min(left, isEmpty ? 1 : 64) else { return nil }
        closeRun(in: &frame)
        let start = frame.writerIndex
        frame.writeInteger(UInt16(0))
        frame.writeInteger(FrameRecord.Kind.chunk.rawValue)
        frame.writeInteger(UInt8((hasHeaders ? 1 : 0) | (isFirst && chunk.carrierChange != nil ? 2 : 0)))
        write(chunk.topic, to: &frame)
        for number in [chunk.message, chunk.sequence, chunk.sentAt, chunk.total, chunk.offset] {
            frame.writeInteger(number)
        }
        if isFirst, let change = chunk.carrierChange {
            frame.writeInteger(change.stream)
            frame.writeInteger(change.last)
        }
        if hasHeaders { frame.writeHeaders(chunk.headers) }
        let length = min(left, room)
        let from = chunk.data.readerIndex + Int(chunk.offset)
        if let slice = chunk.data.getSlice(at: from, length: length) { frame.writeImmutableBuffer(slice) }
        close(start, in: &frame)
        return length
    }

    package mutating func append(_ announcement: Announcement, to frame: inout ByteBuffer) {
        closeRun(in: &frame)
        let start = frame.writerIndex
        frame.writeInteger(UInt16(0))
        frame.writeInteger(FrameRecord.Kind.announce.rawValue)
        frame.writeNode(announcement.node)
        frame.writeInteger(announcement.channelDigest)
        frame.writeInteger(announcement.oldest)
        close(start, in: &frame)
    }

    package mutating func appendHead(next: UInt64, oldest: UInt64, to frame: inout ByteBuffer) {
        closeRun(in: &frame)
        let start = frame.writerIndex
        frame.writeInteger(UInt16(0))
        frame.writeInteger(FrameRecord.Kind.head.rawValue)
        frame.writeInteger(next)
        frame.writeInteger(oldest)
        close(start, in: &frame)
    }

    /// Ends the frame; nothing may be appended afterwards.
    package mutating func finish(_ frame: inout ByteBuffer) { closeRun(in: &frame) }

    /// The largest run payload that fits a frame with nothing else in it: larger messages go in chunks.
    package static func runPayloadMax(topic: Topic, bytesMax: Int) -> Int {
        bytesMax - FrameHeader.length - 2 - 1 - 2 - topic.name.utf8.count - 18 - 2 - 128
    }

    package static func bytes(of headers: Headers) -> Int {
        headers.entries.reduce(1) { $0 + 3 + $1.name.utf8.count + $1.value.utf8.count }
    }

    private func topicBytes(_ topic: Topic) -> Int { topics.contains(topic) ? 1 : 2 + topic.name.utf8.count }

    private mutating func write(_ topic: Topic, to frame: inout ByteBuffer) {
        if let index = topics.firstIndex(of: topic) {
            frame.writeInteger(UInt8(index))
        } else {
            frame.writeInteger(UInt8(topics.count))
            frame.writeShortText(topic.name)
            topics.append(topic)
        }
    }

    private mutating func closeRun(in frame: inout ByteBuffer) {
        guard let run else { return }
        frame.setInteger(run.count, at: run.countAt)
        close(run.start, in: &frame)
        self.run = nil
    }

    private func close(_ start: Int, in frame: inout ByteBuffer) {
        frame.setInteger(UInt16(frame.writerIndex - start - 2), at: start)
    }
}
