import CastnetTestKit
import Testing

@testable import CastnetCore

/// A stream whose numbers ran away while nothing arrived goes on, whatever arrives first, and soon.
@Suite struct AdmissionOutageTests {
    private typealias Kit = AdmissionTests

    /// Plays what a sender sends after an outage, a packet each 10 ms, until data is admitted.
    private func packetsUntilAdmitted(
        _ pattern: [Bool], jump: UInt32, first: UInt32, window: UInt32 = 1024
    ) -> Int? {
        var machine = Kit.admission { $0.window = window }
        var now = Kit.start
        _ = machine.received(Kit.peer.data(first, trail: first).span, Kit.arrival(), now: now)
        var number = first &+ jump
        for index in 0..<200 {
            now = now + .milliseconds(10)
            let isData = pattern[index % pattern.count]
            let trail = number &- window &+ 1
            let packet =
                isData
                ? Kit.peer.data(number, trail: trail)
                : Kit.peer.spm(UInt32(index), trail: trail, lead: number &- 1)
            let verdict = machine.received(packet.span, Kit.arrival(), now: now)
            if isData {
                number &+= 1
                switch verdict {
                case .admit, .admitNext, .admitAfter: return index
                case .only, .reject: break
                }
            }
        }
        return nil
    }

    @Test(arguments: [
        [true], [true, false], [false, true], [true, false, false], [false, false, true],
        [true, true, false],
        [true, false, false, false, false],
    ])
    func `a stream goes on after an outage, however SPMs and data mix`(_ pattern: [Bool]) {
        for first: UInt32 in [10, UInt32.max - 4000] {
            for jump: UInt32 in [1025, 5000, 100_000, 1 << 24, 1 << 30] {
                let packets = packetsUntilAdmitted(pattern, jump: jump, first: first)
                #expect(packets.map { $0 <= 20 } == true, "jump \(jump) from \(first): \(packets ?? -1)")
            }
        }
    }

    @Test func `a jump inside a window larger than the budget is taken up like an outage`() {
        let packets = packetsUntilAdmitted([true], jump: 250_000, first: 10, window: 1 << 18)
        #expect(packets.map { $0 <= 20 } == true, "\(packets ?? -1)")
    }
}
