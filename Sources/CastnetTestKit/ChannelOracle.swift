internal import CastnetCore
internal import NIOCore

/// Knows every message, every frame and who could not get which; finds whatever does not fit together.
struct ChannelOracle {
    private struct Message {
        var size: Int
        var headers: Headers
        var submittedAt: Instant
        var sentAt: Instant?
        var firstFrame: UInt64?
        var lastFrame: UInt64?
    }
    private struct Lane: Hashable {
        var sender: Int
        var topic: Topic
    }
    private struct Pair: Hashable {
        var sender: Int
        var member: Int
    }

    private var nodes: Int
    /// Nodes that were killed, and nodes that took their place.
    private var dead: Set<Int> = []
    private var joined: [Int: Instant] = [:]
    private var messages: [Lane: [Message]] = [:]
    /// Which message a chunk's number means.
    private var chunked: [[UInt64]: (Lane, UInt64)] = [:]
    private var decoder = FrameDecoder()
    /// Frames that never reached the member, by sender.
    private var missing: [Pair: Set<UInt64>] = [:]
    private var losses: [Pair: [Loss]] = [:]
    /// The first frame a member read of a sender.
    private var starts: [Pair: UInt64] = [:]
    private var nextNumber: [Int: UInt64] = [:]
    /// What a member has, per lane: the last sequence and all sequences.
    private var heard: [Int: [Lane: Set<UInt64>]] = [:]
    private var lastHeard: [Int: [Lane: UInt64]] = [:]
    /// The highest limit each member has told each stream.
    private var told: [Pair: UInt64] = [:]
    /// What a member has handled of what senders asked about.
    private var handled: [Int: [Lane: Set<UInt64>]] = [:]
    /// Rows of receipts that do not say that the member has the message.
    private var unconfirmed: [String] = []
    private var now = Instant(nanoseconds: 0)
    /// Members that a sender does not wait for, for one reason and the other.
    private var unawaited: Set<Pair> = []
    private var deaf: Set<Pair> = []
    private var faults: [String] = []

    init(nodes: Int) { self.nodes = nodes }

    private mutating func fault(_ text: String) { if faults.count < 20 { faults.append(text) } }

    private func sender(_ stream: UInt64) -> Int { Int(stream - 0x1000) }

    // MARK: Nodes that come and go

    mutating func crashed(_ node: Int) { dead.insert(node) }
    mutating func joined(_ node: Int, now: Instant) {
        nodes = max(nodes, node + 1)
        joined[node] = now
    }

    // MARK: Sending

    mutating func submitted(_ casts: [OutboundCast], by sender: Int, now: Instant) {
        for cast in casts {
            messages[Lane(sender: sender, topic: cast.topic), default: []].append(
                Message(size: cast.payload.readableBytes, headers: cast.headers, submittedAt: now))
        }
    }

    /// True when the frame is one that was not sent before.
    mutating func sent(_ frame: ByteBuffer, by sender: Int, frameSizeMax: Int, now: Instant) -> Bool {
        self.now = now
        let before = nextNumber[sender]
        judge(frame, sentBy: sender, frameSizeMax: frameSizeMax)
        return nextNumber[sender] != before
    }

    private mutating func judge(_ frame: ByteBuffer, sentBy sender: Int, frameSizeMax: Int) {
        guard let decoded = try? decoder.decode(frame) else { return fault("node \(sender) sent garbage") }
        if frame.readableBytes > frameSizeMax { fault("a frame of \(frame.readableBytes) bytes") }
        let number = decoded.header.sequence
        let expected = nextNumber[sender] ?? 1
        // A frame that several members miss is sent once more as it was.
        if number < expected, !decoded.header.isHead { return }
        if number != expected { fault("node \(sender) sent frame \(number), not \(expected)") }
        if decoded.header.isHead { return }
        nextNumber[sender] = number + 1
        for record in decoded.records {
            switch record {
            case .run(let run):
                for offset in 0..<UInt64(run.count) {
                    place(Lane(sender: sender, topic: run.topic), run.firstSequence + offset, number)
                }
            case .chunk(let chunk):
                if let start = chunk.start {
                    chunked[[UInt64(sender), chunk.number]] =
                        (Lane(sender: sender, topic: start.topic), start.sequence)
                }
                guard let (lane, sequence) = chunked[[UInt64(sender), chunk.number]] else {
                    fault("a chunk without a start")
                    continue
                }
                place(lane, sequence, number)
            case .announce, .head: break
            }
        }
        for member in 0..<nodes where member != sender && !dead.contains(member) {
            // Before the first report the member has promised nothing; the sender has its own small trust.
            let pair = Pair(sender: sender, member: member)
            guard let limit = told[pair], !unawaited.contains(pair), !deaf.contains(pair) else { continue }
            if number >= limit + 64 {
                fault("frame \(number) is beyond the limit \(limit) of node \(member)")
            }
        }
    }

