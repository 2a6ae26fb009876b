internal import NIOCore

/// One sender's stream as a member follows it: order, holes, duplicates.
///
/// PGM hands frames over in order and leaves out those it gave up on. What it left out is asked of the sender
/// (`RepairRequests` says when) and frames behind it wait; where nobody repairs, it is lost at once.
/// Memory: frames that wait and parts of messages under way, both counted in `Inbox.heldBytes`.
struct StreamReceiver: Sendable {
    let id: UInt64
    private let wasLeft: Bool
    /// The first frame it counts: what came before is not its own.
    private(set) var first: UInt64
    /// The next frame to be delivered.
    private(set) var next: UInt64
    /// Frames lost before `next`.
    private(set) var lost: UInt32 = 0
    private(set) var handling = Handling()
    /// When anything of the stream came, and when data did.
    private(set) var heardAt: Instant
    private(set) var dataAt: Instant
    var feedback = Feedback()
    var hearing: Hearing
    var requests: RepairRequests
    /// Waiting to hear from which frame on the stream is this node's; nil: known.
    private(set) var joining: Joining?
    /// Frames below were sent before this node listened.
    private var replayEnd: UInt64 = 0
    private var messages: MessageAssembly?
    private var reorder: ReorderBuffer

    /// Frames that may wait for the announcement: senders announce themselves at least every 256 frames.
    static let waitingMax = 512
    /// A hole with more frames is no hole but another place in the stream.
    private static let holeMax: UInt64 = 1 << 24

    /// `wasLeft`: this node has followed the stream before, up to `first`. `isRepaired`: what PGM leaves out
    /// can be had from the sender.
    init(id: UInt64, first: UInt64, wasLeft: Bool, isRepaired: Bool, now: Instant) {
        self.id = id
        self.wasLeft = wasLeft
        self.first = first
        next = first
        heardAt = now
        dataAt = now
        hearing = Hearing(now: now)
        reorder = ReorderBuffer(first: first)
        requests = RepairRequests(isRepaired: isRepaired)
    }

    /// Whose stream it is; nil until the sender said so.
    var identity: NodeIdentity? { messages?.identity }
    /// The first frame that nothing is known of.
    var end: UInt64 { reorder.end }
    var waitingCount: Int { reorder.heldCount }
    var missing: [ClosedRange<UInt64>] { reorder.missing }
    /// When its sender is to be asked for something.
    /// A message that its sender wants to hear of is still being handled.
    var isHandling: Bool { !handling.isEmpty }
    var asksNext: Instant? { earliest(requests.nextDeadline, joining?.nextAt) }

    // MARK: Frames

    /// Takes in a frame of this stream, and its records out of `records`; true when it was new.
    mutating func received(
        _ header: FrameHeader, _ records: inout [FrameRecord], bytes: Int, now: Instant,
        _ inbox: inout Inbox
    ) -> Bool {
        heardAt = now
        if messages == nil { identify(records, now: now, &inbox) }
        if header.isHead { return receivedHead(header.sequence, &records, now: now, &inbox) }
        guard header.sequence >= next, reorder.wants(header.sequence) else {
            inbox.counters.add(.streamDuplicates)
            if PlantedBug.acceptsDuplicates.isPlanted, messages != nil {
                take(header.sequence, &records, &inbox)
            }
            return false
        }
        dataAt = now
        // It was missing, and somebody had asked for it.
        let fillsHole = header.sequence < reorder.end
        if inbox.isFull, inbox.repaired != .tcp, header.sequence >= feedback.toldLimit, requests.isRepaired {
            // The sender goes on without this member, which has no room: it is asked for when there is some.
            inbox.counters.add(.streamOverruns)
            extend(to: header.sequence + 1, now: now, &inbox)
            return false
        }
        extend(to: header.sequence, now: now, &inbox)
        if PlantedBug.skipsHoles.isPlanted, header.sequence > next, messages != nil {
            giveUp(next...header.sequence - 1, .unrepaired, &inbox)
            inbox.events.removeAll()
        }
        if PlantedBug.deliversEarly.isPlanted, header.sequence > next, messages != nil {
            take(header.sequence, &records, &inbox)
        }
        if header.sequence == next, messages != nil, joining == nil {
            reorder.filled(header.sequence)
            next += 1
            take(header.sequence, &records, &inbox)
        } else {
            hold(header.sequence, &records, bytes, &inbox)
        }
        if !reorder.isEmpty { drain(&inbox) }
        requests.progressed(reorder.missing, byRepair: fillsHole, now: now)
        return true
    }

