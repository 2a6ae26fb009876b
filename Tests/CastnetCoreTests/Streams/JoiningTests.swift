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

    @Test("what was long ago is known less exactly, and never later than it was")
    func thinned() {
        var times = FrameTimes()
        let count: Int64 = 60_000
        for frame in 1...count { times.sent(UInt64(frame), now: at(frame)) }
        for moment in stride(from: 1, through: count - 1, by: 7) {
            let first = Int64(times.first(since: at(moment), next: UInt64(count) + 1))
            let slack = count - moment < 8000 ? 3 : (count - moment) / 8
            #expect(first <= moment && first + slack >= moment, "\(moment): \(first)")
        }
    }

    @Test("an answer that took longer than was allowed for is not believed")
    func margins() {
        var joining = Joining(now: at(0))
        let first = joining.asks(since: at(-100), now: at(0))
        let slow = joining.answered(105, now: at(30))
        let second = joining.asks(since: at(-100), now: at(30))
        let slowAgain = joining.answered(150, now: at(80))
        let third = joining.asks(since: at(-100), now: at(80))
        let fine = joining.answered(230, now: at(110))
        #expect(first == 105 && !slow && second == 150 && !slowAgain)
        #expect(third == 230 && fine)
    }

    @Test("the late answer to an earlier question is not taken for that to the last one")
    func late() {
        var joining = Joining(now: at(0))
        let first = joining.asks(since: at(-100), now: at(0))
        let second = joining.asks(since: at(-100), now: at(300))
        let late = joining.answered(105, now: at(302))
        let answered = joining.answered(405, now: at(303))
        #expect(first == 105 && second == 405 && !late && answered)
    }

    @Test("who gets no answer asks again, for two seconds")
    func patience() {
        var joining = Joining(now: at(0))
        var asked = 0
        for time in 0..<2000 as Range<Int64> where joining.asks(since: at(0), now: at(time)) != nil {
            asked += 1
        }
        let isOver = joining.isOver(at(2000))
        #expect(asked == 7 && isOver)
    }
}
