internal import NIOCore

/// Everybody else's streams on a channel, and the reports about them.
///
/// The frames that fit the socket's buffer are shared by the streams that are active; each sender is told how
/// far it may go. Memory: one entry per stream, at most `streamsMax`, and what `StreamReceiver` holds.
struct InboundStreams: Sendable {
    /// Where a stream stood when it was left, and whose it was.
    private struct Left: Sendable {
        let end: UInt64
        let identity: NodeIdentity?
        let heardAt: Instant
    }

    /// How holes are closed.
    struct Repair: Sendable {
        /// False: what PGM gave up on is lost.
        var isOn: Bool
        /// How long a hole may stay without any progress.
        var patience: Duration
    }

    var inbox: StreamReceiver.Inbox
    private let repair: Repair
    private let configurationDigest: UInt64
    /// Frames that fit the socket's buffer with room to spare.
    let capacity: UInt64
    private let frameSizeMax: Int
    private let backlogMax: Int
    private var streams: [StreamReceiver] = []
    private var indices: [UInt64: Int] = [:]
    /// Where streams stood that fell silent: what was lost meanwhile is noticed when they go on.
    private var silent: [UInt64: Left] = [:]
    private var last = 0
    private var unidentified = 0
    private var backlogBytes = 0
    /// What one stream gets at best, and what it got at the last look.
    private var share: UInt64
    private var activeCount = 1
    /// Not later than the first report that is due.
    private(set) var reportAt: Instant?
    private var pinchedCount = 0
    private var reviewAt: Instant?
    private var sweepAt: Instant
    /// Not later than the first request that is due.
    private var askAt: Instant?
    private var differing: Set<NodeIdentity> = []

    private static let streamsMax = 4096
    private static let unidentifiedMax = 256
    private static let silence = Duration.seconds(30)
    private static let unidentifiedSilence = Duration.seconds(3)
    private static let sweepInterval = Duration.seconds(1)
    /// A stream without data for so long leaves its share to the others; its sender stops trusting its limit
    /// after half of it (`SendWindow.trustTime`).
    private static let activeTime = Duration.milliseconds(200)
    /// Frames in one request.
    private static let askedFramesMax = 4096
    private static let reviewInterval = Duration.milliseconds(5)

    init(
        inbox: StreamReceiver.Inbox, capacity: UInt64, frameSizeMax: Int, backlogMax: Int,
        configurationDigest: UInt64, repair: Repair, now: Instant
    ) {
        self.inbox = inbox
        self.capacity = capacity
        self.frameSizeMax = frameSizeMax
        self.backlogMax = backlogMax
        self.configurationDigest = configurationDigest
        self.repair = repair
        share = capacity
        sweepAt = now + Self.sweepInterval
    }

    // MARK: Frames

    /// Takes the records out of `records`; true when the frame was new.
    @discardableResult
    mutating func received(
        _ header: FrameHeader, _ records: inout [FrameRecord], bytes: Int, now: Instant
    ) -> Bool {
        inbox.isOld = header.isAgain
        // What others missed is no place to begin.
        if header.isAgain, indices[header.streamID] == nil { return false }
        guard let index = index(of: header, records, now: now) else {
            inbox.counters.add(.limitStreamsHit)
            return false
        }
        let wasKnown = streams[index].identity != nil
        heard(header, index, now: now)
        let announcement = wasKnown ? nil : records.announcement
        if inbox.reorderBytes > 0 || inbox.isFull { noteRoom() }
        let isNew = streams[index].received(header, &records, bytes: bytes, now: now, &inbox)
        if header.isHead {
            streams[index].feedback.hurry(now: now, using: &inbox.generator)
        } else if isNew {
            dataArrived(index, now: now)
        }
        noteDue(index)
        if let announcement { announced(announcement, index) }
        return isNew
    }

