internal import NIOCore

/// Messages out of the records of one stream's frames, which come in order: runs as they are, large messages
/// put together from their chunks.
///
/// Memory: the parts of messages under way, counted in `Inbox.heldBytes`.
struct MessageAssembly: Sendable {
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

    let stream: UInt64
    let identity: NodeIdentity
    private var partials: [Partial] = []

    /// So much is set aside at once for a message that says it has as much; beyond, its `total` is not
    /// trusted, and what is set aside grows with what has come.
    private static let reserveAtOnce = 128 << 10
    private static let reserveFactor = 16
    /// Messages under way at the same time, four times what a sender begins, and what each is charged besides
    /// its bytes.
    private static let partialsMax = 4 * StreamSender.openMax
    private static let overhead = 256

    init(stream: UInt64, identity: NodeIdentity) {
        self.stream = stream
        self.identity = identity
    }

    func deliver(_ run: RunRecord, _ inbox: inout StreamReceiver.Inbox) {
        var body = run.body
        if run.count == 1 { body.moveReaderIndex(forwardBy: 2) }
        inbox.counters.add(.streamMessagesReceived, run.count)
        inbox.add(
            InboundRecord(
                topic: run.topic, from: identity, firstSequence: run.firstSequence,
                sentAtMicroseconds: run.sentAtMicroseconds, count: run.count, body: body,
                isRun: run.count > 1, repaired: inbox.repaired))
    }

    mutating func take(_ chunk: ChunkRecord, _ frame: UInt64, _ inbox: inout StreamReceiver.Inbox) {
        if let start = chunk.start {
            begin(chunk, start, frame, &inbox)
        } else if let index = partials.firstIndex(where: { $0.number == chunk.number }) {
            guard continues(index, chunk.offset, chunk.data.readableBytes) else {
                return cut(index, &inbox)
            }
            append(chunk.data.readableBytesSpan, to: index, frame, &inbox)
        } else {
            // Its beginning was lost, or came before this member did.
            inbox.counters.add(.streamChunksOrphaned)
        }
    }

    /// The message under way that a part goes on with; nil: the part is not the next of any.
    func partial(of part: PartFrame, length: Int) -> Int? {
        partials.firstIndex { $0.number == part.number }.flatMap {
            continues($0, part.offset, length) ? $0 : nil
        }
    }

    private func continues(_ index: Int, _ offset: UInt64, _ length: Int) -> Bool {
        offset == UInt64(partials[index].bytes.readableBytes)
            && offset + UInt64(length) <= partials[index].start.total
    }

    private mutating func begin(
        _ chunk: ChunkRecord, _ start: ChunkStart, _ frame: UInt64, _ inbox: inout StreamReceiver.Inbox
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
            return inbox.lose(stream, identity, frame, frame, .tooLarge)
        }
        if UInt64(chunk.data.readableBytes) == start.total {
            return deliver(start, chunk.data, frame, frame, inbox.repaired, &inbox)
        }
        guard partials.count < Self.partialsMax, inbox.heldBytes + Self.overhead <= inbox.heldMax else {
            inbox.counters.add(.limitMemoryHit)
            return inbox.lose(stream, identity, frame, frame, .tooLarge)
        }
        inbox.heldBytes += Self.overhead
        partials.append(Partial(number: chunk.number, start: start, firstFrame: frame))
        append(chunk.data.readableBytesSpan, to: partials.count - 1, frame, &inbox)
    }

    /// Takes in the next part of message `index`.
    mutating func append(
        _ data: RawSpan, to index: Int, _ frame: UInt64, _ inbox: inout StreamReceiver.Inbox
    ) {
        let length = data.byteCount
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
            return inbox.lose(stream, identity, firstFrame, frame, .tooLarge)
        }
        if reserve > before {
            partials[index].bytes.reserveCapacity(reserve)
            partials[index].reserved = reserve
            inbox.heldBytes += reserve - before
        }
        partials[index].bytes.writeBytes(data)
        if inbox.repaired != .none { partials[index].repaired = inbox.repaired }
        guard have + length == total else { return }
        let partial = partials.remove(at: index)
        inbox.heldBytes -= partial.reserved + Self.overhead
        deliver(partial.start, partial.bytes, partial.firstFrame, frame, partial.repaired, &inbox)
    }

    private mutating func deliver(
        _ start: ChunkStart, _ message: ByteBuffer, _ firstFrame: UInt64, _ lastFrame: UInt64,
        _ repaired: RepairPath, _ inbox: inout StreamReceiver.Inbox
    ) {
        var body = message
        if PlantedBug.cutsMessages.isPlanted, body.readableBytes > 0 {
            body.moveWriterIndex(to: body.writerIndex - 1)
        }
        var headers = Headers()
        if start.headersLength > 0 {
            do {
                var block = try body.readBytes(Int(start.headersLength))
                headers = try block.readHeaders()
                if block.readableBytes > 0 { throw WireError.headers }
            } catch {
                inbox.counters.add(.pgmRejectedHeaders)
                return inbox.lose(stream, identity, firstFrame, lastFrame, .unrepaired)
            }
        }
        inbox.counters.add(.streamMessagesReceived)
        if start.asksProcessed, inbox.listensSince != nil { inbox.unhandled.append(lastFrame) }
        inbox.add(
            InboundRecord(
                topic: start.topic, from: identity, firstSequence: start.sequence,
                sentAtMicroseconds: start.sentAtMicroseconds, headers: headers, body: body,
                repaired: repaired,
                mark: start.asksProcessed ? FrameMark(stream: stream, frame: lastFrame) : nil))
    }

    /// A message can not be completed: a part of it was in a hole.
    private mutating func cut(_ index: Int, _ inbox: inout StreamReceiver.Inbox) {
        inbox.heldBytes -= partials.remove(at: index).reserved + Self.overhead
        inbox.counters.add(.streamMessagesCut)
    }

    /// Messages before `number` were complete when the sender said so: what is missing of them was in a hole.
    mutating func prune(before number: UInt64, _ inbox: inout StreamReceiver.Inbox) {
        while let index = partials.firstIndex(where: { $0.number < number }) { cut(index, &inbox) }
    }

    /// Drops what is incomplete; the first frame of it.
    mutating func end(_ inbox: inout StreamReceiver.Inbox) -> UInt64? {
        defer { while !partials.isEmpty { cut(partials.count - 1, &inbox) } }
        return partials.map(\.firstFrame).min()
    }
}
