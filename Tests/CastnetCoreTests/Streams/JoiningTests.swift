import Testing

@testable import CastnetCore

@Suite struct JoiningTests {
    private func at(_ milliseconds: Int64) -> Instant {
        Instant(nanoseconds: 1_000_000_000) + .milliseconds(milliseconds)
    }

    @Test("a sender knows which frame was next at a moment, or one a few milliseconds older")
    func times() {
        var times = FrameTimes()
        #expect(times.first(since: at(0), next: 1) == 1)
        for frame in 1...1000 as ClosedRange<UInt64> { times.sent(frame, now: at(Int64(frame))) }
        for moment in [0, 1, 7, 500, 998] as [Int64] {
            let first = times.first(since: at(moment), next: 1001)
            #expect(first <= max(1, UInt64(moment)) && first + 3 >= UInt64(moment), "\(moment): \(first)")
        }
        #expect(times.first(since: at(5000), next: 1001) == 1001)
    }

    @Test("an answer that took longer than was allowed for is not believed")
    func margins() {
        var joining = Joining(now: at(0))
        let first = joining.asks(now: at(0))
        let slow = joining.answered(now: at(30))
        let second = joining.asks(now: at(30))
        let slowAgain = joining.answered(now: at(80))
        let third = joining.asks(now: at(80))
        let fine = joining.answered(now: at(110))
        #expect(first == .milliseconds(5) && !slow && second == .milliseconds(20) && !slowAgain)
        #expect(third == .milliseconds(50) && fine)
    }

    @Test("who gets no answer asks again, for two seconds")
    func patience() {
        var joining = Joining(now: at(0))
        var asked = 0
        for time in 0..<2000 as Range<Int64> where joining.asks(now: at(time)) != nil { asked += 1 }
        let isOver = joining.isOver(at(2000))
        #expect(asked == 7 && isOver)
    }
}
