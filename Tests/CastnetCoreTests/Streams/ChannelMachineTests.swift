import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

/// Two machines, handed each other's bytes by the test.
@Suite struct ChannelMachineTests {
    private static let start = Instant(nanoseconds: 1_000_000_000)
    private let topic = Topic(unchecked: "agents.l2")

    private func identity(_ name: String, _ incarnation: UInt64 = 1) -> NodeIdentity {
        NodeIdentity(name: name, incarnation: Incarnation(incarnation))
    }

    private func machine(
        _ name: String, stream: UInt64, rate: Int? = nil, incarnation: UInt64 = 1,
        limits: LimitSettings = LimitSettings(), repair: ChannelSettings.Repair = .pgmOnly,
        digest: UInt64 = 1,
        now: Instant = start
    ) -> ChannelMachine {
        var settings = ChannelSettings(name: "agents", group: "239.192.7.10", port: 7500)
        settings.rate = rate
        settings.repair = repair
        var machine = ChannelMachine(
            settings: settings, limits: limits, identity: identity(name, incarnation), streamID: stream,
            reportAddress: DatagramAddress(address: 0x0A4D_0001, port: 9000), frameSizeMax: 1448,
            receiveBufferBytes: 4 << 20, configurationDigest: digest, seed: 1, now: now)
        machine.listens(replays: false, now: now)
        return machine
    }

    private func cast(
        _ sequence: UInt64, _ payload: ByteBuffer, headers: Headers = Headers(), token: UInt64? = nil
    ) -> OutboundCast {
        OutboundCast(
            topic: topic, sequence: sequence, sentAtMicroseconds: 5, headers: headers, payload: payload,
            token: token)
    }

    private func frames(_ machine: inout ChannelMachine, now: Instant) -> [ByteBuffer] {
        var frames: [ByteBuffer] = []
        var frame = ByteBuffer()
        while machine.nextFrame(into: &frame, now: now) {
            frames.append(frame)
            frame = ByteBuffer()
        }
        return frames
    }

    private func reports(_ machine: inout ChannelMachine, now: Instant) -> [ByteBuffer] {
        var reports: [ByteBuffer] = []
        var report = ByteBuffer()
        while machine.nextReport(into: &report, now: now) != nil {
            reports.append(report)
            report = ByteBuffer()
        }
        return reports
    }

    private func losses(_ machine: inout ChannelMachine) -> [Loss] {
        machine.takeEvents().compactMap { if case .loss(let loss) = $0 { loss } else { nil } }
    }

