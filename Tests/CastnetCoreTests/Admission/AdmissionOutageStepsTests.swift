import CastnetTestKit
import Testing

@testable import CastnetCore

/// libpgm is moved over an outage without making a placeholder for every number of it, whatever it still
/// waits for; and nobody moves it anywhere else.
@Suite struct AdmissionOutageStepsTests {
    private typealias Kit = AdmissionTests

    /// The admission in front of libpgm's receive window, as far as numbers go: holes are never filled.
    private struct Receiver: ~Copyable {
        var machine = Kit.admission()
        var now = Kit.start
        private(set) var lead: UInt32?
        private(set) var placeholders = 0
        private var trail: UInt32 = 0
        private var hasHoles = false
        private var spmSequence: UInt32 = 0

        private mutating func move(trail next: UInt32) {
            guard let lead, Int32(bitPattern: next &- trail) > 0 else { return }
            trail = next
            guard Int32(bitPattern: next &- 1 &- lead) >= 0 else { return }
            // A window with holes gives them up, but stays where it is.
            if !hasHoles { self.lead = next &- 1 }
            hasHoles = false
        }

        private mutating func move(lead number: UInt32, missing: Int) {
            guard let lead else {
                (self.lead, trail) = (number, number &+ 1)
                return
            }
            let jump = Int(Int32(bitPattern: number &- lead))
            guard jump > 0 else { return }
            self.lead = number
            placeholders += jump - missing
            if jump > missing { hasHoles = true }
        }

        private mutating func show(_ spm: SyntheticSPM) {
            guard spm.sequence >= spmSequence else { return }
            move(trail: spm.trail)
            move(lead: spm.lead, missing: 0)
        }

        @discardableResult
        mutating func take(_ number: UInt32, trail: UInt32? = nil, isRepair: Bool = false)
            -> Admission.Verdict
        {
            let packet = Kit.peer.data(number, trail: trail ?? number, isRepair: isRepair)
            let verdict = machine.received(packet.span, Kit.arrival(), now: now)
            switch verdict {
            case .reject: return verdict
            case .only(let spm):
                show(spm)
                return verdict
            case .admitAfter(let spm): show(spm)
            case .admit, .admitNext: break
            }
            move(trail: trail ?? number)
            move(lead: number, missing: 1)
            return verdict
        }

        mutating func pass(milliseconds: Int64) { now = now + .milliseconds(milliseconds) }

        /// libpgm forgets a stream that is silent for long; its next window begins with the first thing it
        /// hears.
        mutating func forget() {
            lead = nil
            (hasHoles, spmSequence) = (false, 0)
            pass(milliseconds: 60_000)
        }

        /// A stream that goes on at `number`, until it is taken up.
        mutating func outage(to number: UInt32) {
            for index in 0..<4 { take(number &+ UInt32(index)) }
            pass(milliseconds: 60)
            take(number &+ 4)
        }
    }

    @Test(arguments: [false, true])
    func `an outage costs no placeholders, with and without something missing before it`(_ isMissing: Bool) {
        for first: UInt32 in [10, UInt32.max - 4000] {
            var receiver = Receiver()
            receiver.take(first, trail: first)
            if isMissing { receiver.take(first &+ 5, trail: first) }
            var number = first
            for jump: UInt32 in [5000, 1 << 20, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 20] {
                number &+= jump
                receiver.outage(to: number)
                let (lead, placeholders) = (receiver.lead, receiver.placeholders)
                #expect(lead == number &+ 4, "jump \(jump)")
                #expect(placeholders < 100, "jump \(jump)")
            }
        }
    }

    @Test(arguments: 0...4)
    func `an outage costs no placeholders when libpgm forgets the stream in the midst of it`(_ step: Int) {
        var receiver = Receiver()
        receiver.take(10)
        receiver.take(500, trail: 10)
        for index in 0..<6 {
            if index == step { receiver.forget() }
            receiver.take(10_000_000 + UInt32(index), trail: 0)
            receiver.pass(milliseconds: 30)
        }
        let (lead, placeholders) = (receiver.lead, receiver.placeholders)
        #expect(lead == 10_000_005)
        #expect(placeholders < 1000)
    }

    @Test func `a stream goes on where it was when somebody else spoke of an outage`() {
        var receiver = Receiver()
        for number: UInt32 in 10...20 { receiver.take(number) }
        for number: UInt32 in [1_000_000, 1_000_001, 1_000_002, 1_000_003] { receiver.take(number) }
        var admitted = 0
        for number: UInt32 in 21...40 where receiver.take(number) == .admit { admitted += 1 }
        #expect(admitted >= 18)
    }

    @Test func `an outage never goes back: libpgm would follow half of all numbers later`() {
        var receiver = Receiver()
        receiver.take(10)
        for round: UInt32 in 1...8 {
            for index: UInt32 in 0..<4 { receiver.take((round << 28) &+ index) }
            receiver.pass(milliseconds: 60)
            // The last step from anywhere behind.
            receiver.take(0 &- (round << 27))
            receiver.take(receiver.lead.map { $0 &- 1 << 30 } ?? 0)
            receiver.pass(milliseconds: 60)
        }
        let placeholders = receiver.placeholders
        #expect(placeholders < 100)
    }

    @Test func `repairs of what was before do not end an outage`() {
        var receiver = Receiver()
        receiver.take(10)
        for number: UInt32 in [900_000, 900_001, 900_002, 900_003] { receiver.take(number) }
        #expect(receiver.take(12, isRepair: true) == .reject(.resync))
        receiver.pass(milliseconds: 60)
        receiver.take(900_004)
        let lead = receiver.lead
        #expect(lead == 900_004)
    }

    @Test func `SPMs count up, and never so far that libpgm would take a new one for an old one`() {
        var machine = Kit.admission()
        _ = machine.received(Kit.peer.data(10, trail: 10).span, Kit.arrival(), now: Kit.start)
        let cases: [(number: UInt32, verdict: Admission.Verdict)] = [
            (5, .admit), (5, .admit), (4, .reject(.behind)), (1 << 30, .admit), (1 << 31, .reject(.numbers)),
            (UInt32.max, .reject(.numbers)), (Int32.max.magnitude, .admit),
        ]
        for (number, expected) in cases {
            let verdict = machine.received(
                Kit.peer.spm(number, trail: 10, lead: 10).span, Kit.arrival(), now: Kit.start)
            #expect(verdict == expected, "number \(number)")
        }
    }
}