    /// Takes in the next frame of the stream where it is the next part of a message and nothing waits: as
    /// ``received(_:_:bytes:now:_:)`` does, without a record. False: it is not, and nothing was done.
    mutating func received(
        _ part: PartFrame, _ data: RawSpan, now: Instant, _ inbox: inout Inbox
    ) -> Bool {
        guard part.header.sequence == next, reorder.isEmpty, reorder.end == next, joining == nil,
            let index = messages?.partial(of: part, length: data.byteCount)
        else { return false }
        heardAt = now
        dataAt = now
        reorder.filled(next)
        next += 1
        let lostBefore = beginTaking(part.header.sequence, &inbox)
        messages?.append(data, to: index, part.header.sequence, &inbox)
        endTaking(lostBefore, &inbox)
        requests.progressed(reorder.missing, byRepair: false, now: now)
        return true
    }

    private mutating func receivedHead(
        _ end: UInt64, _ records: inout [FrameRecord], now: Instant, _ inbox: inout Inbox
    ) -> Bool {
        inbox.counters.add(.streamHeadsReceived)
        if PlantedBug.ignoresHeads.isPlanted { return false }
        let isNew = end > reorder.end
        extend(to: end, now: now, &inbox)
        drain(&inbox)
        // What the head says of messages holds for the stream as far as that frame.
        if end == next { take(end, &records, &inbox) }
        return isNew
    }

    /// Every frame below `sequence` exists: what is new of them is missing.
    private mutating func extend(
        to sequence: UInt64, _ reason: Loss.Reason = .unrepaired, now: Instant, _ inbox: inout Inbox
    ) {
        let first = reorder.end
        guard reorder.extend(to: sequence) else { return }
        inbox.counters.add(.streamGaps)
        guard requests.isRepaired, sequence - first <= Self.holeMax else {
            return giveUp(first...sequence - 1, reason, &inbox)
        }
        requests.noticed(now: now, interval: feedback.interval, using: &inbox.generator)
    }

    /// Nothing was delivered so far: where the stream began while this node listened, its first frames are
    /// owed, although the sender says so only in a later one.
    private mutating func identify(_ records: [FrameRecord], now: Instant, _ inbox: inout Inbox) {
        guard let announcement = records.announcement else { return }
        messages = MessageAssembly(stream: id, identity: announcement.identity)
        guard next > 1, !wasLeft else { return }
        guard inbox.isOwedAll(announcement, now: now) else { return join(now: now, inbox) }
        inbox.counters.add(.streamGaps)
        let missed = next - 1
        first = 1
        next = 1
        reorder.precede(with: 1...missed)
        guard requests.isRepaired, missed < Self.holeMax else {
            return giveUp(1...missed, .unrepaired, &inbox)
        }
        requests.noticed(now: now, interval: feedback.interval, using: &inbox.generator)
    }

    /// The sender is asked for this node's place in its stream; what comes meanwhile waits.
    mutating func join(now: Instant, _ inbox: Inbox) {
        guard requests.isRepaired, messages != nil, inbox.listensSince != nil else { return }
        joining = Joining(now: now)
    }

    /// Nothing that was heard so far counted for anybody: the stream begins anew, with what is kept of it.
    mutating func joinAgain(now: Instant, _ inbox: inout Inbox) {
        inbox.hold(-reorder.clear(to: next))
        _ = messages?.end(&inbox)
        first = reorder.end
        next = first
        requests = RepairRequests(isRepaired: requests.isRepaired)
        join(now: now, inbox)
    }