    private mutating func place(_ lane: Lane, _ sequence: UInt64, _ frame: UInt64) {
        guard var list = messages[lane], sequence >= 1, sequence <= list.count else {
            return fault("a message nobody submitted: \(lane.topic) \(sequence)")
        }
        let index = Int(sequence) - 1
        if list[index].firstFrame == nil { list[index].firstFrame = frame }
        list[index].sentAt = now
        list[index].lastFrame = frame
        messages[lane] = list
    }

    // MARK: Receiving

    mutating func dropped(_ frame: ByteBuffer, from sender: Int, at member: Int) {
        guard let header = try? decoder.decode(frame).header, !header.isHead else { return }
        missing[Pair(sender: sender, member: member), default: []].insert(header.sequence)
    }

    mutating func reads(_ frame: ByteBuffer, at member: Int) {
        guard let header = try? decoder.decode(frame).header else { return }
        let pair = Pair(sender: sender(header.streamID), member: member)
        if starts[pair] == nil { starts[pair] = header.sequence }
    }

    mutating func reported(_ report: ByteBuffer) {
        guard let decoded = try? Report(reading: report), report.readableBytes <= Report.sizeMax else {
            return fault("a bad report")
        }
        let member = decoded.member.place
        for stream in decoded.streams {
            let pair = Pair(sender: sender(stream.streamID), member: member)
            if let before = told[pair], stream.limit < before { fault("node \(member) took a limit back") }
            told[pair] = max(told[pair] ?? 0, stream.limit)
        }
    }

    mutating func delivered(_ record: InboundRecord, at member: Int) {
        let sender = record.from.place
        let lane = Lane(sender: sender, topic: record.topic)
        var count = 0
        for (sequence, payload) in record.messages {
            count += 1
            guard let list = messages[lane], sequence >= 1, sequence <= list.count else {
                fault("node \(member) got \(lane.topic) \(sequence), which nobody sent")
                continue
            }
            let message = list[Int(sequence) - 1]
            if sequence <= lastHeard[member]?[lane] ?? 0 {
                fault("node \(member) got \(lane.topic) \(sequence) again or out of order")
            }
            if let joinedAt = joined[member], let sentAt = message.sentAt,
                sentAt + .milliseconds(20) < joinedAt
            {
                fault("node \(member) got \(lane.topic) \(sequence) of \(sender), sent before it listened")
            }
            lastHeard[member, default: [:]][lane] = sequence
            heard[member, default: [:]][lane, default: []].insert(sequence)
            if payload != SimulatedNode.payload(sender, record.topic, sequence, message.size) {
                fault("node \(member) got other bytes in \(lane.topic) \(sequence)")
            }
            if record.headers != message.headers { fault("node \(member) got other headers") }
        }
        if count != record.count { fault("a record of \(record.count) had \(count)") }
    }

    mutating func happened(
        _ events: [StreamEvent], at member: Int, outcome: inout ChannelSimulation.Outcome
    ) {
        for event in events {
            switch event {
            case .loss(let loss) where loss.member == nil:
                outcome.lost += loss.count
                losses[Pair(sender: sender(loss.stream), member: member), default: []].append(loss)
            case .memberPath(let peer, let reason):
                let pair = Pair(sender: member, member: peer.place)
                switch reason {
                case .stalled, .evicted: unawaited.insert(pair)
                case .notHeard: deaf.insert(pair)
                case .heard: deaf.remove(pair)
                case .caughtUp:
                    outcome.caughtUp += 1
                    unawaited.remove(pair)
                }
            default: break
            }
        }
    }