    /// Takes a frame that is the next of the stream in hand, and the next part of a message of it, out of
    /// `data`. False: it is another, or something is in its way; nothing was done.
    mutating func received(_ part: PartFrame, _ data: RawSpan, now: Instant) -> Bool {
        guard last < streams.count, streams[last].id == part.header.streamID, !inbox.isFull,
            inbox.reorderBytes == 0, streams[last].received(part, data, now: now, &inbox)
        else { return false }
        inbox.isOld = false
        heard(part.header, last, now: now)
        dataArrived(last, now: now)
        noteDue(last)
        return true
    }

    private mutating func heard(_ header: FrameHeader, _ index: Int, now: Instant) {
        streams[index].feedback.heard(header)
        if inbox.repaired != .tcp, streams[index].hearing.heardGroup(now: now) { tellPath(index) }
    }

    private mutating func dataArrived(_ index: Int, now: Instant) {
        streams[index].feedback.dataArrived(now: now, using: &inbox.generator)
        let outstanding = streams[index].feedback.outstanding(next: streams[index].end)
        if outstanding * 2 < streams[index].feedback.toldWindow, backlogBytes < backlogMax {
            streams[index].feedback.hurry(now: now, using: &inbox.generator)
        }
    }

    /// A head that the stream's sender sent over a link: it hears nothing of this member.
    mutating func headReceived(
        _ header: FrameHeader, _ records: inout [FrameRecord], bytes: Int, now: Instant
    ) {
        inbox.repaired = .tcp
        received(header, &records, bytes: bytes, now: now)
        guard let index = indices[header.streamID], streams[index].hearing.toldByLink(now: now) else {
            return
        }
        tellPath(index)
        // What the group was to get once more does not come here.
        streams[index].requests.turned(now: now)
        feedbackNow(index, now: now)
    }

    /// The sender hears at once what has changed here, before it is asked for anything.
    private mutating func feedbackNow(_ index: Int, now: Instant) {
        streams[index].feedback.hurry(now: now, using: &inbox.generator)
        noteDue(index)
    }

    private mutating func tellPath(_ index: Int) {
        guard let identity = streams[index].identity else { return }
        let reason = streams[index].hearing.isDeaf ? PathChange.Reason.notHeard : .heard
        inbox.events.append(.ownPath(from: identity, reason))
    }

    private mutating func index(
        of header: FrameHeader, _ records: [FrameRecord], now: Instant
    ) -> Int? {
        if last < streams.count, streams[last].id == header.streamID { return last }
        if let known = indices[header.streamID] {
            last = known
            return known
        }
        guard streams.count < Self.streamsMax, unidentified < Self.unidentifiedMax else { return nil }
        streams.append(stream(header, records, now: now))
        unidentified += 1
        last = streams.count - 1
        indices[header.streamID] = last
        return last
    }

    /// Where a stream begins for this node: where it was left; with its first frame if that was sent while
    /// this node listened already; otherwise with the frame that came.
    private mutating func stream(
        _ header: FrameHeader, _ records: [FrameRecord], now: Instant
    ) -> StreamReceiver {
        let left = silent.removeValue(forKey: header.streamID)?.end
        let isOwedAll = records.announcement.map { inbox.isOwedAll($0, now: now) } ?? false
        return StreamReceiver(
            id: header.streamID, first: left ?? (isOwedAll ? 1 : header.sequence), wasLeft: left != nil,
            isRepaired: repair.isOn, now: now)
    }

    private mutating func announced(_ announcement: AnnounceRecord, _ index: Int) {
        let stream = streams[index]
        guard let identity = stream.identity else { return }
        unidentified -= 1
        inbox.events.append(.streamStarted(stream.id, identity))
        if announcement.digest != configurationDigest, differing.count < 1024,
            differing.insert(identity).inserted
        {
            inbox.events.append(.digestDiffers(identity))
        }
        // A new incarnation ends what an older one of the same name has sent.
        func isOlder(_ other: NodeIdentity?) -> Bool {
            other?.name == identity.name && (other?.incarnation).map { $0 < identity.incarnation } == true
        }
        while let old = streams.firstIndex(where: { isOlder($0.identity) }) { remove(old) }
        for (id, left) in silent where isOlder(left.identity) { silent[id] = nil }
    }

