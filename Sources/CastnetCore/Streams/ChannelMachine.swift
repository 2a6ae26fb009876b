package import NIOCore

/// What a channel tells its node besides messages.
package enum StreamEvent: Sendable {
    case loss(Loss)
    case streamStarted(UInt64, NodeIdentity)
    case streamEnded(UInt64, NodeIdentity?)
    /// A member stopped reporting: the group no longer waits for it.
    case memberStalled(NodeIdentity)
    case memberBack(NodeIdentity)
    /// The message named by the token ends in this frame.
    case sent(token: UInt64, lastFrame: UInt64)
    /// A member has everything below `received`.
    case position(NodeIdentity, received: UInt64)
    /// Another node has the channel configured differently.
    case digestDiffers(NodeIdentity)
}

/// One channel of one node: its own stream out, everybody else's in, and the reports between them.
///
/// The engine thread feeds it and asks it; it never reads a clock and never waits.
package struct ChannelMachine: ~Copyable {
    private struct Incoming {
        var receiver: StreamReceiver
        var feedback: Feedback
    }

    private let settings: ChannelSettings
    private let limits: LimitSettings
    private let identity: NodeIdentity
    private let streamID: UInt64
    private let configurationDigest: UInt64
    private let framePayload: Int
    /// Frames that fit the socket's receive buffer.
    private let capacity: UInt64
    private var generator: SeededGenerator
    private var sender: StreamSender
    private var outflow: Outflow
    private var incoming: [UInt64: Incoming] = [:]
    private var output = StreamReceiver.Output()
    private var events: [StreamEvent] = []
    private var memberCount = 0
    private var backlogBytes = 0
    private var epoch: UInt64 = 1
    /// The last frame a receipt waits for: positions below it are told.
    private var receiptFrame: UInt64?
    /// When a head must ask the members while frames wait or are outstanding.
    private var probeAt: Instant?
    private var rateWaitsUntil: Instant?
    /// A frame that is not full waits until then for company, where another left just before.
    private var packsUntil: Instant?
    private var dataFrameAt: Instant?
    private var isBlocked = false
    private var sweepAt: Instant
    private var differing: Set<NodeIdentity> = []

    private static let packingTime = Duration.microseconds(200)
    private static let streamsMax = 4096
    private static let streamSilence = Duration.seconds(30)

    /// `receiveBufferBytes` is the socket's buffer as the kernel accounts it; `frameSizeMax` the largest
    /// frame.
    package init(
        settings: ChannelSettings, limits: LimitSettings, identity: NodeIdentity, streamID: UInt64,
        reportAddress: DatagramAddress, frameSizeMax: Int, receiveBufferBytes: Int,
        configurationDigest: UInt64,
        seed: UInt64, now: Instant
    ) {
        self.settings = settings
        self.limits = limits
        self.identity = identity
        self.streamID = streamID
        self.configurationDigest = configurationDigest
        framePayload = max(64, frameSizeMax - FrameHeader.length)
        // The kernel charges a packet with its buffers' true size: about 800 bytes beyond the frame.
        capacity = UInt64(max(16, receiveBufferBytes * 6 / 10 / (frameSizeMax + 860)))
        generator = SeededGenerator(seed: seed)
        sender = StreamSender(
            stream: streamID, identity: identity, channelDigest: configurationDigest, reportTo: reportAddress,
            frameSizeMax: frameSizeMax)
        outflow = Outflow(rate: settings.rate, frameCost: frameSizeMax + 52, now: now)
        sweepAt = now + .seconds(1)
    }

    /// Payload bytes that wait to be cut.
    package var queuedBytes: Int { sender.queuedBytes }
    /// True when nothing waits and every member waited for has everything.
    package var isSettled: Bool { !sender.hasData && outflow.floor(next: sender.next) == sender.next }
    package var counters: CounterSet { output.counts }

    // MARK: What the node says

    package mutating func submit(_ casts: consuming [OutboundCast], now: Instant) { sender.submit(casts) }

    /// The members that hear the channel, this node left out.
    package mutating func membersChanged(_ members: [NodeIdentity], now: Instant) {
        memberCount = members.count
        outflow.membersChanged(members, next: sender.next, now: now)
    }

    /// What this node subscribes has changed.
    package mutating func subscriptionsChanged() { epoch += 1 }

    /// What waits in the subscriptions.
    package mutating func backlogChanged(bytes: Int, now: Instant) {
        backlogBytes = bytes
        let (share, best) = (share, best)
        for key in incoming.keys where incoming[key]?.feedback.isPinched == true {
            incoming[key]?.feedback.roomChanged(share: share, best: best, now: now)
        }
    }

    // MARK: What arrives

    /// One PGM payload, in the order of its stream.
    package mutating func frameReceived(_ frame: ByteBuffer, now: Instant) {
        var records = frame
        let header: FrameHeader
        do { header = try records.readFrameHeader() } catch {
            return output.counts.add(.pgmRejectedMalformed)
        }
        guard header.stream != streamID else { return }
        output.counts.add(.pgmInData)
        guard admit(header, now: now) else { return }
        let wasKnown = incoming[header.stream]?.receiver.identity != nil
        let losses = output.losses.count
        incoming[header.stream]?.receiver.received(header, records, into: &output)
        guard let next = incoming[header.stream]?.receiver.next else { return }
        if !wasKnown, let node = incoming[header.stream]?.receiver.identity {
            events.append(.streamStarted(header.stream, node))
        }
        if output.losses.count > losses {
            for loss in output.losses[losses...] { events.append(.loss(loss)) }
        }
        if let announcement = output.announcement { check(announcement) }
        let share = share
        incoming[header.stream]?.feedback.heard(header, next: next, share: share, now: now, using: &generator)
    }

    private mutating func admit(_ header: FrameHeader, now: Instant) -> Bool {
        if incoming[header.stream] != nil { return true }
        guard incoming.count < Self.streamsMax else {
            output.counts.add(.limitStreamsHit)
            return false
        }
        incoming[header.stream] = Incoming(
            receiver: StreamReceiver(
                stream: header.stream, channel: settings.name, first: header.sequence,
                messageMax: limits.message,
                assemblyMax: limits.memory / 4, unidentifiedMax: Int(min(capacity, 1024))),
            feedback: Feedback(header, now: now))
        return true
    }

    private mutating func check(_ announcement: Announcement) {
        output.announcement = nil
        guard announcement.channelDigest != configurationDigest else { return }
        if differing.count < 1024, differing.insert(announcement.node).inserted {
            events.append(.digestDiffers(announcement.node))
        }
    }

    package mutating func reportReceived(_ datagram: ByteBuffer, from: DatagramAddress, now: Instant) {
        let report: Report
        do { report = try Report(datagram) } catch { return output.counts.add(.streamReportsMalformed) }
        guard report.member != identity, let position = report.streams.first(where: { $0.stream == streamID })
        else {
            return
        }
        output.counts.add(.streamReportsReceived)
        if report.isLeaving { return outflow.forget(report.member) }
        let known = outflow.reporters[report.member]
        if known == nil, outflow.reporters.count >= limits.members {
            return output.counts.add(.limitMembersHit)
        }
        let event = outflow.reported(
            report.member, position: position.received, limit: position.limit, next: sender.next, now: now)
        switch event {
        case .back(let member): events.append(.memberBack(member))
        case .stalled, nil: break
        }
        if let receiptFrame, receiptFrame >= known?.position ?? 0 {
            events.append(.position(report.member, received: min(position.received, sender.next)))
            if outflow.floor(next: sender.next) > receiptFrame { self.receiptFrame = nil }
        }
        isBlocked = isBlocked && sender.next >= outflow.windowEnd
    }

    // MARK: What leaves

    /// Writes a frame that may leave now; false: none may. Call until it says false.
    package mutating func nextFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        rateWaitsUntil = nil
        packsUntil = nil
        isBlocked = false
        if sender.hasData, sender.queuedBytes < framePayload / 2, let last = dataFrameAt {
            packsUntil = last + Self.packingTime
        }
        if let until = packsUntil, until > now {
            // Chatty traffic: the frame fills up meanwhile.
        } else if sender.hasData {
            switch outflow.ask(next: sender.next, now: now) {
            case .leave: return dataFrame(into: &frame, now: now)
            case .blocked: isBlocked = true
            case .wait(let until): rateWaitsUntil = until
            }
        }
        let isBusy = isBlocked || outflow.floor(next: sender.next) < sender.next
        if let probeAt, isBusy, probeAt <= now { return headFrame(into: &frame, now: now, isProbe: true) }
        if probeAt == nil, isBusy { probeAt = now + probeInterval }
        if !isBusy { probeAt = nil }
        return headFrame(into: &frame, now: now, isProbe: false)
    }

    private mutating func dataFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        var tokens: [UInt64] = []
        let number = sender.next
        let before = sender.sentCount
        guard
            sender.dataFrame(
                into: &frame, intervalUnits: intervalUnits, oldest: outflow.floor(next: number), now: now,
                sent: &tokens)
        else { return false }
        output.counts.add(.pgmOutData)
        output.counts.add(.streamMessagesSent, sender.sentCount - before)
        for token in tokens {
            events.append(.sent(token: token, lastFrame: number))
            receiptFrame = number
        }
        probeAt = nil
        dataFrameAt = now
        return true
    }

    private mutating func headFrame(into frame: inout ByteBuffer, now: Instant, isProbe: Bool) -> Bool {
        if isProbe {
            probeAt = now + probeInterval
            sender.requestHead(now: now)
        }
        return sender.headFrame(
            into: &frame, intervalUnits: intervalUnits, oldest: outflow.floor(next: sender.next), now: now)
    }

    private var probeInterval: Duration { .milliseconds(isBlocked ? 50 : 500) }

    /// T in units of 100 µs: max(1 ms, members / 2,000 s).
    private var intervalUnits: UInt16 { UInt16(clamping: max(10, memberCount * 5)) }

    /// Writes a report that is due and says where to; nil: none is.
    package mutating func nextReport(into datagram: inout ByteBuffer, now: Instant) -> DatagramAddress? {
        guard let due = incoming.values.first(where: { $0.feedback.dueAt.map { $0 <= now } ?? false }) else {
            return nil
        }
        let address = due.feedback.reportTo
        let (share, best) = (share, best)
        var positions: [Report.Position] = []
        for (stream, entry) in incoming where positions.count < Report.streamsMax {
            guard entry.feedback.reportTo == address, let at = entry.feedback.dueAt, at <= now else {
                continue
            }
            let receiver = entry.receiver
            let limit = receiver.next + share - min(share, UInt64(receiver.unidentifiedCount))
            positions.append(
                Report.Position(
                    stream: stream, received: receiver.next, limit: limit, processed: receiver.next,
                    lost: receiver.lostCount))
            incoming[stream]?.feedback.reported(limit: limit, share: share, best: best)
        }
        Report(member: identity, epoch: epoch, streams: positions).write(to: &datagram)
        output.counts.add(.streamReportsSent)
        return address
    }

    /// Frames one stream may have outstanding when nothing waits here.
    private var best: UInt64 { max(8, capacity / UInt64(max(1, incoming.count))) }

    /// Frames one stream may have outstanding now: its part of the socket buffer, and of what the
    /// subscriptions can still take.
    private var share: UInt64 {
        let room = limits.subscriptionBacklog - backlogBytes
        if room <= 0 { return 0 }
        return min(best, UInt64(room / framePayload / max(1, incoming.count)))
    }

    // MARK: Time

    package mutating func timerFired(now: Instant) {
        outflow.measure(next: sender.next, isBusy: isBlocked || sender.hasData, now: now)
        guard now >= sweepAt else { return }
        sweepAt = now + .milliseconds(250)
        let patience = max(Duration.seconds(1), Duration.microseconds(Int64(intervalUnits) * 2000))
        for event in outflow.dropSilent(next: sender.next, patience: patience, now: now) {
            if case .stalled(let member) = event {
                output.counts.add(.streamMembersStalled)
                events.append(.memberStalled(member))
            }
        }
        for (stream, entry) in incoming where now >= entry.feedback.heardAt + Self.streamSilence {
            incoming[stream] = nil
            events.append(.streamEnded(stream, entry.receiver.identity))
        }
    }

    package func nextDeadline(now: Instant) -> Instant? {
        var deadline = earliest(earliest(rateWaitsUntil, packsUntil), sender.nextHeadAt)
        if isBlocked || outflow.awaitsReports(next: sender.next) {
            deadline = earliest(deadline, earliest(probeAt, sweepAt))
        }
        for entry in incoming.values {
            deadline = earliest(deadline, entry.feedback.dueAt)
            deadline = earliest(deadline, entry.feedback.lookAgainAt(now: now))
        }
        if !incoming.isEmpty { deadline = earliest(deadline, now + .seconds(5)) }
        return deadline
    }

    // MARK: Results

    package mutating func takeDeliveries() -> [InboundRecord] {
        defer { output.records = [] }
        return output.records
    }

    package mutating func takeEvents() -> [StreamEvent] {
        defer {
            events = []
            output.losses = []
        }
        return events
    }
}
