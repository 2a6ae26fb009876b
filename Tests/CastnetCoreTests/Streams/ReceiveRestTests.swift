import CastnetCore
import Testing

@Suite struct ReceiveRestTests {
    private static let start = Instant(nanoseconds: 1_000_000_000)

    /// Turns of `packets` each, `pause` apart; says whether the last of them rests.
    private func rests(_ packets: Int, every pause: Duration, turns: Int = 200) -> Bool {
        var rest = ReceiveRest(now: Self.start)
        var now = Self.start
        for _ in 0..<turns {
            now = now + pause
            rest.took(packets, now: now)
        }
        return rest.until.map { $0 > now } ?? false
    }

    @Test func `few packets a turn rest only where traffic is dense`() {
        #expect(rests(4, every: .microseconds(50)), "80,000 a second in fours")
        #expect(!rests(1, every: .milliseconds(1)), "1,000 a second")
        #expect(!rests(256, every: .microseconds(500)), "full turns")
        #expect(!rests(100, every: .milliseconds(100)), "a burst now and then")
    }

    @Test func `a turn without packets ends it`() {
        var rest = ReceiveRest(now: Self.start)
        for index in 1...200 { rest.took(4, now: Self.start + .microseconds(Int64(50 * index))) }
        #expect(rest.until == Self.start + .microseconds(10_000) + ReceiveRest.pause)
        rest.took(0, now: Self.start + .milliseconds(11))
        #expect(rest.until == nil)
    }
}