    private mutating func remove(_ index: Int) {
        streams[index].finish(&inbox)
        let stream = streams[index]
        if stream.identity == nil {
            unidentified -= 1
        } else {
            inbox.events.append(.streamEnded(stream.id, stream.identity))
        }
        indices[stream.id] = nil
        streams.swapAt(index, streams.count - 1)
        streams.removeLast()
        if index < streams.count { indices[streams[index].id] = index }
        last = 0
    }

    // MARK: Budgets

    mutating func backlogChanged(bytes: Int, now: Instant) {
        if bytes >= backlogMax, backlogBytes < backlogMax { inbox.counters.add(.limitSubscriptionBacklogHit) }
        let isDraining = bytes < backlogBytes
        backlogBytes = bytes
        noteRoom()
        if isDraining, pinchedCount > 0 { review(now) }
    }

    /// What waits behind holes comes to the subscriptions, too, as soon as those close.
    private mutating func noteRoom() { inbox.isFull = backlogBytes + inbox.reorderBytes >= backlogMax }

    /// Counts the active streams and what they were promised.
    private mutating func look(now: Instant) -> UInt64 {
        var active = 0
        var promised: UInt64 = 0
        pinchedCount = 0
        for index in streams.indices {
            if streams[index].feedback.isPinched { pinchedCount += 1 }
            guard now < streams[index].dataAt + Self.activeTime else { continue }
            active += 1
            promised += streams[index].feedback.outstanding(next: streams[index].end)
        }
        activeCount = max(1, active)
        share = max(2, capacity / UInt64(activeCount))
        return promised
    }

    /// How many frames stream `index` may have under way, with `promised` to all active streams.
    private func window(_ index: Int, promised: UInt64, now: Instant) -> UInt64 {
        let stream = streams[index]
        let isActive = now < stream.dataAt + Self.activeTime
        let own = isActive ? stream.feedback.outstanding(next: stream.end) : 0
        let others = promised - min(promised, own)
        let fair = isActive ? share : capacity / UInt64(activeCount + 1)
        var window = max(2, min(fair, capacity - min(capacity, others)))
        // What the subscriptions can take is shared, too: a run that is delivered keeps its frame's memory.
        let room = max(0, backlogMax - backlogBytes - inbox.reorderBytes) / frameSizeMax / activeCount
        window = min(window, UInt64(max(room, backlogBytes == 0 ? 2 : 0)))
        // So is what may wait behind holes.
        window = min(window, UInt64(max(0, inbox.reorderMax - inbox.reorderBytes) / frameSizeMax))
        guard stream.identity == nil else { return window }
        return min(window, UInt64(max(0, StreamReceiver.waitingMax - stream.waitingCount)))
    }

    /// Looks whether streams that were told little can be told more.
    private mutating func review(_ now: Instant) {
        let promised = look(now: now)
        reviewAt = pinchedCount > 0 ? now + Self.reviewInterval : nil
        guard pinchedCount > 0 else { return }
        for index in streams.indices where streams[index].feedback.isPinched {
            let feedback = streams[index].feedback
            let limit = feedback.limit(
                next: streams[index].end, window: window(index, promised: promised, now: now))
            let isOpen = limit - streams[index].end >= share / 2
            let isOverdue = now >= (feedback.reportedAt ?? now) + Feedback.reminder
            guard isOpen || isOverdue else { continue }
            streams[index].feedback.hurry(now: now, using: &inbox.generator)
            reportAt = earliest(reportAt, streams[index].feedback.dueAt)
        }
    }

    // MARK: Reports

