import CastnetTestKit
import Testing

@testable import CastnetCore

/// Requests for repair, own packets, and bytes that are nothing.
@Suite struct AdmissionRequestTests {
    private typealias Base = AdmissionTests
    private let start = AdmissionTests.start

    private func sender(lead: UInt32, trail: UInt32) -> Admission {
        var machine = Base.admission()
        _ = machine.sending(Base.own.data(lead, trail: trail).span, now: start)
        return machine
    }

    @Test func `NAKs are for numbers of the own window, and not twice within the hold-off`() {
        for trail: UInt32 in [100, UInt32.max - 3] {
            var machine = sender(lead: trail &+ 50, trail: trail)
            func ask(_ offsets: [UInt32], _ now: Instant) -> Admission.Verdict {
                machine.received(
                    Base.own.nak(offsets.map { trail &+ $0 }).span,
                    Base.arrival(to: Base.own.source, isOnSend: true), now: now)
            }
            let results = [
                ask([0], start), ask([0], start), ask([0, 1, 2], start), ask([1, 2], start), ask([51], start),
                ask([UInt32.max], start), ask([51, 50], start),
                ask([0], start + .milliseconds(20)),
            ]
            #expect(
                results == [
                    .admit, .reject(.holdoff), .admit, .reject(.holdoff), .reject(.numbers),
                    .reject(.numbers), .admit, .admit,
                ])
        }
    }

    @Test func `before any data there is nothing to repair`() {
        var machine = Base.admission()
        let verdict = machine.received(Base.own.nak([0]).span, Base.arrival(), now: start)
        #expect(verdict == .reject(.numbers))
    }

    @Test func `NAKs that name another source or group are refused`() {
        var machine = sender(lead: 5, trail: 0)
        for change: WritableKeyPath<PGMPackets, UInt32> in [\.source, \.group] {
            var wrong = Base.own
            wrong[keyPath: change] += 1
            let verdict = machine.received(wrong.nak([1]).span, Base.arrival(), now: start)
            #expect(verdict == .reject(.destination))
        }
    }

    @Test func `a flood of NAKs runs out of budget`() {
        var machine = Base.admission { $0.repairs = TokenBucket(capacity: 630, perSecond: 1000) }
        _ = machine.sending(Base.own.data(1000, trail: 0).span, now: start)
        var admitted = 0
        for round in 0..<15 {
            let first = UInt32(round * 63)
            let verdict = machine.received(
                Base.own.nak(Array(first..<first + 63)).span, Base.arrival(), now: start)
            if verdict == .admit { admitted += 1 }
        }
        #expect(admitted == 10)
        #expect(machine.counters[.pgmRejectedRate] == 5)
    }

    @Test func `one SPM request in ten milliseconds`() {
        var machine = sender(lead: 5, trail: 0)
        let verdicts = [0, 9, 10, 12].map { pause in
            machine.received(
                Base.own.spmr().span, Base.arrival(), now: start + .milliseconds(Int64(pause)))
        }
        #expect(verdicts == [.admit, .reject(.rate), .admit, .reject(.rate)])
    }

    @Test func `confirmations name what is known of the stream`() {
        var machine = Base.admission()
        _ = machine.received(Base.peer.data(2000, trail: 1000).span, Base.arrival(), now: start)
        let verdicts = [[2000], [1500, 1501], [2001], [900], [1999, 2001]].map { numbers in
            machine.received(Base.peer.ncf(numbers).span, Base.arrival(), now: start)
        }
        #expect(verdicts == [.admit, .admit, .reject(.numbers), .reject(.numbers), .reject(.numbers)])
    }

    @Test func `idle streams are quiet, and requests are steered`() {
        var machine = Base.admission()
        let quiet = machine.sending(Base.own.spm(1, trail: 0, lead: 0).span, now: start)
        _ = machine.sending(Base.own.data(1).span, now: start)
        let busy = machine.sending(Base.own.spm(2, trail: 0, lead: 1).span, now: start + .seconds(4))
        let idle = machine.sending(Base.own.spm(3, trail: 0, lead: 1).span, now: start + .seconds(5))
        let final = machine.sending(
            Base.own.spm(4, trail: 0, lead: 1, isFinal: true).span, now: start + .seconds(9))
        #expect([quiet, busy, idle, final] == [.swallow, .send, .swallow, .send])
        let unknown = machine.sending(Base.peer.nak([4]).span, now: start)
        _ = machine.received(Base.peer.data(4).span, Base.arrival(port: 41_000), now: start)
        let known = machine.sending(Base.peer.nak([4]).span, now: start)
        #expect([unknown, known] == [.send, .steer(41_000)])
    }

    @Test func `a stream that libpgm may have forgotten gets an SPM again`() {
        var machine = Base.admission()
        _ = machine.received(Base.peer.data(4).span, Base.arrival(), now: start)
        _ = machine.received(Base.peer.spm(9, trail: 0, lead: 4).span, Base.arrival(), now: start)
        let verdict = machine.received(
            Base.peer.data(6, trail: 1).span, Base.arrival(), now: start + .seconds(30))
        #expect(
            verdict
                == .admitAfter(
                    SyntheticSPM(
                        tsi: Base.peer.tsi, sequence: 9, trail: 1, lead: 4, path: Base.peer.source)))
    }

    @Test func `no cut and no flipped bit of any packet traps, and none with a wrong sum passes`() {
        let packets = [
            Base.peer.data(5), Base.peer.data(5, isRepair: true), Base.peer.spm(1, trail: 0, lead: 4),
            Base.peer.spm(1, trail: 0, lead: 4, isFinal: true), Base.peer.ncf([3, 4]), Base.peer.ncf([4]),
            Base.own.nak([1]), Base.own.nak(Array(1...63)), Base.own.spmr(),
        ]
        for packet in packets {
            var machine = sender(lead: 100, trail: 0)
            _ = machine.received(Base.peer.data(4).span, Base.arrival(), now: start)
            for length in packet.indices {
                let cut = Array(packet.prefix(length))
                let verdict = machine.received(cut.span, Base.arrival(), now: start)
                guard case .reject = verdict else {
                    Issue.record("a cut at \(length) of type \(packet[4]) passed")
                    continue
                }
                _ = machine.received(PGMPackets.checked(cut).span, Base.arrival(), now: start)
                for bit in 0..<8 {
                    var flipped = packet
                    flipped[length] ^= 1 << bit
                    let verdict = machine.received(flipped.span, Base.arrival(), now: start)
                    guard case .reject = verdict else {
                        Issue.record("bit \(bit) of byte \(length) of type \(packet[4]) passed")
                        continue
                    }
                    _ = machine.received(PGMPackets.checked(flipped).span, Base.arrival(), now: start)
                }
            }
        }
    }

    @Test(arguments: 0..<8)
    func `random bytes never trap`(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var machine = sender(lead: 100, trail: 0)
        for _ in 0..<5000 {
            let length = Int.random(in: 0...80, using: &generator)
            var bytes = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
            if length > 5 { bytes[4] = UInt8.random(in: 0...13, using: &generator) }
            let packet = Bool.random(using: &generator) ? PGMPackets.checked(bytes) : bytes
            _ = machine.received(packet.span, Base.arrival(), now: start)
            _ = machine.sending(packet.span, now: start)
        }
        #expect(machine.streamCount <= 1, "seed \(seed)")
    }
}
