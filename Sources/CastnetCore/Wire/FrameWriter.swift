package import NIOCore

/// Writes one frame: header, then records while they fit.
package struct FrameWriter {
    private var topics: [Topic] = []
    private let bytesMax: Int
    /// Where the open run's length, count and last byte are; nil: the last record is no open run.
    private var run: (start: Int, countAt: Int, count: UInt16, topic: Topic, next: UInt64)?

    package static let headersFlag: UInt8 = 1
    package static let changeFlag: UInt8 = 2
    package static let firstFlag: UInt8 = 4
    package static let headersInBodyFlag: UInt8 = 8

    /// The bytes of every chunk record before its data: length, kind, flags, message, offset.
    private static let chunkOverhead = 2 + 1 + 1 + 8 + 8

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

    /// Appends as much of a message as fits from `offset` on; returns how many bytes, nil when not even one
    /// (or the message's head) would fit.
    package mutating func append(
        message: UInt64, _ head: Chunk.Head, _ payload: ByteBuffer, from offset: Int,
        to frame: inout ByteBuffer
    ) -> Int? {
        let isFirst = offset == 0
        let left = payload.readableBytes - offset
        let room = bytesMax - frame.writerIndex - Self.chunkOverhead - (isFirst ? headBytes(head) : 0)
        // A sliver of a large message is not worth its record, unless nothing else is in the frame.
        let isEmpty = frame.writerIndex == FrameHeader.length
        guard room >= min(left, isEmpty ? 1 : 64) else { return nil }
        closeRun(in: &frame)
        let start = frame.writerIndex
        var flags = isFirst ? Self.firstFlag : 0
        if isFirst, !head.headers.isEmpty { flags |= Self.headersFlag }
        if isFirst, head.carrierChange != nil { flags |= Self.changeFlag }
        if isFirst, head.headersInBody { flags |= Self.headersInBodyFlag }
        frame.writeInteger(UInt16(0))
        frame.writeInteger(FrameRecord.Kind.chunk.rawValue)
        frame.writeInteger(flags)
        frame.writeInteger(message)
        frame.writeInteger(UInt64(offset))
        if isFirst { write(head, to: &frame) }
        let length = min(left, room)
        if let slice = payload.getSlice(at: payload.readerIndex + offset, length: length) {
            frame.writeImmutableBuffer(slice)
        }
        close(start, in: &frame)
        return length
    }

    private mutating func write(_ head: Chunk.Head, to frame: inout ByteBuffer) {
        write(head.topic, to: &frame)
        frame.writeInteger(head.sequence)
        frame.writeInteger(head.sentAt)
        frame.writeInteger(head.total)
        if let change = head.carrierChange {
            frame.writeInteger(change.stream)
            frame.writeInteger(change.last)
        }
        if !head.headers.isEmpty { frame.writeHeaders(head.headers) }
    }

    private func headBytes(_ head: Chunk.Head) -> Int {
        topicBytes(head.topic) + 24 + (head.carrierChange == nil ? 0 : 16)
            + (head.headers.isEmpty ? 0 : Self.bytes(of: head.headers))
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