    /// The sender is to be asked now; nil: not yet, or no longer.
    mutating func asksPlace(now: Instant, _ inbox: inout Inbox) -> UInt32? {
        guard joining != nil, let since = inbox.listensSince else { return nil }
        guard joining?.isOver(now) == false else {
            inbox.counters.add(.streamJoinsUnanswered)
            joining = nil
            drain(&inbox)
            return nil
        }
        return joining?.asks(since: since, now: now)
    }

    /// The sender's answer.
    mutating func placed(_ place: RepairPacket.Place, now: Instant, _ inbox: inout Inbox) {
        guard joining?.answered(place.milliseconds, now: now) == true else { return }
        joining = nil
        let begin = inbox.replays ? place.oldest : place.first
        replayEnd = place.first
        if begin < first {
            let missed = begin...first - 1
            first = begin
            next = begin
            reorder.precede(with: missed)
            inbox.counters.add(.streamGaps)
            requests.noticed(now: now, interval: feedback.interval, using: &inbox.generator)
        }
        drain(&inbox)
        requests.progressed(reorder.missing, byRepair: false, now: now)
    }

    private mutating func hold(
        _ sequence: UInt64, _ records: inout [FrameRecord], _ bytes: Int, _ inbox: inout Inbox
    ) {
        let countMax = messages == nil ? Self.waitingMax : .max
        let bytes = bytes + ChannelPlan.bufferOverhead
        guard reorder.heldCount < countMax, inbox.reorderBytes + bytes <= inbox.reorderMax,
            inbox.heldBytes + bytes <= inbox.heldMax
        else {
            inbox.counters.add(.limitReorderHit)
            return extend(to: sequence + 1, .reorderFull, now: dataAt, &inbox)
        }
        inbox.hold(bytes)
        reorder.filled(sequence)
        reorder.hold(
            ReorderBuffer.Held(sequence: sequence, records: records, bytes: bytes, repaired: inbox.repaired))
        records = []
    }

    /// Delivers what is no longer behind a hole.
    private mutating func drain(_ inbox: inout Inbox) {
        guard messages != nil, joining == nil else { return }
        let path = inbox.repaired
        while var frame = pop() {
            next += 1
            inbox.hold(-frame.bytes)
            inbox.repaired = frame.repaired
            take(frame.sequence, &frame.records, &inbox)
        }
        inbox.repaired = path
    }

    /// The frame whose turn it is. What is gone before it counts as lost when it is passed: a report names
    /// losses together with the position behind them.
    private mutating func pop() -> ReorderBuffer.Held? {
        let before = next
        let frame = reorder.pop(&next)
        lost = UInt32(clamping: UInt64(lost) + (next - before))
        return frame
    }

    private mutating func take(
        _ sequence: UInt64, _ records: inout [FrameRecord], _ inbox: inout Inbox
    ) {
        let lostBefore = beginTaking(sequence, &inbox)
        // Moved out one by one: a copy of a record counts several references.
        if records.count > 1 { records.reverse() }
        while let record = records.popLast() {
            switch consume record {
            case .run(let run): messages?.deliver(run, &inbox)
            case .chunk(let chunk): messages?.take(chunk, sequence, &inbox)
            case .announce(let announcement):
                messages?.prune(before: announcement.firstOpenMessage, &inbox)
            case .head(let head): messages?.prune(before: head.firstOpenMessage, &inbox)
            }
        }
        endTaking(lostBefore, &inbox)
    }

    /// A frame's contents are taken from now on; what was lost before.
    private func beginTaking(_ sequence: UInt64, _ inbox: inout Inbox) -> UInt64 {
        inbox.isReplaying = sequence < replayEnd
        return inbox.counters[.streamLost]
    }