    /// The next report that is due, and where to; nil: none is.
    mutating func nextReport(
        from member: NodeIdentity, epoch: UInt64, isLeaving: Bool, now: Instant
    ) -> (Report, DatagramAddress)? {
        guard let reportAt, reportAt <= now else { return nil }
        var report = Report(member: member, isLeaving: isLeaving, subscriptionEpoch: epoch)
        var length = report.length
        var address: DatagramAddress?
        var promised = look(now: now)
        self.reportAt = nil
        for index in streams.indices {
            guard let dueAt = streams[index].feedback.dueAt else { continue }
            guard let reportTo = streams[index].feedback.reportTo else {
                streams[index].feedback.dueAt = nil
                continue
            }
            let isTaken = address == nil ? dueAt <= now : reportTo == address
            guard isTaken, length + Report.StreamPosition.lengthMax <= Report.sizeMax else {
                self.reportAt = earliest(self.reportAt, dueAt)
                continue
            }
            address = reportTo
            let end = streams[index].end
            let next = PlantedBug.reportsAhead.isPlanted ? end : streams[index].next
            let before = streams[index].feedback.outstanding(next: end)
            let limit = streams[index].feedback.limit(
                next: end, window: window(index, promised: promised, now: now))
            let (processed, bits) = streams[index].handling.report(next: next)
            var position = Report.StreamPosition(
                streamID: streams[index].id, first: streams[index].first, received: next, limit: limit,
                processed: processed, gaps: streams[index].lost,
                refused: streams[index].handling.refused, processedBits: bits)
            position.isDeaf = streams[index].hearing.isDeaf
            report.streams.append(position)
            length += position.length
            if now < streams[index].dataAt + Self.activeTime { promised = promised - before + (limit - end) }
            streams[index].feedback.reported(next: end, limit: limit, best: share, now: now)
            if streams[index].feedback.isPinched {
                pinchedCount += 1
                reviewAt = reviewAt ?? now + Self.reviewInterval
            }
        }
        guard let address else { return nil }
        inbox.counters.add(.streamReportsSent)
        return (report, address)
    }

    /// Every stream's sender hears about this member now.
    mutating func reportAll(now: Instant) {
        for index in streams.indices { streams[index].feedback.dueAt = now }
        if !streams.isEmpty { reportAt = now }
    }

    /// The message that ended in a frame was handled here, or will never be.
    mutating func ended(_ mark: FrameMark, isHandled: Bool, now: Instant) {
        guard let index = indices[mark.stream] else { return }
        streams[index].ended(mark.frame, isHandled: isHandled)
        streams[index].feedback.hurry(now: now, using: &inbox.generator)
        noteDue(index)
    }

    // MARK: Time

    mutating func timerFired(now: Instant) {
        if let reviewAt, reviewAt <= now { review(now) }
        if let askAt, askAt <= now { askDue(now) }
        guard now >= sweepAt else { return }
        sweepAt = now + Self.sweepInterval
        giveUpHopeless(now: now)
        while let index = streams.firstIndex(where: {
            !$0.isHandling
                && now >= $0.heardAt + ($0.identity == nil ? Self.unidentifiedSilence : Self.silence)
        }) {
            leave(index)
        }
    }

    /// A stream that fell silent is followed no longer; its place is remembered.
    private mutating func leave(_ index: Int) {
        let stream = streams[index]
        if silent.count >= Self.streamsMax,
            let oldest = silent.min(by: { $0.value.heardAt < $1.value.heardAt })
        {
            silent[oldest.key] = nil
            inbox.counters.add(.limitStreamsHit)
        }
        silent[stream.id] = Left(end: stream.end, identity: stream.identity, heardAt: stream.heardAt)
        remove(index)
    }

    var nextDeadline: Instant? {
        earliest(earliest(reportAt, reviewAt), earliest(askAt, streams.isEmpty ? nil : sweepAt))
    }

