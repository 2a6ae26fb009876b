import CastnetTestKit
import Testing

@testable import CastnetCore

/// When libpgm may be given several packets in one call: while it misses nothing of any stream.
@Suite struct AdmissionWholeTests {
    private typealias Kit = AdmissionTests
    private static let other = PGMPackets(
        tsi: 0xb1b2_b3b4_b5b7_3333, dataPort: 7500, source: 0x0a00_0003, group: Kit.group)

    private func receive(
        _ machine: inout Admission, _ packet: [UInt8], from peer: PGMPackets = Kit.peer,
        _ now: Instant = Kit.start
    ) -> Admission.Verdict {
        machine.received(packet.span, Kit.arrival(peer.source), now: now)
    }

    private func expect(
        _ machine: borrowing Admission, isWhole: Bool, at location: SourceLocation = #_sourceLocation
    ) {
        let found = machine.isWhole
        #expect(found == isWhole, sourceLocation: location)
    }

    @Test func `a stream is whole once its newest packet was delivered, until one is skipped`() {
        var machine = Kit.admission()
        expect(machine, isWhole: true)
        _ = receive(&machine, Kit.peer.data(7, trail: 7))
        expect(machine, isWhole: false)
        #expect(receive(&machine, Kit.peer.data(8, trail: 7)) == .admit)
        machine.delivered(Kit.peer.tsi, 7, now: Kit.start)
        expect(machine, isWhole: false)
        machine.delivered(Kit.peer.tsi, 8, now: Kit.start)
        expect(machine, isWhole: true)
        #expect(receive(&machine, Kit.peer.data(9, trail: 7)) == .admitNext)
        #expect(receive(&machine, Kit.peer.data(11, trail: 7)) == .admit)
        expect(machine, isWhole: false)
        #expect(receive(&machine, Kit.peer.data(10, trail: 7, isRepair: true)) == .admit)
        machine.delivered(Kit.peer.tsi, 11, now: Kit.start)
        #expect(receive(&machine, Kit.peer.data(12, trail: 7)) == .admitNext)
        #expect(receive(&machine, Kit.peer.data(12, trail: 7)) == .admit, "once more")
    }

    @Test func `a head goes alone, so that libpgm can forget who sends no more`() {
        var machine = Kit.admission()
        _ = receive(&machine, Kit.peer.data(7, trail: 7))
        machine.delivered(Kit.peer.tsi, 7, now: Kit.start)
        func payload(_ flags: UInt8) -> [UInt8] { [0xff, 0xff, 0x43, 0x4e, FrameWire.version, flags] }
        #expect(receive(&machine, Kit.peer.data(8, trail: 7, payload: payload(0))) == .admitNext)
        let head = Kit.peer.data(9, trail: 7, payload: payload(FrameWire.headFlag))
        #expect(receive(&machine, head) == .admit)
        expect(machine, isWhole: true)
        #expect(receive(&machine, Kit.peer.data(10, trail: 7, payload: payload(0))) == .admitNext)
    }

    @Test func `an SPM that tells of more, another stream, and doubt end it`() {
        var machine = Kit.admission()
        _ = receive(&machine, Kit.peer.data(7, trail: 7))
        machine.delivered(Kit.peer.tsi, 7, now: Kit.start)
        #expect(receive(&machine, Kit.peer.spm(1, trail: 7, lead: 7)) == .admit)
        expect(machine, isWhole: true)
        #expect(receive(&machine, Kit.peer.spm(2, trail: 7, lead: 8)) == .admit)
        expect(machine, isWhole: false)
        _ = receive(&machine, Kit.peer.data(8, trail: 7))
        machine.delivered(Kit.peer.tsi, 8, now: Kit.start)
        expect(machine, isWhole: true)
        _ = receive(&machine, Self.other.data(1, trail: 1), from: Self.other)
        #expect(receive(&machine, Kit.peer.data(9, trail: 7)) == .admit)
        machine.delivered(Self.other.tsi, 1, now: Kit.start)
        #expect(receive(&machine, Kit.peer.data(10, trail: 7)) == .admitNext)
        machine.doubt()
        #expect(receive(&machine, Kit.peer.data(11, trail: 7)) == .admit)
    }

    @Test func `a stream that broke off is forgotten, and the others are whole again`() {
        var machine = Kit.admission { $0.peerExpiry = .seconds(10) }
        _ = receive(&machine, Self.other.data(1, trail: 1), from: Self.other)
        _ = receive(&machine, Self.other.data(3, trail: 1), from: Self.other)
        var now = Kit.start
        for number in 1...30 as ClosedRange<UInt32> {
            now = now + .seconds(1)
            _ = receive(&machine, Kit.peer.data(number, trail: 1), now)
            machine.delivered(Kit.peer.tsi, number, now: now)
        }
        expect(machine, isWhole: true)
    }

    /// Packets lost, doubled and late, with SPMs and NCFs between; libpgm delivers what it can in between.
    @Test(arguments: 0..<100 as Range<UInt64>)
    func `whenever a packet is next nothing is missing`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var machine = Kit.admission()
        let peers = [Kit.peer, Self.other]
        var sent: [UInt32] = [UInt32.max - 20, 100]
        var given: [Set<UInt32>] = [[], []]
        var first: [UInt32?] = [nil, nil]
        var known = sent
        var next = 0
        for step in 0..<600 {
            let index = Int.random(in: 0...1, using: &generator)
            let now = Kit.start + .microseconds(Int64(step * 100))
            let peer = peers[index]
            let isSPM = Int.random(in: 0..<20, using: &generator) == 0
            let isOld = Int.random(in: 0..<8, using: &generator) == 0
            let number = isOld ? sent[index] &- UInt32.random(in: 0...5, using: &generator) : sent[index] &+ 1
            if !isOld { sent[index] = number }
            if Int.random(in: 0..<15, using: &generator) == 0 { continue }
            let packet =
                isSPM
                ? peer.spm(UInt32(step), trail: number &- 30, lead: sent[index])
                : peer.data(number, trail: number &- 30, isRepair: isOld)
            let verdict = receive(&machine, packet, from: peer, now)
            switch verdict {
            case .reject, .only: continue
            case .admit, .admitNext, .admitAfter: break
            }
            if isSPM {
                known[index] = sent[index]
            } else {
                first[index] = first[index] ?? number
                given[index].insert(number)
                if Int32(bitPattern: number &- known[index]) > 0 { known[index] = number }
            }
            if verdict == .admitNext {
                next += 1
                for index in 0...1 {
                    guard let first = first[index] else { continue }
                    let missing = (0...(known[index] &- first)).filter {
                        !given[index].contains(first &+ $0)
                    }
                    #expect(missing.isEmpty, "seed \(seed), step \(step): \(missing)")
                }
            }
            // libpgm delivers up to the first hole.
            for index in 0...1 where Int.random(in: 0..<2, using: &generator) == 0 {
                guard var at = first[index] else { continue }
                while given[index].contains(at &+ 1) { at &+= 1 }
                machine.delivered(peers[index].tsi, at, now: now)
            }
        }
        #expect(next > 0 || seed > 0)
    }
}
