internal import NIOCore

/// One sender's stream as a member follows it: order, holes, duplicates and the parts of large messages.
///
/// PGM hands frames over in order and leaves out those it gave up on, so a hole in the numbers is a loss.
/// Memory: the parts of messages under way and the frames of a stream that has not said whose it is, both
/// counted in `Inbox.heldBytes`.
struct StreamReceiver: Sendable {
    /// What all streams of a channel share: where results go and what may be held.
    struct Inbox: Sendable {
        let channel: String
        let messageMax: Int
        let heldMax: Int
        var records: [InboundRecord] = []
        var events: [StreamEvent] = []
        var counters = CounterSet()
        /// How the frame in hand was repaired.
        var repaired = RepairPath.none
        /// Bytes of incomplete messages and unidentified frames of all streams.
        var heldBytes = 0
    }

    /// A message of which chunks are missing.
    private struct Partial: Sendable {
        var number: UInt64
        var start: ChunkStart
        var firstFrame: UInt64
        var bytes = ByteBuffer()
        /// What is accounted for it.
        var reserved = 0
        /// How a part of it was repaired.
        var repaired = RepairPath.none
    }

    let id: UInt64
    /// Whose stream it is; nil until the sender said so.
    private(set) var identity: NodeIdentity?
    /// The next expected frame.
    private(set) var next: UInt64
    /// Frames declared lost.
    private(set) var lost: UInt32 = 0
    /// When anything of the stream came, and when data did.
    private(set) var heardAt: Instant
    private(set) var dataAt: Instant
    var feedback = Feedback()
    private var partials: [Partial] = []
    /// Frames that came before the announcement, in order.
    private var waiting: [(sequence: UInt64, records: [FrameRecord], bytes: Int)] = []

    /// Frames that may wait for the announcement: senders announce themselves at least every 256 frames.
    static let waitingMax = 512
    /// So much is set aside at once for a message that says it has as much; beyond, its `total` is not
    /// trusted, and what is set aside grows with what has come.
    private static let reserveAtOnce = 128 << 10
    private static let reserveFactor = 16

    init(id: UInt64, first: UInt64, now: Instant) {
        self.id = id
        next = first
        heardAt = now
        dataAt = now
    }

    var waitingCount: Int { waiting.count }

    // MARK: Frames

    /// Takes in a frame of this stream, and its records out of `records`; true when it was new.
    mutating func received(
        _ header: FrameHeader, _ records: inout [FrameRecord], bytes: Int, now: Instant,
        _ inbox: inout Inbox
    ) -> Bool {
        heardAt = now
        if header.sequence < next {
            inbox.counters.add(header.isHead ? .streamHeadsReceived : .streamDuplicates)
            return false
        }
        if identity == nil { identify(records, &inbox) }
        if header.sequence > next { lose(next, header.sequence - 1, .unrepaired, &inbox) }
        if header.isHead {
            inbox.counters.add(.streamHeadsReceived)
            next = header.sequence
        } else {
            next = header.sequence + 1
            dataAt = now
        }
        if identity != nil {
            take(header.sequence, &records, &inbox)
        } else if !header.isHead {
            hold(header.sequence, &records, bytes, &inbox)
        }
        return true
    }

    private mutating func identify(_ records: [FrameRecord], _ inbox: inout Inbox) {
        guard let announcement = records.announcement else { return }
        identity = announcement.identity
        let frames = waiting
        waiting = []
        for var frame in frames {
            inbox.heldBytes -= frame.bytes
            take(frame.sequence, &frame.records, &inbox)
        }
    }

    private mutating func hold(
        _ sequence: UInt64, _ records: inout [FrameRecord], _ bytes: Int, _ inbox: inout Inbox
    ) {
        guard waiting.count < Self.waitingMax, inbox.heldBytes + bytes <= inbox.heldMax else {
            inbox.counters.add(.limitMemoryHit)
            return lose(sequence, sequence, .reorderFull, &inbox)
        }
        inbox.heldBytes += bytes
        waiting.append((sequence, records, bytes))
        records = []
    }

    private mutating func take(
        _ sequence: UInt64, _ records: inout [FrameRecord], _ inbox: inout Inbox
    ) {
        // Moved out one by one: a copy of a record counts several references.
        if records.count > 1 { records.reverse() }
        while let record = records.popLast() {
            switch consume record {
            case .run(let run): deliver(run, &inbox)
            case .chunk(let chunk): take(chunk, sequence, &inbox)
            case .announce(let announcement): prune(before: announcement.firstOpenMessage, &inbox)
            case .head(let head): prune(before: head.firstOpenMessage, &inbox)
            }
        }
    }

    /// Frames are gone. Whatever the wider protocol can still do about a hole belongs here.
    private mutating func lose(
        _ first: UInt64, _ last: UInt64, _ reason: Loss.Reason, _ inbox: inout Inbox
    ) {
        let loss = Loss(
            from: identity?.name ?? hexadecimal(id), channel: inbox.channel, stream: id, first: first,
            last: last, reason: reason)
        inbox.counters.add(.streamGaps)
        inbox.counters.add(.streamLost, Int(clamping: loss.count))
        lost = UInt32(clamping: UInt64(lost) + min(loss.count, 1 << 32))
        inbox.events.append(.loss(loss))
    }

    // MARK: Messages

