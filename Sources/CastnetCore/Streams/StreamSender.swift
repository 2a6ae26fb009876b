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
    private var turns: TopicTurns
    private var nextMessage: UInt64 = 1
    /// Messages of which chunks have left, oldest first.
    private var open: [UInt64] = []
    private var openBytes = 0

    /// Messages that are cut at the same time.
    static let openMax = 256
    /// A topic may go on for this many bytes while others wait.
    private static let turnBytes = 8192
    /// Messages of one run share a time of sending that is wrong by at most this.
    private static let runMicroseconds: UInt64 = 1000

    init(frameSizeMax: Int, openBytesMax: Int, topicRate: Int? = nil, now: Instant) {
        turns = TopicTurns(rate: topicRate, now: now)
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

    /// True when something may leave now as far as the topics' rates go.
    func isReady(_ now: Instant) -> Bool {
        turns.current != nil || turns.restsUntil.map { $0 <= now } ?? false
    }
    /// When a topic that has used its rate may go on.
    var restsUntil: Instant? { turns.restsUntil }

    mutating func submit(_ casts: consuming [OutboundCast], now: Instant) {
        for cast in casts { turns.submit(cast, now: now) }
    }

    /// Fills the frame with what is queued; false: nothing was put in.
    mutating func fill(
        _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer, _ sent: inout Sent, now: Instant
    ) -> Bool {
        turns.wake(now: now)
        var isFilled = false
        while let index = turns.current {
            if turns.isContended, turns.spent >= Self.turnBytes {
                turns.rotate()
                continue
            }
            let length = builder.length(in: buffer)
            guard place(index, &builder, &buffer, &sent) else {
                if turns.current != index { continue }
                break
            }
            isFilled = true
            if turns.pay(builder.length(in: buffer) - length, now: now) { continue }
            if turns.lanes[index].isEmpty { turns.retireCurrent(now: now) }
        }
        return isFilled
    }

    /// Puts the next piece of lane `index` into the frame; false: nothing of it fits, or it was parked.
    private mutating func place(
        _ index: Int, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer, _ sent: inout Sent
    ) -> Bool {
        guard !turns.lanes[index].cut.isUnderWay else {
            return chunk(index, nil, &builder, &buffer, &sent)
        }
        var queue = Deque<OutboundCast>()
        swap(&queue, &turns.lanes[index].queue)
        let isWritten = run(&queue, &builder, &buffer, &sent)
        if !isWritten, !builder.hasMessages, var packed = queue.first, let alone = packed.splitFirst() {
            // It fits no frame with its topic's name, unless in parts.
            if packed.packed > 0 { queue[0] = packed } else { queue.removeFirst() }
            queue.prepend(alone)
        }
        let front = queue.first
        swap(&queue, &turns.lanes[index].queue)
        if isWritten { return true }
        guard let front, front.packed == 0 else { return false }
        // A message that would fit the next frame is cut only where waiting would waste a quarter here.
        if fitsRun(front), builder.remaining(in: buffer) < frameSizeMax / 4 { return false }
        return begin(index, front, &builder, &buffer, &sent)
    }

    /// True when the message needs no frame of its own beginning: no headers and small.
    private func fitsRun(_ cast: OutboundCast) -> Bool {
        cast.packed > 0
            || cast.headers.isEmpty && !cast.asksProcessed && cast.payload.readableBytes <= frameSizeMax / 2
    }

    /// Writes consecutive small messages of one lane.
    private mutating func run(
        _ queue: inout Deque<OutboundCast>, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer,
        _ sent: inout Sent
    ) -> Bool {
        guard let front = queue.first, fitsRun(front),
            var run = builder.beginRun(
                topic: front.topic, firstSequence: front.sequence, sentAt: front.sentAtMicroseconds,
                length: front.firstLength, into: &buffer)
        else { return false }
        var expected = front.sequence
        var bytes = 0
        let turn = turns.isContended ? Self.turnBytes - turns.spent : Int.max
        while bytes < turn, var cast = queue.popFirst() {
            let isNext =
                cast.sequence == expected && fitsRun(cast)
                && cast.sentAtMicroseconds &- front.sentAtMicroseconds <= Self.runMicroseconds
            let left = cast.payloadBytes
            if isNext, cast.packed > 0 {
                let added = builder.add(from: &cast, wanted: turn - bytes, to: &run, into: &buffer)
                expected &+= UInt64(added)
                bytes += left - cast.payloadBytes
                if cast.packed == 0 { continue }
                queue.prepend(cast)
                break
            }
            guard isNext, builder.add(cast.payload, to: &run, into: &buffer) else {
                queue.prepend(cast)
                break
            }
            expected &+= 1
            bytes += left
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
            guard open.isEmpty || openBytes + total <= openBytesMax && open.count < Self.openMax else {
                turns.parkCurrent()
                return false
            }
            open.append(nextMessage)
            openBytes += total
        }
        turns.lanes[index].cut = TopicTurns.Cut(
            number: nextMessage, block: block, payload: cast.payload, total: total, token: cast.token,
            asksProcessed: cast.asksProcessed)
        turns.lanes[index].queue.removeFirst()
        nextMessage += 1
        if let token = cast.token { sent.begun.append(token) }
        return chunk(index, start, &builder, &buffer, &sent)
    }

    private func start(of cast: OutboundCast, block: ByteBuffer, total: Int) -> ChunkStart {
        ChunkStart(
            topic: cast.topic, sequence: cast.sequence, sentAtMicroseconds: cast.sentAtMicroseconds,
            total: UInt64(total), headersLength: UInt32(truncatingIfNeeded: block.readableBytes),
            asksProcessed: cast.asksProcessed)
    }

    /// Writes as much as fits of the message that is being cut, from its `start` or from where it stands.
    private mutating func chunk(
        _ index: Int, _ start: ChunkStart?, _ builder: inout FrameBuilder, _ buffer: inout ByteBuffer,
        _ sent: inout Sent
    ) -> Bool {
        let (offset, total) = (turns.lanes[index].cut.offset, turns.lanes[index].cut.total)
        let isAlone = start == nil && builder.length(in: buffer) == FrameWire.headerLength
        let length = min(builder.chunkRoom(start, in: buffer), total - offset)
        guard length > 0 || total == offset else { return false }
        sent.part = nil
        let number = turns.lanes[index].cut.number
        let place = UInt64(offset)
        var record: Int?
        if start == nil {
            builder.continueChunk(number, offset: place, length: length, into: &buffer)
        } else {
            record = builder.beginChunk(number, offset: place, start: start, into: &buffer)
        }
        let fromPayload = turns.lanes[index].cut.write(length, into: &buffer)
        if let record { builder.endChunk(record, in: &buffer) }
        let isComplete = offset + length == total
        turns.took(messages: isComplete ? 1 : 0, bytes: fromPayload)
        if isComplete {
            complete(index, &sent)
        } else if isAlone, fromPayload == length {
            let start = turns.lanes[index].cut.payloadStart(place)
            sent.part = RetentionRing.Part(number: number, offset: place, length: length, start: start)
        }
        return true
    }

    /// The last chunk of a message has left.
    private mutating func complete(_ index: Int, _ sent: inout Sent) {
        let cut = turns.lanes[index].cut
        turns.lanes[index].cut = TopicTurns.Cut()
        close(cut)
        sent.messages += 1
        if cut.asksProcessed { sent.asksProcessed = true }
        if let token = cut.token { sent.tokens.append(token) }
    }

    /// The payload of the message of which a part has just left; nil: it is complete.
    func payload(of part: RetentionRing.Part) -> ByteBuffer? {
        guard let index = turns.current, turns.lanes[index].cut.number == part.number else { return nil }
        return turns.lanes[index].cut.payload
    }

    /// A message is complete: another large one may begin.
    private mutating func close(_ cut: TopicTurns.Cut) {
        guard let position = open.firstIndex(of: cut.number) else { return }
        open.remove(at: position)
        openBytes -= cut.total
        turns.unpark()
    }
}

extension TopicTurns.Cut {
    /// Writes the next `length` bytes; returns how many of them are the payload's.
    fileprivate mutating func write(_ length: Int, into buffer: inout ByteBuffer) -> Int {
        let headers = min(length, max(0, block.readableBytes - offset))
        if headers > 0 {
            buffer.writeBytes(block.readableBytesSpan.extracting(offset..<offset + headers))
        }
        defer { offset += length }
        guard length > headers else { return 0 }
        let start = offset + headers - block.readableBytes
        buffer.writeBytes(payload.readableBytesSpan.extracting(start..<start + length - headers))
        return length - headers
    }

    /// Where in the payload's buffer a chunk at `offset` begins, which is behind the headers.
    fileprivate func payloadStart(_ offset: UInt64) -> Int {
        payload.readerIndex + Int(offset) - block.readableBytes
    }
}
