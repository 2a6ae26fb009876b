package import CastnetCore
internal import NIOCore

/// Nodes on one channel in virtual time: real machines, a modelled PGM (in order, usually there), bounded
/// socket buffers and consumers of a given speed. An oracle watches every message.
package struct ChannelSimulation: ~Copyable {
    /// What is built and what it must bear.
    package struct Scenario: Sendable {
        package var seed: UInt64
        package var nodes = 3
        /// How many of the nodes send.
        package var senders = 1
        package var topics = 2
        package var messages = 200
        package var sizes: ClosedRange<Int> = 0...300
        /// Every so many messages a large one comes; 0: none.
        package var largeEvery = 0
        package var largeSize = 64 << 10
        package var settings = ChannelSettings(name: "sim", group: "239.192.7.10", port: 7500)
        package var limits = LimitSettings()
        package var frameSizeMax = 1448
        /// Frames PGM gives up on, frames seen twice, lost and doubled reports.
        package var frameDrop = 0.0
        package var frameDuplicate = 0.0
        package var reportDrop = 0.0
        /// True: what is missing may be gone before it is asked for.
        package var isRetentionShort = false
        /// Messages that a member does not handle though their sender asks for it.
        package var refuse = 0.0
        /// When the last node hears nothing of the group, or, where `isSenderMute`, nobody hears the first.
        package var deaf: Range<Duration>?
        package var isSenderMute = false
        /// Requests for repair that come to nothing.
        package var requestDrop = 0.0
        /// Bytes a second the slowest member's subscription is read with; nil: at once.
        package var slowConsumer: Double?
        /// A member stops for so long in the middle.
        package var pause: Duration?
        package var troubles: [Trouble] = []
        /// True: every third message has a receipt, of which half are about what was processed.
        package var hasReceipts = true
        /// Messages are submitted in batches of up to so many, so far apart.
        package var batch = 50
        package var batchInterval: Duration = .microseconds(500)
        package var timeMax: Duration = .seconds(60)
        /// Half of the seeds: neighbours that may be are packed as they are submitted.
        var isPacked: Bool { seed & 1 == 0 }

        package init(seed: UInt64) { self.seed = seed }
    }

    /// What a run was like.
    package struct Outcome: Sendable {
        /// What the oracle found wrong.
        package var faults: [String] = []
        package var delivered = 0
        package var lost: UInt64 = 0
        package var overflows = 0
        package var backlogMax = 0
        package var frames = 0
        package var reports = 0
        package var seconds = 0.0
        package var stalls = 0
        /// Members given up for being slow, and those that were waited for again.
        package var holdups = 0
        package var caughtUp = 0
        /// Frames repaired over TCP, and sent to the group again.
        package var repaired = 0
        /// When members began to get frames over links, and when no longer.
        package var deafAt: [Duration] = []
        package var backAt: [Duration] = []
        package var resent = 0
        /// Members served over TCP at the same time at most, and bytes of frames sent again.
        package var sessionsMax = 0
        package var repairBytes = 0
        /// Frames sent for the first time, by second.
        package var framesBySecond: [Int: Int] = [:]
        /// Reports that came to one node within a second at most.
        package var reportsPerSecondMax = 0
        /// Rows of receipts that were held against what came.
        package var receiptRows = 0
        /// When the last receipt was complete.
        package var receiptsAt: Duration = .zero
        /// When each node had the last message it got.
        package var lastAt: [Duration] = []
    }

    enum Wake: Sendable {
        case service(Int)
        case deadline(Int)
        case drain(Int)
        case submit(Int)
        /// A repair packet gets to a node; `bytes` of frames in it have left the other one.
        case repair(RepairPacket, from: Int, to: Int, bytes: Int)
        case trouble(Trouble)
        /// The directory gives up a node that was killed.
        case gone(Int)
        /// A node that was killed starts anew.
        case restart(Int)
        /// A node has handled a record, or has refused to.
        case ended(InboundRecord, at: Int, isHandled: Bool)
    }

    package let scenario: Scenario
    var nodes: [SimulatedNode] = []
    var network: VirtualNetwork
    var clock = VirtualClock()
    let startedAt: Instant
    var agenda = Agenda<Wake>()
    var generator: SeededGenerator
    var oracle: ChannelOracle
    /// Whom the directory lists.
    var listed: [NodeIdentity] = []
    var cuts: [(node: Int, until: Instant, way: Trouble.Way)] = []
    var burstUntil = Instant(nanoseconds: 0)
    var outcome = Outcome()

    package init(_ scenario: Scenario) {
        self.scenario = scenario
        startedAt = clock.now
        generator = SeededGenerator(seed: scenario.seed)
        network = VirtualNetwork(seed: scenario.seed ^ 0xA5A5)
        network.frameFaults.drop = scenario.frameDrop
        network.frameFaults.duplicate = scenario.frameDuplicate
        network.faults.drop = scenario.reportDrop
        network.faults.reorder = 0.05
        network.faults.duplicate = 0.02
        oracle = ChannelOracle(nodes: scenario.nodes)
        for index in 0..<scenario.nodes {
            nodes.append(SimulatedNode(index, scenario, now: clock.now))
            network.join(1, index)
        }
        listed = nodes.map(\.identity)
        tellMembers()
        nodes[scenario.nodes - 1].consumerRate = scenario.slowConsumer
        outcome.lastAt = Array(repeating: .zero, count: scenario.nodes)
        plan()
    }

    /// Splits each sender's messages into batches and sets their times.
    private mutating func plan() {
        for sender in 0..<scenario.senders {
            var at = clock.now
            var left = scenario.messages
            while left > 0 {
                let count = min(left, Int.random(in: 1...scenario.batch, using: &generator))
                nodes[sender].batches.append(count)
                agenda.add(.submit(sender), at: at)
                at = at + generator.jitter(scenario.batchInterval, in: 0...2)
                left -= count
            }
        }
        if let pause = scenario.pause {
            pauseNode(scenario.nodes - 1, until: clock.now + .milliseconds(5) + pause)
        }
        for trouble in scenario.troubles { agenda.add(.trouble(trouble), at: startedAt + trouble.begin) }
    }

    // MARK: Time

    /// Runs until every message has arrived or is accounted for, or time is up; then asks the oracle.
    package mutating func run() -> Outcome {
        let start = clock.now
        let end = start + scenario.timeMax
        var quietSince = start
        var progress = -1
        while let at = earliest(agenda.nextAt, network.nextAt), at <= end {
            clock.advance(to: at)
            if let arrival = network.popArrival(until: clock.now) {
                arrived(arrival.2, at: arrival.to)
            } else if agenda.nextAt.map({ $0 <= clock.now }) ?? false, let (_, wake) = agenda.popFirst() {
                act(wake)
            }
            let total = outcome.delivered + outcome.frames
            if total != progress {
                progress = total
                quietSince = clock.now
            }
            if clock.now >= quietSince + .seconds(2), isDone { break }
        }
        for node in nodes {
            outcome.repaired += Int(node.machine.counters[.streamRepairedTCP])
            outcome.resent += Int(node.machine.counters[.streamRepairsResent])
            outcome.stalls += Int(node.machine.counters[.streamMembersStalled])
            outcome.holdups += Int(node.machine.counters[.streamMembersSlow])
            outcome.repairBytes += Int(node.machine.counters[.streamRepairsBytes])
            outcome.sessionsMax = max(
                outcome.sessionsMax, Int(node.machine.counters[.streamRepairsSessions]))
        }
        outcome.seconds = (quietSince - start).seconds
        for node in nodes {
            node.book.timerFired(now: Instant(nanoseconds: .max))
            for finished in node.book.takeFinished() { oracle.closed(finished, of: node) }
        }
        oracle.judge(nodes: nodes, outcome: &outcome, lossless: isLossless, mayOverflow: mayOverflow)
        if !isDone {
            outcome.faults.append("no progress: messages are still queued after \(scenario.timeMax)")
        }
        return outcome
    }

    /// True when nothing may be missing.
    private var isLossless: Bool {
        !scenario.isRetentionShort && scenario.refuse == 0 && scenario.settings.slow != .evict
            && (scenario.frameDrop == 0 && !mayOverflow || scenario.settings.repair == .tcp)
    }

    /// True when nodes may find their socket buffers full.
    private var mayOverflow: Bool { scenario.pause != nil || !scenario.troubles.isEmpty }

    private var isDone: Bool {
        cutsEnd <= clock.now
            && nodes.allSatisfy { node in
                node.isDead
                    || node.batches.isEmpty && node.machine.queuedBytes == 0 && node.buffer.isEmpty
                        && node.backlog == 0 && !node.machine.isRepairing && node.pausedUntil <= clock.now
            }
    }

    private mutating func act(_ wake: Wake) {
        switch wake {
        case .service(let index):
            nodes[index].isServicePlanned = false
            service(index)
        case .deadline(let index):
            guard nodes[index].deadline.map({ $0 <= clock.now }) ?? false else { return }
            nodes[index].deadline = nil
            service(index)
        case .drain(let index): drain(index)
        case .submit(let index): submit(index)
        case .repair(let packet, let from, let to, let bytes): repair(packet, from: from, to: to, bytes)
        case .ended(let record, let index, let isHandled): ended(record, at: index, isHandled)
        case .trouble(let trouble): begin(trouble)
        case .gone(let index): gone(index)
        case .restart(let index): restart(index)
        }
    }

    mutating func planService(_ index: Int, after delay: Duration) {
        guard !nodes[index].isServicePlanned else { return }
        nodes[index].isServicePlanned = true
        agenda.add(.service(index), at: max(clock.now + delay, nodes[index].pausedUntil(clock.now)))
    }

    // MARK: Events

    private mutating func arrived(_ arrival: VirtualNetwork.Arrival, at index: Int) {
        switch arrival {
        case .frame(let frame, let from):
            if nodes[index].isDead { return }
            if isCutOff(index, from: from) || isLost(index, from: from) {
                oracle.dropped(frame, from: from, at: index)
            } else if nodes[index].buffer(frame) {
                planService(index, after: generator.jitter(.microseconds(40), in: 0.5...2))
            } else {
                outcome.overflows += 1
                oracle.dropped(frame, from: from, at: index)
            }
        case .datagram(let datagram, let from, _):
            if nodes[index].isDead || cutUntil(from: from, to: index) != nil { return }
            countReport(at: index)
            let address = DatagramAddress(address: 0x0A4D_0000 + UInt32(from), port: 9000)
            nodes[index].machine.reportReceived(datagram, from: address, now: clock.now)
            planService(index, after: .microseconds(10))
        case .opened, .bytes, .closed: break
        }
    }

    private mutating func countReport(at index: Int) {
        let node = nodes[index]
        node.reportTimes.append(clock.now)
        while let first = node.reportTimes.first, first + .seconds(1) <= clock.now {
            node.reportTimes.removeFirst()
        }
        outcome.reportsPerSecondMax = max(outcome.reportsPerSecondMax, node.reportTimes.count)
    }

    private func isCutOff(_ index: Int, from: Int) -> Bool {
        guard let deaf = scenario.deaf, deaf.contains(clock.now - startedAt) else { return false }
        return scenario.isSenderMute ? from == 0 : index == scenario.nodes - 1
    }

    /// One turn of the engine: read, deliver, send, report, plan.
    private mutating func service(_ index: Int) {
        let node = nodes[index]
        let now = clock.now
        if node.isDead { return }
        if now < node.pausedUntil { return agenda.add(.service(index), at: node.pausedUntil) }
        let frames = node.read(64)
        for frame in frames {
            oracle.reads(frame, at: index)
            node.machine.frameReceived(frame, now: now)
        }
        node.machine.timerFired(now: now)
        node.machine.serveRepairs(now: now)
        handOver(index)
        for _ in 0..<64 {
            var frame = ByteBuffer()
            guard node.machine.nextFrame(into: &frame, now: now) else { break }
            outcome.frames += 1
            if oracle.sent(frame, by: index, frameSizeMax: scenario.frameSizeMax, now: now) {
                outcome.framesBySecond[Int((now - startedAt).seconds), default: 0] += 1
            }
            for missing in network.frame(frame, from: index, group: 1, now: now) {
                oracle.dropped(frame, from: index, at: missing)
            }
        }
        for _ in 0..<16 {
            var report = ByteBuffer()
            guard let address = node.machine.nextReport(into: &report, now: now) else { break }
            outcome.reports += 1
            oracle.reported(report)
            network.send(report, from: index, to: Int(address.address & 0xFFFF), now: now)
        }
        handOver(index)
        planNext(index)
    }

    private mutating func planNext(_ index: Int) {
        let node = nodes[index]
        if !node.buffer.isEmpty { planService(index, after: .microseconds(20)) }
        // As in the engine: a deadline that has passed is served within 50 µs.
        guard let at = node.machine.nextDeadline(now: clock.now) else { return }
        let wakeAt = max(at, clock.now + .microseconds(50))
        guard node.deadline.map({ wakeAt < $0 }) ?? true else { return }
        node.deadline = wakeAt
        agenda.add(.deadline(index), at: wakeAt)
    }

    private mutating func handOver(_ index: Int) {
        let node = nodes[index]
        let records = node.machine.takeDeliveries()
        for record in records {
            outcome.delivered += record.count
            outcome.lastAt[index] = clock.now - startedAt
            oracle.delivered(record, at: index)
            if record.mark != nil {
                let isHandled = Double.random(in: 0..<1, using: &generator) >= scenario.refuse
                let at = clock.now + generator.jitter(.milliseconds(3), in: 0...2)
                agenda.add(.ended(record, at: index, isHandled: isHandled), at: at)
            }
            let bytes = record.body.readableBytes
            if node.consumerRate != nil { node.backlogRecords.append(bytes) }
        }
        let events = node.machine.takeEvents()
        oracle.happened(events, at: index, outcome: &outcome)
        for event in events { pass(event, from: index) }
        for finished in node.book.takeFinished() {
            outcome.receiptsAt = clock.now - startedAt
            outcome.receiptRows += finished.rows.count
            oracle.closed(finished, of: node)
        }
        guard node.consumerRate != nil, !records.isEmpty else { return }
        node.machine.backlogChanged(bytes: node.backlog, now: clock.now)
        outcome.backlogMax = max(outcome.backlogMax, node.backlog)
        planDrain(index)
    }

    private mutating func ended(_ record: InboundRecord, at index: Int, _ isHandled: Bool) {
        guard let mark = record.mark, !nodes[index].isDead else { return }
        if isHandled { oracle.handled(record, at: index) }
        nodes[index].machine.ended(mark, isHandled: isHandled, now: clock.now)
        planService(index, after: .microseconds(10))
    }

    // MARK: Repairs

    /// Repair packets travel on links: in order, complete, and not at once.
    private mutating func pass(_ event: StreamEvent, from index: Int) {
        switch event {
        case .repairWanted(let stream, let sender, let ranges):
            let isDropped = Double.random(in: 0..<1, using: &generator) < scenario.requestDrop
            guard let to = living(sender), !isDropped else {
                nodes[index].machine.repairFailed(stream, now: clock.now)
                return planService(index, after: .microseconds(10))
            }
            link(.request(stream: stream, ranges), from: index, to: to, bytes: 0)
        case .placeWanted(let stream, let sender, let milliseconds):
            guard let to = living(sender) else { return }
            link(.since(stream: stream, milliseconds: milliseconds), from: index, to: to, bytes: 0)
        case .repairAnswer(let packet, let member, let bytes):
            guard let to = living(member) else {
                if bytes > 0 { nodes[index].machine.repairWritten(bytes, to: member, now: clock.now) }
                return
            }
            link(packet, from: index, to: to, bytes: bytes)
        case .headWanted(let packet, let member):
            guard let to = living(member) else { return }
            link(packet, from: index, to: to, bytes: 0)
        case .ownPath(_, .notHeard): outcome.deafAt.append(clock.now - startedAt)
        case .ownPath(_, .heard): outcome.backAt.append(clock.now - startedAt)
        case .began(let token, let frame): nodes[index].book.began(token, firstFrame: frame)
        case .sent(let token, let frame): nodes[index].book.sent(token, lastFrame: frame)
        case .position(let member, let progress):
            nodes[index].book.position(
                member, progress, channel: SimulatedNode.channel, now: clock.now, claim: { _ in .holds })
        case .served(let member, let frames):
            nodes[index].book.served(member, frames, channel: SimulatedNode.channel)
        default: break
        }
    }

    private mutating func link(_ packet: RepairPacket, from: Int, to: Int, bytes: Int) {
        let at = max(
            cutUntil(from: from, to: to) ?? clock.now + generator.jitter(.microseconds(200), in: 0.5...2),
            nodes[from].linkAt[to] ?? clock.now)
        nodes[from].linkAt[to] = at
        agenda.add(.repair(packet, from: from, to: to, bytes: bytes), at: at)
    }

    private mutating func repair(_ packet: RepairPacket, from: Int, to: Int, _ bytes: Int) {
        if nodes[from].isDead || nodes[to].isDead { return linkEnded(packet, from: from, to: to, bytes) }
        guard clock.now >= nodes[to].pausedUntil else {
            return agenda.add(.repair(packet, from: from, to: to, bytes: bytes), at: nodes[to].pausedUntil)
        }
        if bytes > 0 {
            nodes[from].machine.repairWritten(bytes, to: nodes[to].identity, now: clock.now)
            planService(from, after: .microseconds(10))
        }
        nodes[to].machine.repairReceived(packet, from: nodes[from].identity, now: clock.now)
        planService(to, after: .microseconds(10))
    }

    private mutating func planDrain(_ index: Int) {
        let node = nodes[index]
        guard !node.isDraining, let rate = node.consumerRate, let bytes = node.backlogRecords.first else {
            return
        }
        node.isDraining = true
        agenda.add(.drain(index), at: clock.now + .nanoseconds(Int64(Double(max(1, bytes)) / rate * 1e9)))
    }

    private mutating func drain(_ index: Int) {
        let node = nodes[index]
        node.isDraining = false
        if !node.backlogRecords.isEmpty { node.backlogRecords.removeFirst() }
        node.machine.backlogChanged(bytes: node.backlog, now: clock.now)
        planDrain(index)
        planService(index, after: .microseconds(20))
    }

    private mutating func submit(_ index: Int) {
        let node = nodes[index]
        guard !node.batches.isEmpty, !node.isDead else { return }
        let casts = node.makeCasts(node.batches.removeFirst(), scenario, &generator, now: clock.now)
        oracle.submitted(casts, by: index, now: clock.now)
        node.openReceipts(for: casts, of: listed, now: clock.now)
        node.machine.submit(scenario.isPacked ? packed(casts) : casts, now: clock.now)
        planService(index, after: .microseconds(10))
    }

    /// The same, with neighbours packed as a node packs a batch.
    private func packed(_ casts: [OutboundCast]) -> [OutboundCast] {
        var result: [OutboundCast] = []
        var rest = casts[...]
        while let first = rest.first {
            let alike = rest.enumerated().prefix { offset, cast in
                cast.topic == first.topic && cast.sequence == first.sequence + UInt64(offset)
                    && cast.headers.isEmpty && cast.token == nil
            }
            guard alike.count > 1 else {
                result.append(rest.removeFirst())
                continue
            }
            result += OutboundCast.packing(
                alike.map(\.element.payload)[...], topic: first.topic, first: first.sequence,
                sentAtMicroseconds: first.sentAtMicroseconds)
            rest = rest.dropFirst(alike.count)
        }
        return result
    }
}