    private mutating func endTaking(_ lostBefore: UInt64, _ inbox: inout Inbox) {
        // A message that came and cannot be had is as lost as a frame.
        lost &+= UInt32(truncatingIfNeeded: inbox.counters[.streamLost] - lostBefore)
        if !inbox.unhandled.isEmpty { handling.began(&inbox.unhandled) }
    }

    /// The message that ended in this frame was handled, or will never be.
    mutating func ended(_ frame: UInt64, isHandled: Bool) { handling.ended(frame, isHandled: isHandled) }

    // MARK: Losses

    /// What is missing of `range` is gone for good.
    mutating func giveUp(_ range: ClosedRange<UInt64>, _ reason: Loss.Reason, _ inbox: inout Inbox) {
        for part in reorder.giveUp(range) {
            inbox.lose(id, identity, part.lowerBound, part.upperBound, reason)
        }
        drain(&inbox)
    }

    /// The stream is over: what is incomplete stays so.
    mutating func finish(_ inbox: inout Inbox) {
        // Nobody is left to say where the stream begins here: what came is all there is.
        joining = nil
        drain(&inbox)
        let first = min(messages?.end(&inbox) ?? next, next)
        for part in reorder.undeclared(from: first) {
            inbox.lose(id, identity, part.lowerBound, part.upperBound, .senderGone)
        }
        inbox.hold(-reorder.clear(to: next))
    }
}

extension StreamReceiver {
    /// What all streams of a channel share: where results go and what may be held.
    struct Inbox: Sendable {
        let channel: String
        let messageMax: Int
        let heldMax: Int
        /// Bytes of frames that may wait behind holes.
        let reorderMax: Int
        /// Since when somebody here listens; nil: nobody does.
        var listensSince: Instant?
        /// True: who joins wants what senders still keep.
        var replays = false
        /// The frame in hand was sent before anybody here listened.
        var isReplaying = false
        var generator: SeededGenerator
        var records: [InboundRecord] = []
        /// The frames in which messages ended whose sender wants to hear that they were handled.
        var unhandled: [UInt64] = []
        var events: [StreamEvent] = []
        var counters = CounterSet()
        /// A subscription has no room.
        var isFull = false
        /// The frame in hand was sent before.
        var isOld = false
        /// How the frame in hand was repaired.
        var repaired = RepairPath.none
        /// Bytes of incomplete messages and waiting frames of all streams.
        var heldBytes = 0
        /// Those of waiting frames alone.
        private(set) var reorderBytes = 0

        init(
            channel: String, messageMax: Int, heldMax: Int, reorderMax: Int, generator: SeededGenerator
        ) {
            self.channel = channel
            self.messageMax = messageMax
            self.heldMax = heldMax
            self.reorderMax = reorderMax
            self.generator = generator
        }

        /// True for a stream that began while this node listened already.
        func isOwedAll(_ announcement: AnnounceRecord, now: Instant) -> Bool {
            // What comes over a link may be as old as an outage.
            guard let listensSince, repaired != .tcp, !isOld else { return false }
            return now - .milliseconds(Int64(announcement.ageMilliseconds)) >= listensSince
        }

        /// A message for those who listen. What comes before anybody does goes to nobody: who begins just
        /// then would have it twice, live and by joining.
        mutating func add(_ record: consuming InboundRecord) {
            guard listensSince != nil else { return }
            if isReplaying { record.isReplayed = true }
            records.append(record)
        }

        mutating func hold(_ bytes: Int) {
            heldBytes += bytes
            reorderBytes += bytes
        }

        mutating func lose(
            _ stream: UInt64, _ identity: NodeIdentity?, _ first: UInt64, _ last: UInt64,
            _ reason: Loss.Reason
        ) {
            let loss = Loss(
                from: identity?.name ?? hexadecimal(stream), channel: channel, stream: stream, first: first,
                last: last, reason: reason)
            counters.add(.streamLost, Int(clamping: loss.count))
            if PlantedBug.forgetsLosses.isPlanted { return }
            events.append(.loss(loss))
        }
    }
}
