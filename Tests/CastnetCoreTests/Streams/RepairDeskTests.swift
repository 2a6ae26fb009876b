import Testing

@testable import CastnetCore

@Suite struct RepairDeskTests {
    private let start = Instant(nanoseconds: 1_000_000_000)

    private func member(_ number: Int) -> NodeIdentity {
        NodeIdentity(name: "m\(number)", incarnation: Incarnation(1))
    }

    private func expectServed(
        _ desk: inout RepairDesk, _ member: NodeIdentity, _ ranges: [ClosedRange<UInt64>], groupSize: Int,
        now: Instant, at location: SourceLocation = #_sourceLocation
    ) {
        let wait = desk.asked(member, ranges, groupSize: groupSize, now: now)
        #expect(wait == nil, sourceLocation: location)
    }

    /// Serves until nothing is left, in steps of a millisecond; what went to whom.
    private func drain(
        _ desk: inout RepairDesk, from: Instant, rate: Double? = nil, frameBytes: Int = 1000
    ) -> (single: [String: [UInt64]], group: [UInt64], end: Instant) {
        var (single, group, now) = ([String: [UInt64]](), [UInt64](), from)
        for _ in 0..<100_000 {
            while let step = desk.next(now: now) {
                switch step {
                case .again(let sequence):
                    group.append(sequence)
                    desk.did(step, count: 1, bytes: frameBytes, rate: rate, now: now)
                case .serve(let member, let first, let countMax):
                    let count = min(countMax, 20)
                    single[member.name, default: []] += first..<first + UInt64(count)
                    desk.did(step, count: count, bytes: count * frameBytes, rate: rate, now: now)
                    desk.written(count * frameBytes, to: member, now: now)
                }
            }
            guard let at = desk.nextDeadline(now: now) else { break }
            now = max(at, now + .microseconds(1))
        }
        return (single, group, now)
    }

    @Test("requests and ranges past the limits are forgotten, and counted")
    func limits() {
        var desk = RepairDesk(now: start)
        for number in 1...1030 { _ = desk.asked(member(number), [1...1], groupSize: 2000, now: start) }
        #expect(desk.limitHits == 6)
        var other = RepairDesk(now: start)
        let scattered = (1...100 as ClosedRange<UInt64>).map { 3 * $0...3 * $0 }
        for step in 0..<3 as Range<UInt64> {
            let ranges = scattered.map { $0.lowerBound + 1000 * step...$0.upperBound + 1000 * step }
            expectServed(&other, member(1), ranges, groupSize: 2, now: start)
        }
        #expect(other.limitHits == 0)
        expectServed(&other, member(1), [9000...9001], groupSize: 2, now: start)
        #expect(other.limitHits == 1)
        let result = drain(&other, from: start)
        #expect(result.single["m1"] == [9000, 9001])
    }

    @Test("each gets what it asked for, in turns")
    func turns() {
        var desk = RepairDesk(now: start)
        expectServed(&desk, member(1), [1...100, 200...250], groupSize: 2, now: start)
        expectServed(&desk, member(2), [1...10], groupSize: 2, now: start)
        let result = drain(&desk, from: start)
        #expect(result.single["m1"] == Array(1...100) + Array(200...250))
        #expect(result.single["m2"] == Array(1...10))
        #expect(result.group.isEmpty)
    }

    @Test("what three lost goes once to the group, the rest to each")
    func common() {
        var desk = RepairDesk(now: start)
        for (index, range) in ([10...50, 20...60, 30...70] as [ClosedRange<UInt64>]).enumerated() {
            let at = start + .milliseconds(Int64(index) * 15)
            expectServed(&desk, member(index), [range], groupSize: 8, now: at)
        }
        let early = desk.next(now: start + .milliseconds(49))
        #expect(early == nil)
        let result = drain(&desk, from: start + .milliseconds(50))
        #expect(result.group == Array(30...50))
        #expect(result.single["m0"] == Array(10...29))
        #expect(result.single["m1"] == Array(20...29) + Array(51...60))
        #expect(result.single["m2"] == Array(51...70))
    }

    @Test("who turns out not to hear the group gets by itself what it asked for with others")
    func deaf() {
        var desk = RepairDesk(now: start)
        for number in 1...3 { expectServed(&desk, member(number), [1...9], groupSize: 8, now: start) }
        desk.turnedDeaf(member(2))
        let result = drain(&desk, from: start + .milliseconds(20))
        #expect(result.group.isEmpty)
        #expect(Set(result.single.keys) == ["m1", "m2", "m3"])
        #expect(result.single["m2"] == Array(1...9))
    }

    @Test("one member that asks thrice is not three members")
    func repeated() {
        var desk = RepairDesk(now: start)
        for _ in 0..<5 { expectServed(&desk, member(1), [1...9], groupSize: 8, now: start) }
        let result = drain(&desk, from: start)
        #expect(result.group.isEmpty && result.single["m1"] == Array(1...9))
    }

    @Test("there are at most 16 sessions, and the others are told to come later")
    func sessions() {
        var desk = RepairDesk(now: start)
        for index in 0..<16 {
            expectServed(&desk, member(index), [UInt64(index)...UInt64(index)], groupSize: 2, now: start)
        }
        let wait = desk.asked(member(16), [1...1], groupSize: 2, now: start)
        #expect(wait != nil)
        _ = drain(&desk, from: start)
        expectServed(&desk, member(16), [1...1], groupSize: 2, now: start)
        #expect(desk.sessionCount == 1)
    }

    @Test("repairs have a fifth of the rate")
    func rate() {
        var desk = RepairDesk(now: start)
        expectServed(&desk, member(1), [1...2000], groupSize: 1, now: start)
        let result = drain(&desk, from: start, rate: 10e6, frameBytes: 1000)
        // 2 MB at 2 MB/s.
        #expect(abs((result.end - start).seconds - 1) < 0.05, "\(result.end - start)")
    }

    @Test("a member that takes nothing is not served more, and makes room in the end")
    func stuck() {
        var desk = RepairDesk(now: start)
        expectServed(&desk, member(1), [1...100_000], groupSize: 1, now: start)
        var bytes = 0
        var now = start
        while let step = desk.next(now: now) ?? desk.next(now: now + .seconds(1)) {
            guard case .serve = step else { break }
            desk.did(step, count: 30, bytes: 30_000, rate: nil, now: now)
            bytes += 30_000
            now = now + .milliseconds(50)
        }
        #expect(bytes <= (256 << 10) + 30_000)
        #expect(desk.nextDeadline(now: now) == nil)
        for index in 2..<17 {
            expectServed(&desk, member(index), [1...2], groupSize: 1, now: now + .seconds(4))
        }
        expectServed(&desk, member(17), [1...2], groupSize: 1, now: now + .seconds(6))
    }
}