    // MARK: Repairs

    private mutating func giveUpHopeless(now: Instant) {
        for index in streams.indices
        where streams[index].requests.isHopeless(patience: repair.patience, now: now) {
            streams[index].giveUp(streams[index].next...streams[index].end, .unrepaired, &inbox)
            streams[index].requests.progressed(streams[index].missing, byRepair: false, now: now)
        }
    }

    /// Asks senders for what is missing, as far as what comes can be taken.
    private mutating func askDue(_ now: Instant) {
        askAt = nil
        askPlaces(now)
        let framesMax = min(Self.askedFramesMax, max(0, backlogMax - backlogBytes) / frameSizeMax)
        for index in streams.indices where streams[index].asksNext != nil {
            if let identity = streams[index].identity, framesMax > 0 {
                let ranges = streams[index].requests.due(
                    streams[index].missing, framesMax: framesMax, now: now)
                if !ranges.isEmpty {
                    inbox.counters.add(.streamRepairsAsked)
                    inbox.events.append(.repairWanted(stream: streams[index].id, from: identity, ranges))
                }
            }
            askAt = earliest(
                askAt, streams[index].asksNext.map { max($0, now + Self.reviewInterval) })
        }
    }

    /// A request came to nothing: ask again, after `wait` at the earliest.
    mutating func repairFailed(_ stream: UInt64, wait: Duration, now: Instant) {
        guard let index = indices[stream] else { return }
        streams[index].requests.failed(now: now, wait: inbox.generator.jitter(wait, in: 1...1.5))
        askAt = earliest(askAt, streams[index].asksNext)
    }

    /// The sender does not give these frames any more.
    mutating func repairGone(
        _ stream: UInt64, _ range: ClosedRange<UInt64>, _ reason: Loss.Reason, from: NodeIdentity,
        now: Instant
    ) {
        guard let index = indices[stream], streams[index].identity == from else { return }
        streams[index].giveUp(range, reason, &inbox)
        streams[index].feedback.hurry(now: now, using: &inbox.generator)
        streams[index].requests.progressed(streams[index].missing, byRepair: true, now: now)
        noteDue(index)
    }

    var isRepairing: Bool { streams.contains { !$0.missing.isEmpty || $0.joining != nil } }

    // MARK: Joining

    /// Somebody here listens from now on: what streams brought so far was for nobody.
    mutating func listens(replays: Bool, now: Instant) {
        guard inbox.listensSince == nil else { return }
        inbox.listensSince = now
        inbox.replays = replays && repair.isOn
        if inbox.replays { silent.removeAll() }
        for index in streams.indices {
            streams[index].joinAgain(now: now, &inbox)
            noteDue(index)
        }
    }

    private mutating func askPlaces(_ now: Instant) {
        for index in streams.indices where streams[index].joining != nil {
            guard let identity = streams[index].identity,
                let milliseconds = streams[index].asksPlace(now: now, &inbox)
            else { continue }
            inbox.events.append(
                .placeWanted(stream: streams[index].id, from: identity, milliseconds: milliseconds))
        }
    }

    /// The sender of a stream has told this node's place in it.
    mutating func placed(
        _ stream: UInt64, _ place: RepairPacket.Place, from: NodeIdentity, now: Instant
    ) {
        guard let index = indices[stream], streams[index].identity == from else {
            return inbox.counters.add(.streamRepairsRefused)
        }
        streams[index].placed(place, now: now, &inbox)
        streams[index].feedback.hurry(now: now, using: &inbox.generator)
        noteDue(index)
    }

    /// Whose stream it is, as far as known.
    func identity(of stream: UInt64) -> NodeIdentity? { indices[stream].flatMap { streams[$0].identity } }

    private mutating func noteDue(_ index: Int) {
        reportAt = earliest(reportAt, streams[index].feedback.dueAt)
        askAt = earliest(askAt, streams[index].asksNext)
    }
}