    private func deliver(_ run: RunRecord, _ inbox: inout Inbox) {
        guard let identity else { return }
        var body = run.body
        if run.count == 1 { body.moveReaderIndex(forwardBy: 2) }
        inbox.counters.add(.streamMessagesReceived, run.count)
        inbox.records.append(
            InboundRecord(
                topic: run.topic, from: identity, firstSequence: run.firstSequence,
                sentAtMicroseconds: run.sentAtMicroseconds, count: run.count, body: body,
                isRun: run.count > 1, repaired: inbox.repaired))
    }

    private mutating func take(_ chunk: ChunkRecord, _ frame: UInt64, _ inbox: inout Inbox) {
        if let start = chunk.start {
            begin(chunk, start, frame, &inbox)
        } else if let index = partials.firstIndex(where: { $0.number == chunk.number }) {
            guard chunk.offset == UInt64(partials[index].bytes.readableBytes),
                chunk.offset + UInt64(chunk.data.readableBytes) <= partials[index].start.total
            else { return cut(index, &inbox) }
            append(chunk.data, to: index, frame, &inbox)
        } else {
            // Its beginning was lost, or came before this member did.
            inbox.counters.add(.streamChunksOrphaned)
        }
    }

    private mutating func begin(
        _ chunk: ChunkRecord, _ start: ChunkStart, _ frame: UInt64, _ inbox: inout Inbox
    ) {
        // A topic's messages follow one another: what is still open on it can not go on.
        if let index = partials.firstIndex(where: {
            $0.number == chunk.number || $0.start.topic == start.topic
        }) {
            cut(index, &inbox)
        }
        guard start.total <= UInt64(inbox.messageMax) + UInt64(start.headersLength),
            start.headersLength <= 1 << 16
        else {
            inbox.counters.add(.limitMessageHit)
            return lose(frame, frame, .tooLarge, &inbox)
        }
        if UInt64(chunk.data.readableBytes) == start.total {
            return deliver(start, chunk.data, frame, frame, inbox.repaired, &inbox)
        }
        partials.append(Partial(number: chunk.number, start: start, firstFrame: frame))
        append(chunk.data, to: partials.count - 1, frame, &inbox)
    }

    private mutating func append(
        _ data: ByteBuffer, to index: Int, _ frame: UInt64, _ inbox: inout Inbox
    ) {
        let length = data.readableBytes
        let have = partials[index].bytes.readableBytes
        let total = Int(clamping: partials[index].start.total)
        let before = partials[index].reserved
        var reserve = before
        if have + length > before {
            reserve = min(
                total, max(Self.reserveAtOnce, length * Self.reserveFactor, have * 2, have + length))
        }
        guard inbox.heldBytes + reserve - before <= inbox.heldMax else {
            inbox.counters.add(.limitMemoryHit)
            let firstFrame = partials[index].firstFrame
            cut(index, &inbox)
            return lose(firstFrame, frame, .tooLarge, &inbox)
        }
        if reserve > before {
            partials[index].bytes.reserveCapacity(reserve)
            partials[index].reserved = reserve
            inbox.heldBytes += reserve - before
        }
        partials[index].bytes.writeImmutableBuffer(data)
        if inbox.repaired != .none { partials[index].repaired = inbox.repaired }
        guard have + length == total else { return }
        let partial = partials.remove(at: index)
        inbox.heldBytes -= partial.reserved
        deliver(partial.start, partial.bytes, partial.firstFrame, frame, partial.repaired, &inbox)
    }

    private mutating func deliver(
        _ start: ChunkStart, _ message: ByteBuffer, _ firstFrame: UInt64, _ lastFrame: UInt64,
        _ repaired: RepairPath, _ inbox: inout Inbox
    ) {
        guard let identity else { return }
        var body = message
        var headers = Headers()
        if start.headersLength > 0 {
            do {
                var block = try body.readBytes(Int(start.headersLength))
                headers = try block.readHeaders()
                if block.readableBytes > 0 { throw WireError.headers }
            } catch {
                inbox.counters.add(.pgmRejectedHeaders)
                return lose(firstFrame, lastFrame, .unrepaired, &inbox)
            }
        }
        inbox.counters.add(.streamMessagesReceived)
        inbox.records.append(
            InboundRecord(
                topic: start.topic, from: identity, firstSequence: start.sequence,
                sentAtMicroseconds: start.sentAtMicroseconds, headers: headers, body: body,
                repaired: repaired))
    }

    /// A message can not be completed: a part of it was in a hole.
    private mutating func cut(_ index: Int, _ inbox: inout Inbox) {
        inbox.heldBytes -= partials.remove(at: index).reserved
        inbox.counters.add(.streamMessagesCut)
    }

    /// Messages before `number` were complete when the sender said so: what is missing of them was in a hole.
    private mutating func prune(before number: UInt64, _ inbox: inout Inbox) {
        while let index = partials.firstIndex(where: { $0.number < number }) { cut(index, &inbox) }
    }

    /// The stream is over: what is incomplete stays so.
    mutating func end(_ inbox: inout Inbox) {
        for frame in waiting { inbox.heldBytes -= frame.bytes }
        waiting = []
        if let first = partials.map(\.firstFrame).min() { lose(first, next - 1, .senderGone, &inbox) }
        while !partials.isEmpty { cut(partials.count - 1, &inbox) }
    }
}