    mutating func handled(_ record: InboundRecord, at member: Int) {
        let lane = Lane(sender: record.from.place, topic: record.topic)
        handled[member, default: [:]][lane, default: []].insert(record.firstSequence)
    }

    /// A receipt is closed: what it says is held against what was delivered.
    mutating func closed(_ receipt: ReceiptBook.Finished, of node: SimulatedNode) {
        guard let subject = node.receipts[receipt.token] else { return fault("a receipt nobody opened") }
        let (topic, sequence, settle) = (subject.topic, subject.sequence, subject.settle)
        let truth = settle == .processed ? handled : heard
        if receipt.rows.count != subject.members { fault("a receipt of \(receipt.rows.count) rows") }
        let lane = Lane(sender: node.index, topic: topic)
        for row in receipt.rows {
            let member = row.node.place
            guard row.outcome.isDelivered else {
                if !dead.contains(member), !node.isDead {
                    unconfirmed.append(
                        "\(settle) \(topic) \(sequence) of \(node.index) at \(member): \(row.outcome)")
                }
                continue
            }
            guard truth[member]?[lane]?.contains(sequence) != true else { continue }
            fault("a receipt says that node \(member) has \(settle) \(topic) \(sequence), which is not so")
        }
    }

    // MARK: Judgement

    mutating func judge(
        nodes list: [SimulatedNode], outcome: inout ChannelSimulation.Outcome, lossless: Bool,
        mayOverflow: Bool
    ) {
        for (lane, sent) in messages where !dead.contains(lane.sender) {
            for member in 0..<nodes where member != lane.sender && !dead.contains(member) {
                let pair = Pair(sender: lane.sender, member: member)
                let start = starts[pair] ?? .max
                let got = heard[member]?[lane] ?? []
                for (index, message) in sent.enumerated() where !got.contains(UInt64(index) + 1) {
                    guard let first = message.firstFrame, let last = message.lastFrame else {
                        fault("\(lane.topic) \(index + 1) was never sent")
                        continue
                    }
                    let isCovered = (losses[pair] ?? []).contains { $0.first <= last && $0.last >= first }
                    if isCovered || first < start && !lossless { continue }
                    if let joinedAt = joined[member], message.submittedAt < joinedAt { continue }
                    fault(
                        "node \(member) misses \(lane.topic) \(index + 1), frames \(first)-\(last), silently")
                }
            }
        }
        for (pair, declared) in losses {
            if lossless, !dead.contains(pair.sender), !dead.contains(pair.member) {
                fault("node \(pair.member) lost \(declared.count) ranges of node \(pair.sender)")
            }
            let dropped = missing[pair] ?? []
            // A large message that its sender did not finish may have begun before an earlier loss.
            let sorted = declared.filter { $0.reason != .senderGone }.sorted { $0.first < $1.first }
            for (earlier, later) in zip(sorted, sorted.dropFirst()) where later.first <= earlier.last {
                fault("node \(pair.member) declared \(earlier.first)-\(earlier.last) and \(later.first) lost")
            }
            // A member without room refuses frames, and has them by repair unless their sender is gone.
            var refused = list[pair.member].machine.counters[.streamOverruns]
            for loss in declared where loss.reason == .unrepaired {
                for frame in loss.first...loss.last where !dropped.contains(frame) {
                    if refused > 0 {
                        refused -= 1
                        continue
                    }
                    fault("node \(pair.member) declared frame \(frame) lost, which it was given")
                }
            }
        }
        if lossless, let first = unconfirmed.first {
            fault("\(unconfirmed.count) rows of receipts say nothing of what came, such as \(first)")
        }
        if lossless, !mayOverflow, outcome.overflows > 0 {
            fault("\(outcome.overflows) frames found a full socket buffer")
        }
        for node in list where node.machine.heldBytes != 0 && lossless && dead.isEmpty {
            fault("node \(node.index) still holds \(node.machine.heldBytes) bytes")
        }
        outcome.faults += faults
    }
}
