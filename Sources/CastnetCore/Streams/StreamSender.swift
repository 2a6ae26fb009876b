internal import DequeModule
internal import NIOCore

/// Cuts messages into frames: packs small ones into runs and large ones into chunks, on demand.
///
/// It decides what is in a frame, not when a frame may leave. Memory: what was submitted and not yet cut; a
/// chunk is copied out of the message's own buffer when its frame is built.
struct StreamSender: Sendable {
    /// What became of a frame's messages.
    struct Sent: Sendable {
        /// Messages whose last byte is in the frame.
        var messages = 0
        /// Their tokens, if they had one.
        var tokens: [UInt64] = []
        /// Tokens of messages whose first byte is in it.
        var begun: [UInt64] = []
        /// A message ended in it of which members shall tell that it was handled.
        var asksProcessed = false
        /// The frame is nothing but this part of the message that is being cut.
        var part: RetentionRing.Part?
    }

    var frameSizeMax: Int
    /// Bytes of the messages that may be cut at the same time, so that members can bound their memory.
    private let openBytesMax: Int
    private var turns = TopicTurns()
    private var nextMessage: UInt64 = 1
    /// Messages of which chunks have left, oldest first.
    private var open: [UInt64] = []
    private var openBytes = 0

    /// A topic may go on for this many bytes while others wait.
    private static let turnBytes = 8192
    /// Messages of one run share a time of sending that is wrong by at most this.
    private static let runMicroseconds: UInt64 = 1000

    init(frameSizeMax: Int, openBytesMax: Int) {
        self.frameSizeMax = frameSizeMax
        self.openBytesMax = openBytesMax
    }

    var hasData: Bool { !turns.isEmpty }
    var queuedBytes: Int { turns.queuedBytes }
    /// Every chunked message with a smaller number is complete.
    var firstOpenMessage: UInt64 { open.first ?? nextMessage }

    /// True while everything queued would leave a frame with room for more small messages.
    var hasRoomInFrame: Bool {
        open.isEmpty
            && turns.queuedBytes + 3 * turns.queuedCount < frameSizeMax - FrameWire.headerLength - 64
    }

    mutating func submit(_ casts: consuming [OutboundCast]) {
        for cast in casts { turns.submit(cast) }
    }

    /// Fills the frame with what is queued; false: nothing was put in.
    mutating func fill(_ builder: inout FrameBuilder, _ buffer: inout ByteBuffer, _ sent: inout Sent) -> Bool
    {
        var isFilled = false
        while let index = turns.current {
            if turns.isContended, turns.spent >= Self.turnBytes {
                turns.rotate()
                continue
            }
            guard place(index, &builder, &buffer, &sent) else {
                if turns.current != index { continue }
                break
            }
            isFilled = true
            if turns.lanes[index].queue.isEmpty { turns.retireCurrent() }
        }
        return isFilled
    }

    /// Puts the next piece of lane `index` into the frame; false: nothing of it fits, or it was parked.
    private mutating func place(
        _ index: Int, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer, _ sent: inout Sent
    ) -> Bool {
        guard turns.lanes[index].cut == nil else { return chunk(index, &builder, &buffer, &sent) }
        var queue = Deque<OutboundCast>()
        swap(&queue, &turns.lanes[index].queue)
        let isWritten = run(&queue, &builder, &buffer, &sent)
        let front = queue.first
        swap(&queue, &turns.lanes[index].queue)
        if isWritten { return true }
        guard let front else { return false }
        // A message that would fit the next frame is cut only where waiting would waste a quarter here.
        if fitsRun(front), builder.remaining(in: buffer) < frameSizeMax / 4 { return false }
        return begin(index, front, &builder, &buffer, &sent)
    }

    /// True when the message needs no frame of its own beginning: no headers and small.
    private func fitsRun(_ cast: OutboundCast) -> Bool {
        cast.headers.isEmpty && !cast.asksProcessed && cast.payload.readableBytes <= frameSizeMax / 2
    }

    /// Writes consecutive small messages of one lane.
    private mutating func run(
        _ queue: inout Deque<OutboundCast>, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer,
        _ sent: inout Sent
    ) -> Bool {
        guard let front = queue.first, fitsRun(front),
            var run = builder.beginRun(
                topic: front.topic, firstSequence: front.sequence, sentAt: front.sentAtMicroseconds,
                length: front.payload.readableBytes, into: &buffer)
        else { return false }
        var expected = front.sequence
        var bytes = 0
        let turn = turns.isContended ? Self.turnBytes - turns.spent : Int.max
        while bytes < turn, let cast = queue.popFirst() {
            guard cast.sequence == expected, fitsRun(cast),
                cast.sentAtMicroseconds &- front.sentAtMicroseconds <= Self.runMicroseconds,
                builder.add(cast.payload, to: &run, into: &buffer)
            else {
                queue.prepend(cast)
                break
            }
            expected &+= 1
            bytes += cast.payload.readableBytes
            if let token = cast.token {
                sent.begun.append(token)
                sent.tokens.append(token)
            }
        }
        builder.end(run, in: &buffer)
        sent.part = nil
        sent.messages += Int(run.count)
        turns.took(messages: Int(run.count), bytes: bytes)
        return true
    }

