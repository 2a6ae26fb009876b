package import NIOCore

/// One channel of one node: its own stream out, everybody else's in, and the reports between them.
///
/// The engine thread feeds it and asks it; it never reads a clock and never waits. After each batch of events
/// ask for frames and reports until there are none, then sleep until ``nextDeadline(now:)``.
/// Memory: what was submitted, what streams may hold (a quarter of `limits.memory`), results not yet taken.
package struct ChannelMachine: ~Copyable {
    private let limits: LimitSettings
    let identity: NodeIdentity
    let streamID: UInt64
    private let configurationDigest: UInt64
    private var reportAddress: DatagramAddress
    private let frameSizeMax: Int
    /// What a frame may have now: every member must be able to take it.
    private var frameSize: Int

    var decoder = FrameDecoder()
    var records: [FrameRecord] = []
    /// The frame in hand.
    private var frame = ByteBuffer()
    var inbound: InboundStreams
    private var isLeaving = false
    private var epoch: UInt64 = 0

    private var sender: StreamSender
    /// The number of the next frame.
    var next: UInt64 = 1
    var window: SendWindow
    private var pacer: Pacer
    var pace: GroupPace
    let fixedRate: Double?
    private var heads: HeadSchedule
    private var frameAt: Instant?
    var times = FrameTimes()
    private let openedAt: Instant
    /// When the own stream's first frame left.
    private var beganAt: Instant?
    private var announcedAt: Instant?
    private var announcedFrame: UInt64 = 0
    /// A new member is here that may not know whose stream this is.
    private var mustAnnounce = false
    private var bytesPerFrame: Double
    private var isBlocked = false
    private var waitsUntil: Instant?
    private var stallCheckAt: Instant
    private var holdupCheckAt: Instant
    /// When to look next whether members do not hear the group.
    private var tellAt: Instant
    /// What can be sent again, and who wants it; nil: this channel leaves repair to PGM.
    var retention: RetentionRing?
    var desk: RepairDesk
    private let retentionAge: Duration
    /// Members that join late want what is kept, also what all others have.
    private let isReplayed: Bool
    /// Members are told of to the node only while one of them lacks this frame; 0: nobody asked.
    var receiptFrame: UInt64 = 0
    /// Messages that have begun and not ended and somebody wants to hear of.
    private var openReceipts = 0
    /// The last frame in which a message ended of which members shall tell that it was handled.
    private var processedFrame: UInt64 = 0

    private static let announcedAlways: UInt64 = 64
    private static let announceInterval = Duration.milliseconds(50)
    private static let announceFrames: UInt64 = 256
    /// Small messages wait so long after a frame for others to share the next one.
    private static let packingTime = Duration.microseconds(200)
    private static let tellInterval = Duration.milliseconds(50)
    /// So long after a channel was opened everybody is in the directory who was there before.
    private static let acquaintanceTime = Duration.seconds(1)
    private static let stallCheckInterval = Duration.milliseconds(250)
    private static let holdupCheckInterval = Duration.milliseconds(25)

    /// `receiveBufferBytes` is the socket's buffer as the kernel accounts it; `frameSizeMax` the largest
    /// frame, at least 480.
    package init(
        settings: ChannelSettings, limits: LimitSettings, identity: NodeIdentity, streamID: UInt64,
        reportAddress: DatagramAddress, frameSizeMax: Int, receiveBufferBytes: Int,
        configurationDigest: UInt64, seed: UInt64, now: Instant
    ) {
        self.limits = limits
        self.identity = identity
        self.streamID = streamID
        self.configurationDigest = configurationDigest
        self.reportAddress = reportAddress
        self.frameSizeMax = max(frameSizeMax, FrameWire.frameSizeMin)
        frameSize = self.frameSizeMax
        // The kernel charges a packet with its buffers' true size, about 800 bytes beyond the packet. Half
        // stays free for senders that begin and for what is in the air when budgets shift.
        let charge = 2 * (frameSizeMax + FrameWire.lowerHeaderLength + 800)
        let capacity = UInt64(max(4, receiveBufferBytes / charge))
        inbound = InboundStreams(
            inbox: StreamReceiver.Inbox(
                channel: settings.name, messageMax: limits.message, heldMax: limits.memory / 4,
                reorderMax: ChannelPlan(settings, interfaceMTU: frameSizeMax).reorderBytes,
                generator: SeededGenerator(seed: seed)),
            capacity: capacity, frameSizeMax: self.frameSizeMax, backlogMax: limits.subscriptionBacklog,
            configurationDigest: configurationDigest,
            repair: InboundStreams.Repair(isOn: settings.repair == .tcp, patience: settings.retentionAge),
            now: now)
        if settings.repair == .tcp {
            retention = RetentionRing(bytesMax: settings.retention, ageMax: settings.retentionAge)
        }
        desk = RepairDesk(now: now)
        isReplayed = settings.isReplayed
        retentionAge = settings.repair == .tcp ? settings.retentionAge : .zero
        sender = StreamSender(
            frameSizeMax: self.frameSizeMax, openBytesMax: limits.message, topicRate: settings.topicRate,
            now: now)
        window = SendWindow(
            trust: max(2, min(64, capacity / 8)), reach: capacity, slow: settings.slow,
            membersMax: limits.members, memory: settings.retentionAge, now: now)
        pacer = Pacer(now: now)
        pace = GroupPace(now: now)
        fixedRate = settings.rate.map { Double(max(1, $0)) }
        heads = HeadSchedule()
        openedAt = now
        bytesPerFrame = Double(frameSizeMax)
        stallCheckAt = now
        holdupCheckAt = now
        tellAt = now
    }

    /// Payload bytes that wait to be cut.
    package var queuedBytes: Int { sender.queuedBytes }
    /// True when nothing waits and every member waited for has everything.
    package var isSettled: Bool {
        mutating get { !sender.hasData && window.floor(next: next) == next }
    }
    /// True while something is missing here that somebody may still have.
    package var isRepairing: Bool { inbound.isRepairing }
    package var counters: CounterSet { inbound.inbox.counters }
    /// Bytes of incomplete messages and frames held.
    package var heldBytes: Int { inbound.inbox.heldBytes }

    // MARK: What the node says

    /// Messages to send, in order.
    package mutating func submit(_ casts: consuming [OutboundCast], now: Instant) {
        sender.submit(casts, now: now)
    }

    /// The members that hear the channel, this node left out, and the largest frame all of them can take;
    /// nil: as large as this node's own.
    package mutating func membersChanged(
        _ members: [NodeIdentity], frameSizeMax smallest: Int? = nil, now: Instant
    ) {
        frameSize = max(FrameWire.frameSizeMin, min(frameSizeMax, smallest ?? frameSizeMax))
        sender.frameSizeMax = frameSize
        let others = members.filter { $0.name != identity.name }
        // Who was thought dead, or has just joined, learns how far the stream is.
        if next > 1, others.contains(where: { !window.expects($0) }) { heads.frameLeft(now: now) }
        if !window.membersChanged(others, next: next, now: now) {
            inbound.inbox.counters.add(.limitMembersHit)
        }
    }

    /// What this node hears has changed; `epoch`: the version of what it tells the directory.
    package mutating func subscriptionsChanged(epoch: UInt64) { self.epoch = epoch }

    /// What waits in the fullest subscription, everything included that was taken by ``takeDeliveries()``.
    package mutating func backlogChanged(bytes: Int, now: Instant) {
        inbound.backlogChanged(bytes: bytes, now: now)
    }

    /// Somebody here listens from now on; `replays`: to what senders still keep, too. Once is enough.
    package mutating func listens(replays: Bool, now: Instant) {
        inbound.listens(replays: replays, now: now)
    }

    /// The sockets are others now: reports come there.
    package mutating func moved(reportAddress: DatagramAddress, now: Instant) {
        self.reportAddress = reportAddress
        mustAnnounce = true
        // What the old sockets had is missed, and noticed.
        if next > 1 { heads.frameLeft(now: now) }
    }

    /// This node stops listening: every sender is told not to wait for it.
    package mutating func leave(now: Instant) {
        isLeaving = true
        inbound.reportAll(now: now)
    }

    // MARK: What arrives

    /// One PGM payload, in the order of its stream; `isRepaired` when it came because it was asked for.
    package mutating func frameReceived(_ bytes: RawSpan, isRepaired: Bool = false, now: Instant) {
        inbound.inbox.repaired = isRepaired ? .pgm : .none
        if let part = PartFrame(bytes), part.header.streamID != streamID,
            inbound.received(part, bytes.extracting(droppingFirst: PartFrame.headLength), now: now)
        {
            return inbound.inbox.counters.add(.pgmInData)
        }
        // In the same memory as the last one where nobody has kept that.
        frame.clear(minimumCapacity: bytes.byteCount)
        frame.writeBytes(bytes)
        let header: FrameHeader
        do { header = try decoder.decode(frame, into: &records) } catch {
            return inbound.inbox.counters.add(error.frameCounter)
        }
        guard header.streamID != streamID else { return }
        inbound.inbox.counters.add(.pgmInData)
        inbound.received(header, &records, bytes: frame.readableBytes, now: now)
        // What nobody keeps of the frame leaves its memory to the next one.
        records.removeAll(keepingCapacity: true)
    }

    /// One datagram that came to the report address.
    package mutating func reportReceived(_ datagram: ByteBuffer, from: DatagramAddress, now: Instant) {
        let report: Report
        do { report = try Report(reading: datagram) } catch {
            return inbound.inbox.counters.add(.streamReportsMalformed)
        }
        guard report.member.name != identity.name,
            let position = report.streams.first(where: { $0.streamID == streamID })
        else { return }
        guard position.received <= next else {
            return inbound.inbox.counters.add(.streamReportsMalformed)
        }
        inbound.inbox.counters.add(.streamReportsReceived)
        if report.isLeaving {
            desk.left(report.member)
            return window.left(report.member)
        }
        guard
            let change = window.reported(
                report.member, position, next: next, bytesPerFrame: bytesPerFrame,
                isBusy: sender.isReady(now), now: now)
        else { return inbound.inbox.counters.add(.limitMembersHit) }
        if change.isNew { mustAnnounce = true }
        if let isDeaf = change.isDeaf {
            if isDeaf { desk.turnedDeaf(report.member) }
            inbound.inbox.events.append(.memberPath(report.member, isDeaf ? .notHeard : .heard))
        }
        if change.isBack { inbound.inbox.events.append(.memberPath(report.member, .caughtUp)) }
        if change.hasLost, !change.isNew { pace.backOff(now: now) }
        if receiptFrame >= change.processedBefore || change.hasLost && openReceipts > 0 {
            let progress = Progress(
                before: change.before, processedBefore: change.processedBefore, position: position,
                epoch: report.subscriptionEpoch, hasLost: change.hasLost, hasRefused: change.hasRefused)
            inbound.inbox.events.append(.position(report.member, progress))
        }
    }

    // MARK: What leaves

    /// Writes a frame that may leave now behind what `frame` holds; false: none may. Call until then.
    package mutating func nextFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        if resendFrame(into: &frame, now: now) { return true }
        waitsUntil = nil
        let wasBlocked = isBlocked
        isBlocked = false
        if sender.isReady(now) {
            restart(now: now)
            waitsUntil = earliestFrame(now: now)
            if next >= window.windowEnd(next: next), !PlantedBug.ignoresWindow.isPlanted {
                isBlocked = true
                waitsUntil = nil
                if !wasBlocked { inbound.inbox.counters.add(.streamWindowWaits) }
            } else if waitsUntil == nil {
                return dataFrame(into: &frame, now: now)
            }
        } else if sender.hasData {
            waitsUntil = sender.restsUntil
        }
        guard heads.take(isOwed: isBlocked || owesHeads(now: now), now: now) else { return false }
        return headFrame(into: &frame, now: now)
    }

    /// Members that were cut off learn from heads what they lack, for as long as it can be had.
    private mutating func owesHeads(now: Instant) -> Bool {
        if processedFrame > 0, window.isHandling(processedFrame), isFresh(now) { return true }
        guard window.isOwed(next: next) else { return false }
        return window.floor(next: next) < next || isFresh(now)
    }

    /// What was sent last is still kept.
    private func isFresh(_ now: Instant) -> Bool { frameAt.map { now < $0 + retentionAge } ?? false }

    /// The first frame after a pause: limits that were told before it may be out of date.
    private mutating func restart(now: Instant) {
        if let frameAt, now < frameAt + SendWindow.trustTime { return }
        if next >= window.windowEnd(next: next) { return }
        window.restarted(next: next, now: now)
    }

    /// When the next frame may leave as far as time is concerned; nil: now.
    private mutating func earliestFrame(now: Instant) -> Instant? {
        if fixedRate == nil, pace.isDue(now) {
            pace.update(
                shown: window.shownRate(isBusy: true, now: now), members: window.count, now: now)
        }
        if currentRate != nil, let at = pacer.waitsUntil(now) { return at }
        if sender.hasRoomInFrame, let frameAt, now < frameAt + Self.packingTime {
            return frameAt + Self.packingTime
        }
        return nil
    }

    /// Bytes a second; nil: none but the members' budgets.
    package var currentRate: Double? { fixedRate ?? pace.rate }

    private mutating func dataFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        let start = frame.writerIndex
        beganAt = beganAt ?? now
        var builder = FrameBuilder(header(next), sizeMax: frameSize, into: &frame)
        if mustAnnounce || next <= Self.announcedAlways || next >= announcedFrame + Self.announceFrames
            || announcedAt.map({ now >= $0 + Self.announceInterval }) ?? true
        {
            announce(&builder, &frame, now: now)
        }
        var sent = StreamSender.Sent()
        guard sender.fill(&builder, &frame, &sent, now: now) else {
            frame.moveWriterIndex(to: start)
            return false
        }
        let bytes = builder.length(in: frame) + FrameWire.lowerHeaderLength
        bytesPerFrame += (Double(bytes) - bytesPerFrame) / 64
        if let rate = currentRate { pacer.pay(bytes: bytes, rate: rate, now: now) }
        inbound.inbox.counters.add(.pgmOutData)
        inbound.inbox.counters.add(.streamMessagesSent, sent.messages)
        if !sent.begun.isEmpty || !sent.tokens.isEmpty { tell(sent) }
        times.sent(next, now: now)
        keep(frame, at: start, part: sent.part, now: now)
        next += 1
        frameAt = now
        heads.frameLeft(now: now)
        return true
    }

    /// Tells what became of messages somebody wants to hear of.
    private mutating func tell(_ sent: StreamSender.Sent) {
        receiptFrame = next
        if sent.asksProcessed { processedFrame = next }
        openReceipts += sent.begun.count - sent.tokens.count
        for token in sent.begun { inbound.inbox.events.append(.began(token: token, firstFrame: next)) }
        for token in sent.tokens { inbound.inbox.events.append(.sent(token: token, lastFrame: next)) }
    }

    /// Keeps the frame that ends `buffer` and has the number `next`.
    private mutating func keep(
        _ buffer: ByteBuffer, at start: Int, part: RetentionRing.Part?, now: Instant
    ) {
        let length = buffer.writerIndex - start
        if retention?.isSlabFull == true, window.count > 0, !isReplayed {
            // Who hears the stream from its first frame on may not have reached the directory yet.
            let share = now < openedAt + Self.acquaintanceTime ? 8 : 32
            retention?.trim(before: window.owedFrom(next: next), keepingOneIn: share)
        }
        if let part {
            if retention?.keep(part, length: length, now: now) == true { return }
            if let payload = sender.payload(of: part),
                retention?.keep(part, of: payload, length: length, now: now) == true
            {
                return
            }
        }
        retention?.keep(buffer, at: start, length: length, now: now)
    }

    private mutating func headFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        var builder = FrameBuilder(header(next, isHead: true), sizeMax: frameSize, into: &frame)
        announce(&builder, &frame, now: now)
        builder.head(headRecord, into: &frame)
        inbound.inbox.counters.add(.streamHeadsSent)
        return true
    }

    private var headRecord: HeadRecord {
        mutating get {
            HeadRecord(next: next, oldest: oldest, firstOpenMessage: sender.firstOpenMessage)
        }
    }

    func header(_ sequence: UInt64, isHead: Bool = false) -> FrameHeader {
        FrameHeader(
            isHead: isHead, streamID: streamID, sequence: sequence, reportAddress: reportAddress,
            feedbackInterval: UInt16(clamping: intervalMicroseconds / 100))
    }

    /// T: at most 2,000 reports a second from all members, with room for chance, and at most one in a
    /// millisecond from each.
    private var intervalMicroseconds: Int { max(1000, window.count * 600) }

    private mutating func announcement(now: Instant) -> AnnounceRecord {
        AnnounceRecord(
            identity: identity, digest: configurationDigest, oldest: oldest,
            firstOpenMessage: sender.firstOpenMessage,
            ageMilliseconds: UInt32(clamping: (now - (beganAt ?? now)).nanoseconds / 1_000_000))
    }

    private mutating func announce(
        _ builder: inout FrameBuilder, _ frame: inout ByteBuffer, now: Instant
    ) {
        builder.announce(announcement(now: now), into: &frame)
        announcedAt = now
        announcedFrame = next
        mustAnnounce = false
    }

    /// Writes a report that is due behind what `datagram` holds and says where to; nil: none is.
    package mutating func nextReport(into datagram: inout ByteBuffer, now: Instant) -> DatagramAddress? {
        guard
            let (report, address) = inbound.nextReport(
                from: identity, epoch: epoch, isLeaving: isLeaving, now: now)
        else { return nil }
        report.write(into: &datagram)
        return address
    }

    /// A message of somebody's stream was handled by this node, or will never be.
    package mutating func ended(_ mark: FrameMark, isHandled: Bool, now: Instant) {
        inbound.ended(mark, isHandled: isHandled, now: now)
    }

    // MARK: Time

    /// Does what is due; call whenever ``nextDeadline(now:)`` has passed.
    package mutating func timerFired(now: Instant) {
        inbound.timerFired(now: now)
        retention?.expire(now: now)
        tellUnheard(now: now)
        findHoldups(now: now)
        guard now >= stallCheckAt else { return }
        stallCheckAt = now + Self.stallCheckInterval
        let patience = max(window.silencePatience, .microseconds(20 * intervalMicroseconds))
        for member in window.stall(next: next, patience: patience, now: now) {
            inbound.inbox.counters.add(.streamMembersStalled)
            givenUp(member)
        }
    }

    /// Members that hold up the others are waited for only so long.
    private mutating func findHoldups(now: Instant) {
        guard now >= holdupCheckAt else { return }
        holdupCheckAt = now + Self.holdupCheckInterval
        let found = window.holdups(
            next: next, isBlocked: isBlocked, bytesPerFrame: bytesPerFrame, now: now)
        for member in found {
            inbound.inbox.counters.add(.streamMembersSlow)
            givenUp(member)
        }
    }

    private mutating func givenUp(_ member: NodeIdentity) {
        if window.evicts { inbound.inbox.counters.add(.streamMembersEvicted) }
        inbound.inbox.events.append(.memberPath(member, window.evicts ? .evicted : .stalled))
    }

    /// Members that seem not to hear the group learn over links how far the stream is.
    private mutating func tellUnheard(now: Instant) {
        guard retention != nil, now >= tellAt, window.isOwed(next: next) else { return }
        tellAt = now + Self.tellInterval
        let unheard = window.unheard(next: next, now: now)
        if unheard.isEmpty { return }
        var frame = ByteBuffer()
        var builder = FrameBuilder(header(next, isHead: true), sizeMax: frameSize, into: &frame)
        builder.announce(announcement(now: now), into: &frame)
        builder.head(headRecord, into: &frame)
        let packet = RepairPacket.head(stream: streamID, channel: configurationDigest, frame)
        for member in unheard { inbound.inbox.events.append(.headWanted(packet, to: member)) }
    }

    /// When something is due that no arrival announces; nil: nothing is.
    package mutating func nextDeadline(now: Instant) -> Instant? {
        var deadline = earliest(earliest(inbound.nextDeadline, waitsUntil), desk.nextDeadline(now: now))
        deadline = earliest(deadline, heads.nextAt(isOwed: isBlocked || owesHeads(now: now)))
        if isBlocked { deadline = earliest(deadline, holdupCheckAt) }
        if isBlocked || window.floor(next: next) < next { deadline = earliest(deadline, stallCheckAt) }
        if retention != nil, window.isOwed(next: next) { deadline = earliest(deadline, tellAt) }
        return deadline
    }

    // MARK: Results

    /// What has arrived since the last call, in order.
    package mutating func takeDeliveries() -> [InboundRecord] {
        guard !inbound.inbox.records.isEmpty else { return [] }
        var records: [InboundRecord] = []
        swap(&records, &inbound.inbox.records)
        return records
    }

    /// What has happened since the last call, in order.
    package mutating func takeEvents() -> [StreamEvent] {
        guard !inbound.inbox.events.isEmpty else { return [] }
        var events: [StreamEvent] = []
        swap(&events, &inbound.inbox.events)
        return events
    }
}