    @Test("small messages share a frame and arrive as one run")
    func packing() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        sender.submit((1...20).map { cast($0, ByteBuffer(string: "m\($0)")) }, now: Self.start)
        let sent = frames(&sender, now: Self.start)
        #expect(sent.count == 1)
        member.frameReceived(sent[0], now: Self.start)
        let records = member.takeDeliveries()
        #expect(records.count == 1 && records[0].count == 20 && records[0].isRun)
        let got = records.flatMap { Array($0.messages) }
        #expect(got.map(\.sequence) == Array(1...20))
        #expect(got[6].payload == ByteBuffer(string: "m7"))
    }

    @Test("messages that follow a frame closely wait for company, 200 µs at most")
    func packingTime() {
        var sender = machine("a", stream: 1)
        sender.submit([cast(1, ByteBuffer(string: "x"))], now: Self.start)
        #expect(frames(&sender, now: Self.start).count == 1)
        let soon = Self.start + .microseconds(50)
        sender.submit([cast(2, ByteBuffer(string: "y"))], now: soon)
        #expect(frames(&sender, now: soon).isEmpty)
        let deadline = sender.nextDeadline(now: soon)
        #expect(deadline == Self.start + .microseconds(200))
        #expect(frames(&sender, now: Self.start + .microseconds(200)).count == 1)
    }

    @Test("a large message with large headers is cut and put together")
    func chunks() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        var headers = Headers()
        headers["trace"] = String(repeating: "t", count: 4000)
        let payload = ByteBuffer(repeating: 9, count: 60_000)
        sender.submit([cast(1, payload, headers: headers)], now: Self.start)
        for frame in frames(&sender, now: Self.start) { member.frameReceived(frame, now: Self.start) }
        let records = member.takeDeliveries()
        #expect(records.count == 1 && records[0].body == payload && records[0].headers == headers)
        #expect(member.heldBytes == 0)
    }

    @Test("a hole is a loss with its range; what was cut by it is dropped, duplicates are not delivered")
    func hole() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        sender.submit([cast(1, ByteBuffer(repeating: 1, count: 10_000))], now: Self.start)
        let sent = frames(&sender, now: Self.start)
        for (index, frame) in sent.enumerated() where index != 2 && index != 3 {
            member.frameReceived(frame, now: Self.start)
            member.frameReceived(frame, now: Self.start)
        }
        let lost = losses(&member)
        #expect(lost.map { [$0.first, $0.last] } == [[3, 4]] && lost.first?.from == "a")
        #expect(member.takeDeliveries().isEmpty)
        #expect(member.heldBytes == 0)
        #expect(member.counters[.streamDuplicates] == UInt64(sent.count - 2))
        #expect(member.counters[.streamMessagesCut] == 1)
    }

    @Test("a lost tail is noticed by the next head, once")
    func tail() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        sender.submit([cast(1, ByteBuffer(string: "x"))], now: Self.start)
        for frame in frames(&sender, now: Self.start) { member.frameReceived(frame, now: Self.start) }
        let later = Self.start + .milliseconds(1)
        sender.submit([cast(2, ByteBuffer(string: "y"))], now: later)
        #expect(frames(&sender, now: later).count == 1)
        var found: [Loss] = []
        for milliseconds in [10, 21, 51, 101, 201, 501] {
            let now = later + .milliseconds(milliseconds)
            for frame in frames(&sender, now: now) { member.frameReceived(frame, now: now) }
            found += losses(&member)
        }
        #expect(found.map { [$0.first, $0.last] } == [[2, 2]])
        #expect(sender.counters[.streamHeadsSent] == 5)
    }

    @Test("who listens since before a stream began is owed its first frames, who came later is not")
    func beginnings() {
        var early = machine("b", stream: 2)
        var sender = machine("a", stream: 1)
        sender.submit((1...3).map { cast($0, ByteBuffer(repeating: 1, count: 1300)) }, now: Self.start)
        let sent = frames(&sender, now: Self.start)
        for frame in sent.dropFirst(2) { early.frameReceived(frame, now: Self.start) }
        #expect(losses(&early).map { [$0.first, $0.last] } == [[1, 2]])
        let later = Self.start + .seconds(2)
        var newcomer = machine("c", stream: 3, now: later)
        sender.submit([cast(4, ByteBuffer(string: "x"))], now: later)
        for frame in frames(&sender, now: later) { newcomer.frameReceived(frame, now: later) }
        #expect(losses(&newcomer).isEmpty)
        let first = newcomer.takeDeliveries().first?.firstSequence
        #expect(first == 4)
    }

    @Test("a stream that fell silent for long goes on where it was, and says what is missing")
    func silence() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        sender.submit([cast(1, ByteBuffer(string: "x"))], now: Self.start)
        for frame in frames(&sender, now: Self.start) { member.frameReceived(frame, now: Self.start) }
        let later = Self.start + .seconds(60)
        member.timerFired(now: later)
        #expect(
            member.takeEvents().contains { if case .streamEnded = $0 { true } else { false } })
        sender.submit((2...3).map { cast($0, ByteBuffer(repeating: 1, count: 1300)) }, now: later)
        for frame in frames(&sender, now: later).dropFirst() { member.frameReceived(frame, now: later) }
        #expect(losses(&member).map { [$0.first, $0.last] } == [[2, 2]])
    }

    @Test("the sender stops at the smallest budget, names who says nothing, and goes on")
    func window() {
        var sender = machine("a", stream: 1)
        sender.membersChanged([identity("b")], now: Self.start)
        sender.submit([cast(1, ByteBuffer(repeating: 1, count: 1 << 20))], now: Self.start)
        let trusted = frames(&sender, now: Self.start).count
        #expect((1...64).contains(trusted), "nobody has said yet what it can take")
        var report = Report(member: identity("b"), subscriptionEpoch: 1)
        report.streams = [
            .init(streamID: 1, received: 10, limit: UInt64(trusted) + 6, processed: 10, gaps: 0)
        ]
        var datagram = ByteBuffer()
        report.write(into: &datagram)
        let now = Self.start + .milliseconds(1)
        sender.reportReceived(datagram, from: DatagramAddress(address: 1, port: 1), now: now)
        #expect(frames(&sender, now: now).count == 5)
        let late = now + .milliseconds(1300)
        sender.timerFired(now: late)
        let events = sender.takeEvents()
        #expect(
            events.contains {
                if case .memberPath(let who, .stalled) = $0 { who == identity("b") } else { false }
            })
        #expect(!frames(&sender, now: late).isEmpty)
    }

    @Test("a full subscription closes the budget, and draining opens it by itself")
    func backlog() throws {
        var limits = LimitSettings()
        limits.subscriptionBacklog = 1 << 20
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2, limits: limits)
        sender.submit([cast(1, ByteBuffer(string: "x"))], now: Self.start)
        for frame in frames(&sender, now: Self.start) { member.frameReceived(frame, now: Self.start) }
        member.backlogChanged(bytes: 1 << 20, now: Self.start)
        var now = Self.start
        var told = try reports(&member, now: now).map { try Report(reading: $0).streams[0] }
        now = now + .milliseconds(120)
        member.timerFired(now: now)
        told += try reports(&member, now: now).map { try Report(reading: $0).streams[0] }
        #expect(told.last.map { $0.limit == $0.received } == true, "\(told)")
        now = now + .milliseconds(1)
        member.backlogChanged(bytes: 0, now: now)
        let opened = try reports(&member, now: now).map { try Report(reading: $0).streams[0] }
        #expect(opened.last.map { $0.limit > $0.received + 100 } == true, "\(opened)")
    }

    @Test("receipts hear when a message ended and how far members are")
    func tokens() {
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2)
        sender.membersChanged([identity("b")], now: Self.start)
        sender.submit([cast(1, ByteBuffer(string: "x"), token: 42)], now: Self.start)
        for frame in frames(&sender, now: Self.start) { member.frameReceived(frame, now: Self.start) }
        let now = Self.start + .milliseconds(2)
        for report in reports(&member, now: now) {
            sender.reportReceived(report, from: DatagramAddress(address: 1, port: 1), now: now)
        }
        var sent: UInt64?
        var received: UInt64?
        for event in sender.takeEvents() {
            if case .sent(42, let frame) = event { sent = frame }
            if case .position(let who, let progress) = event, who == identity("b") {
                received = progress.position.received
            }
        }
        #expect(sent == 1 && received == 2)
        let isSettled = sender.isSettled
        #expect(isSettled)
    }

    @Test("a newer incarnation ends the older stream, another configuration is named once")
    func incarnations() {
        var member = machine("b", stream: 2)
        for (stream, incarnation) in [(UInt64(10), UInt64(1)), (11, 2)] {
            var sender = machine("a", stream: stream, incarnation: incarnation, digest: 3)
            sender.submit([cast(1, ByteBuffer(repeating: 1, count: 3000))], now: Self.start)
            let sent = frames(&sender, now: Self.start)
            for frame in incarnation == 1 ? sent.dropLast() : sent[...] {
                member.frameReceived(frame, now: Self.start)
            }
        }
        var (ended, reasons, differing) = ([UInt64](), [Loss.Reason](), 0)
        for event in member.takeEvents() {
            switch event {
            case .streamEnded(let stream, _): ended.append(stream)
            case .loss(let loss): reasons.append(loss.reason)
            case .digestDiffers: differing += 1
            default: break
            }
        }
        #expect(ended == [10] && reasons == [.senderGone] && differing == 2)
        #expect(member.takeDeliveries().count == 1 && member.heldBytes == 0)
    }

    @Test("no bytes make a machine trap or hold more than its limits")
    func fuzz() {
        var limits = LimitSettings()
        limits.memory = 4 << 20
        limits.message = 1 << 20
        var sender = machine("a", stream: 1)
        var member = machine("b", stream: 2, limits: limits)
        sender.submit(
            [cast(1, ByteBuffer(string: "x")), cast(2, ByteBuffer(repeating: 1, count: 5000))],
            now: Self.start)
        let sent = frames(&sender, now: Self.start)
        for frame in sent { member.frameReceived(frame, now: Self.start) }
        let words = reports(&member, now: Self.start + .milliseconds(5))
        var generator = SeededGenerator(seed: 4711)
        var now = Self.start
        for round in 0..<60_000 {
            now = now + .microseconds(Int.random(in: 0...50_000, using: &generator))
            var input = round % 4 == 0 ? words[0] : sent[round % sent.count]
            for _ in 0..<Int.random(in: 0...4, using: &generator) {
                let word = generator.next()
                // Mostly the header and the record heads: payload bytes decide nothing.
                let at = Int(word % UInt64(min(input.readableBytes, 110)))
                input.setInteger(UInt8(truncatingIfNeeded: word >> 32), at: at)
            }
            if round % 4 == 0 {
                sender.reportReceived(input, from: DatagramAddress(address: 1, port: 1), now: now)
                sender.timerFired(now: now)
                _ = sender.nextDeadline(now: now)
                _ = frames(&sender, now: now)
            } else {
                member.frameReceived(input, now: now)
                member.timerFired(now: now)
                _ = reports(&member, now: now)
                _ = member.nextDeadline(now: now)
                #expect(member.heldBytes <= limits.memory / 4)
                _ = member.takeDeliveries()
                _ = member.takeEvents()
            }
        }
    }

    // MARK: Repair over TCP

    private func wanted(_ machine: inout ChannelMachine) -> [ClosedRange<UInt64>] {
        machine.takeEvents().flatMap { event -> [ClosedRange<UInt64>] in
            if case .repairWanted(_, _, let ranges) = event { ranges } else { [] }
        }
    }

    private func answers(_ machine: inout ChannelMachine) -> [RepairPacket] {
        machine.takeEvents().compactMap {
            if case .repairAnswer(let packet, _, _) = $0 { packet } else { nil }
        }
    }

    /// One message a frame, so that frames can be left out.
    private func sendOnePerFrame(_ count: Int, _ sender: inout ChannelMachine, from start: Instant)
        -> [ByteBuffer]
    {
        var all: [ByteBuffer] = []
        for number in 1...count {
            sender.submit([cast(UInt64(number), ByteBuffer(repeating: 7, count: 1000))], now: start)
            all += frames(&sender, now: start + .milliseconds(Int64(number)))
        }
        return all
    }

    @Test("a hole is asked for once it stays, filled from the sender's ring, and nothing is delivered before")
    func repair() {
        var sender = machine("a", stream: 1, repair: .tcp)
        var member = machine("b", stream: 2, repair: .tcp)
        let frames = sendOnePerFrame(6, &sender, from: Self.start)
        var now = Self.start + .milliseconds(50)
        for index in [0, 1, 4, 5] { member.frameReceived(frames[index], now: now) }
        #expect(member.takeDeliveries().map(\.firstSequence) == [1, 2])
        member.timerFired(now: now)
        now = now + .milliseconds(30)
        member.timerFired(now: now)
        #expect(wanted(&member) == [3...4])
        member.timerFired(now: now + .milliseconds(500))
        #expect(wanted(&member) == [], "asked already")
        sender.repairReceived(.request(stream: 1, [3...4]), from: identity("b"), now: now)
        sender.serveRepairs(now: now)
        for packet in answers(&sender) { member.repairReceived(packet, from: identity("a"), now: now) }
        let repaired = member.takeDeliveries()
        #expect(repaired.map(\.firstSequence) == [3, 4, 5, 6])
        #expect(repaired.map(\.repaired) == [.tcp, .tcp, .none, .none])
        #expect(member.counters[.streamRepairedTCP] == 2 && member.counters[.streamLost] == 0)
        #expect(member.heldBytes == 0 && !member.isRepairing)
    }

    @Test("what came of a sender that ends while a member asks it for its place is delivered")
    func endsWhileJoining() {
        var sender = machine("a", stream: 1, repair: .tcp)
        let frames = sendOnePerFrame(6, &sender, from: Self.start)
        let now = Self.start + .seconds(1)
        var member = machine("b", stream: 2, repair: .tcp, now: now)
        for frame in frames.dropFirst(3) { member.frameReceived(frame, now: now) }
        #expect(member.takeDeliveries().isEmpty)
        var successor = machine("a", stream: 9, incarnation: 2, repair: .tcp)
        let first = sendOnePerFrame(1, &successor, from: now)[0]
        member.frameReceived(first, now: now + .milliseconds(100))
        #expect(Set(member.takeDeliveries().map(\.firstSequence)).isSuperset(of: [4, 5, 6]))
        #expect(losses(&member).isEmpty && member.heldBytes == 0)
    }

    @Test("frames said to come from another, or that nobody asked for, change nothing")
    func forged() {
        var sender = machine("a", stream: 1, repair: .tcp)
        var member = machine("b", stream: 2, repair: .tcp)
        let now = Self.start + .milliseconds(50)
        let frames = sendOnePerFrame(4, &sender, from: Self.start)
        for index in [0, 3] { member.frameReceived(frames[index], now: now) }
        _ = member.takeDeliveries()
        var packet = ByteBuffer()
        packet.writeInteger(UInt16(frames[1].readableBytes))
        packet.writeImmutableBuffer(frames[1])
        member.repairReceived(.frames(stream: 1, packet), from: identity("c"), now: now)
        member.repairReceived(.gone(stream: 1, 2...3), from: identity("c"), now: now)
        member.repairReceived(.frames(stream: 9, packet), from: identity("a"), now: now)
        member.repairReceived(
            .frames(stream: 1, ByteBuffer(bytes: [0, 9, 1])), from: identity("a"), now: now)
        #expect(member.takeDeliveries().isEmpty && losses(&member).isEmpty)
        #expect(member.counters[.streamRepairsRefused] == 3)
        // The sender refuses what it never sent.
        sender.repairReceived(.request(stream: 1, [5...9]), from: identity("b"), now: now)
        sender.serveRepairs(now: now)
        #expect(answers(&sender).isEmpty && sender.counters[.streamRepairsRefused] == 1)
    }

    @Test("what the sender no longer keeps is lost with its range on both sides, and the stream goes on")
    func gone() {
        var sender = machine("a", stream: 1, repair: .tcp)
        var member = machine("b", stream: 2, repair: .tcp)
        let frames = sendOnePerFrame(4, &sender, from: Self.start)
        let later = Self.start + .seconds(40)
        sender.timerFired(now: later)
        for index in [0, 3] { member.frameReceived(frames[index], now: Self.start + .milliseconds(10)) }
        sender.repairReceived(.request(stream: 1, [2...3]), from: identity("b"), now: later)
        sender.serveRepairs(now: later)
        var packets: [RepairPacket] = []
        var declared: [Loss] = []
        for event in sender.takeEvents() {
            if case .repairAnswer(let packet, _, _) = event { packets.append(packet) }
            if case .loss(let loss) = event { declared.append(loss) }
        }
        #expect(packets == [.gone(stream: 1, 2...3)])
        #expect(declared.map(\.member) == ["b"] && declared.map(\.count) == [2])
        member.repairReceived(packets[0], from: identity("a"), now: later)
        #expect(member.takeDeliveries().map(\.firstSequence) == [1, 4])
        let lost = losses(&member)
        #expect(lost.map { [$0.first, $0.last] } == [[2, 3]] && lost.first?.reason == .beyondRetention)
    }

    @Test("a hole that nobody fills for as long as frames are kept is given up")
    func hopeless() {
        var sender = machine("a", stream: 1, repair: .tcp)
        var member = machine("b", stream: 2, repair: .tcp)
        let frames = sendOnePerFrame(3, &sender, from: Self.start)
        for index in [0, 2] { member.frameReceived(frames[index], now: Self.start) }
        var asked = 0
        var now = Self.start
        // Somebody keeps the stream known.
        while now < Self.start + .seconds(31) {
            now = now + .milliseconds(100)
            member.frameReceived(frames[2], now: now)
            member.timerFired(now: now)
            for event in member.takeEvents() {
                if case .repairWanted(let stream, _, _) = event {
                    asked += 1
                    member.repairFailed(stream, now: now)
                }
            }
        }
        #expect(asked > 5 && asked < 40, "\(asked) requests")
        #expect(member.takeDeliveries().map(\.firstSequence) == [1, 3])
        #expect(member.counters[.streamLost] == 1)
    }
}