    /// Starts to cut the message in front of the lane.
    private mutating func begin(
        _ index: Int, _ cast: OutboundCast, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer,
        _ sent: inout Sent
    ) -> Bool {
        var block = ByteBuffer()
        if !cast.headers.isEmpty { block.writeHeaders(cast.headers) }
        let total = block.readableBytes + cast.payload.readableBytes
        let start = start(of: cast, block: block, total: total)
        let room = builder.chunkRoom(start, in: buffer)
        // A sliver is not worth its record, unless the frame is the message's own.
        guard room >= min(total, builder.hasMessages ? frameSizeMax / 8 : 1), room >= 0 else {
            return false
        }
        if total > room {
            guard open.isEmpty || openBytes + total <= openBytesMax else {
                turns.parkCurrent()
                return false
            }
            open.append(nextMessage)
            openBytes += total
        }
        turns.lanes[index].cut = TopicTurns.Cut(number: nextMessage, block: block, offset: 0, total: total)
        nextMessage += 1
        if let token = cast.token { sent.begun.append(token) }
        return chunk(index, &builder, &buffer, &sent)
    }

    private func start(of cast: OutboundCast, block: ByteBuffer, total: Int) -> ChunkStart {
        ChunkStart(
            topic: cast.topic, sequence: cast.sequence, sentAtMicroseconds: cast.sentAtMicroseconds,
            total: UInt64(total), headersLength: UInt32(truncatingIfNeeded: block.readableBytes),
            asksProcessed: cast.asksProcessed)
    }

    /// Writes as much as fits of the message that is being cut.
    private mutating func chunk(
        _ index: Int, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer, _ sent: inout Sent
    ) -> Bool {
        guard var cut = turns.lanes[index].cut, let cast = turns.lanes[index].queue.first else {
            return false
        }
        let start = cut.offset == 0 ? start(of: cast, block: cut.block, total: cut.total) : nil
        let left = cut.total - cut.offset
        let isAlone = start == nil && builder.length(in: buffer) == FrameWire.headerLength
        let length = min(builder.chunkRoom(start, in: buffer), left)
        guard length > 0 || left == 0 else { return false }
        sent.part = nil
        let offset = UInt64(cut.offset)
        var record: Int?
        if start == nil {
            builder.continueChunk(cut.number, offset: offset, length: length, into: &buffer)
        } else {
            record = builder.beginChunk(cut.number, offset: offset, start: start, into: &buffer)
        }
        let headers = min(length, max(0, cut.block.readableBytes - cut.offset))
        if headers > 0, let part = cut.block.getSlice(at: cut.block.readerIndex + cut.offset, length: headers)
        {
            buffer.writeImmutableBuffer(part)
        }
        let from = cast.payload.readerIndex + cut.offset + headers - cut.block.readableBytes
        if let part = cast.payload.getSlice(at: from, length: length - headers) {
            buffer.writeImmutableBuffer(part)
        }
        if let record { builder.endChunk(record, in: &buffer) }
        cut.offset += length
        guard cut.offset == cut.total else {
            if isAlone, headers == 0 {
                sent.part = RetentionRing.Part(
                    number: cut.number, offset: offset, length: length, start: from)
            }
            turns.lanes[index].cut = cut
            turns.took(messages: 0, bytes: length - headers)
            return true
        }
        turns.lanes[index].cut = nil
        turns.lanes[index].queue.removeFirst()
        turns.took(messages: 1, bytes: length - headers)
        close(cut)
        sent.messages += 1
        if cast.asksProcessed { sent.asksProcessed = true }
        if let token = cast.token { sent.tokens.append(token) }
        return true
    }

    /// The payload of the message of which a part has just left; nil: it is complete.
    func payload(of part: RetentionRing.Part) -> ByteBuffer? {
        guard let index = turns.current, turns.lanes[index].cut?.number == part.number else { return nil }
        return turns.lanes[index].queue.first?.payload
    }

    /// A message is complete: another large one may begin.
    private mutating func close(_ cut: TopicTurns.Cut) {
        guard let position = open.firstIndex(of: cut.number) else { return }
        open.remove(at: position)
        openBytes -= cut.total
        turns.unpark()
    }
}
