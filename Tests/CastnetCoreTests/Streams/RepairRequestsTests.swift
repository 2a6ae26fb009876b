import Testing

@testable import CastnetCore

@Suite struct RepairRequestsTests {
    private let start = Instant(nanoseconds: 1_000_000_000)
    private var generator = SeededGenerator(seed: 1)
    private var requests = RepairRequests(isRepaired: true)

    /// Notices a hole, and asks for all that is missing.
    private mutating func ask(_ missing: [ClosedRange<UInt64>], now: Instant) -> [ClosedRange<UInt64>] {
        requests.noticed(now: now, interval: .milliseconds(1), using: &generator)
        return requests.due(missing, framesMax: 1000, now: now + .milliseconds(20))
    }

    @Test("what is not answered is asked for again, although what was asked for later is answered")
    mutating func overtaken() {
        #expect(ask([1...10], now: start) == [1...10])
        var askedAgain: Instant?
        for step in 1...60 {
            // Every 50 ms ten more are missing, are asked for and come.
            let now = start + .milliseconds(Int64(step) * 50)
            let (first, last) = (UInt64(step) * 10 + 1, UInt64(step) * 10 + 10)
            let ranges = ask([1...10, first...last], now: now)
            if ranges.contains(1...10) {
                askedAgain = now
                break
            }
            #expect(ranges == [first...last])
            requests.progressed([1...10], byRepair: true, now: now + .milliseconds(30))
        }
        let waited = askedAgain.map { $0 - start }
        #expect(waited.map { $0 >= .milliseconds(1000) && $0 <= .milliseconds(1100) } == true)
    }

    @Test("while the first that is missing comes, nothing is asked for twice")
    mutating func slow() {
        #expect(ask([1...100], now: start) == [1...100])
        for step in 1...99 {
            let now = start + .milliseconds(Int64(step) * 900)
            requests.progressed([UInt64(step) + 1...100], byRepair: true, now: now)
            let later = now + .milliseconds(899)
            #expect(requests.due([UInt64(step) + 1...100], framesMax: 1000, now: later).isEmpty)
        }
    }

    @Test("who learns that it does not hear the group asks for everything at once")
    mutating func turned() {
        #expect(ask([1...10], now: start) == [1...10])
        requests.turned(now: start + .milliseconds(100))
        #expect(requests.due([1...12], framesMax: 1000, now: start + .milliseconds(100)) == [1...12])
        // That was no failure: the next one does not wait either.
        let late = start + .milliseconds(1100)
        #expect(requests.due([1...12], framesMax: 1000, now: late) == [1...12])
    }

    @Test("nothing is asked for where nothing was missing")
    mutating func whole() {
        requests.turned(now: start)
        #expect(requests.nextDeadline == nil)
    }
}
