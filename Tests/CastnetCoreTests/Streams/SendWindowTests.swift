import Testing

@testable import CastnetCore

@Suite struct SendWindowTests {
    private let start = Instant(nanoseconds: 1_000_000_000)

    private func identity(_ name: String, _ incarnation: UInt64 = 1) -> NodeIdentity {
        NodeIdentity(name: name, incarnation: Incarnation(incarnation))
    }

    private func window(
        at next: UInt64, _ members: String..., slow: ChannelSettings.SlowMember = .catchUp
    ) -> SendWindow {
        var window = SendWindow(
            trust: 64, reach: 1000, slow: slow, membersMax: 10, memory: .seconds(30), now: start)
        _ = window.membersChanged(members.map { identity($0) }, next: next, now: start)
        return window
    }

    @Test("a member that is gone without a goodbye is owed its frames for a while, and nobody waits for it")
    func gone() {
        var window = window(at: 5, "a", "b")
        let isComplete = window.membersChanged([identity("a")], next: 5, now: start)
        #expect(isComplete && !window.expects(identity("b")))
        let position = Report.StreamPosition(streamID: 1, received: 100, limit: 200, processed: 100, gaps: 0)
        _ = window.reported(
            identity("a"), position, next: 100, bytesPerFrame: 1000, isBusy: true, now: start)
        let (floor, owed, end) = (
            window.floor(next: 100), window.owedFrom(next: 100), window.windowEnd(next: 100)
        )
        #expect(floor == 100 && owed == 5 && end == 200)
        let later = start + .seconds(31)
        _ = window.stall(next: 100, patience: .seconds(60), now: later)
        let owedLater = window.owedFrom(next: 100)
        #expect(owedLater == 100 && window.count == 1)
    }

    @Test("a member that follows the stream anew counts its losses from there")
    func countsAnew() {
        var window = window(at: 1, "a")
        func report(first: UInt64, received: UInt64, gaps: UInt32, refused: UInt32) -> SendWindow.Change? {
            let position = Report.StreamPosition(
                streamID: 1, first: first, received: received, limit: 900, processed: received, gaps: gaps,
                refused: refused)
            return window.reported(
                identity("a"), position, next: 500, bytesPerFrame: 1, isBusy: true, now: start)
        }
        _ = report(first: 1, received: 40, gaps: 2, refused: 3)
        let same = report(first: 1, received: 50, gaps: 2, refused: 3)
        let anew = report(first: 60, received: 70, gaps: 1, refused: 1)
        #expect(same?.hasLost == false && same?.hasRefused == false)
        #expect(anew?.hasLost == true && anew?.hasRefused == true)
    }

    @Test("however slowly frames leave, a member that answers none of them is told, and given up")
    func slowlySilent() {
        var window = window(at: 1, "a", "b")
        var (told, stalled, now) = ([NodeIdentity](), [NodeIdentity](), start)
        for frame in 1...12 as ClosedRange<UInt64> {
            window.restarted(next: frame, now: now)
            let position = Report.StreamPosition(
                streamID: 1, received: frame + 1, limit: 900, processed: frame + 1, gaps: 0)
            _ = window.reported(
                identity("a"), position, next: frame + 1, bytesPerFrame: 1, isBusy: false, now: now)
            now = now + .milliseconds(200)
            told += window.unheard(next: frame + 1, now: now)
            stalled += window.stall(next: frame + 1, patience: .seconds(1), now: now)
        }
        #expect(Set(told) == [identity("b")] && told.count >= 3)
        #expect(stalled == [identity("b")])
    }

    @Test("of many members that do not hear the group each is told in its turn")
    func manyDeaf() {
        var window = SendWindow(
            trust: 64, reach: 1000, slow: .catchUp, membersMax: 300, memory: .seconds(30), now: start)
        _ = window.membersChanged((0..<200).map { identity("m\($0)") }, next: 1, now: start)
        var told: [NodeIdentity: Int] = [:]
        for round in 0..<10 as Range<Int64> {
            for identity in window.unheard(next: 9, now: start + .milliseconds(500 + 500 * round)) {
                told[identity, default: 0] += 1
            }
        }
        #expect(told.count == 200 && told.values.allSatisfy { $0 >= 2 }, "\(told.values.sorted())")
    }

    @Test("a member that says goodbye, or starts anew, is owed nothing of before")
    func goodbye() {
        var window = window(at: 5, "a", "b")
        window.left(identity("b"))
        #expect(window.count == 1)
        _ = window.membersChanged([identity("a", 2)], next: 50, now: start)
        let owed = window.owedFrom(next: 50)
        #expect(owed == 50 && window.expects(identity("a", 2)))
    }

    @Test("a member may learn that the stream began earlier for it: what it had passed it has not")
    func joinedEarlier() {
        var window = window(at: 1, "a")
        func report(first: UInt64, received: UInt64) -> SendWindow.Change? {
            let position = Report.StreamPosition(
                streamID: 1, first: first, received: received, limit: 90, processed: received, gaps: 0)
            return window.reported(
                identity("a"), position, next: 50, bytesPerFrame: 1, isBusy: true, now: start)
        }
        _ = report(first: 35, received: 40)
        let back = report(first: 34, received: 34)
        let owed = window.owedFrom(next: 50)
        #expect(back?.before == 34 && back?.processedBefore == 34 && owed == 34)
        let later = report(first: 34, received: 45)
        #expect(later?.before == 34)
    }

    // MARK: Who holds up the others

    private func report(
        _ name: String, received: UInt64, limit: UInt64, next: UInt64, at now: Instant,
        to window: inout SendWindow
    ) -> SendWindow.Change? {
        let position = Report.StreamPosition(
            streamID: 1, received: received, limit: limit, processed: received, gaps: 0)
        return window.reported(
            identity(name), position, next: next, bytesPerFrame: 1000, isBusy: true, now: now)
    }

    /// Looks every 25 ms for `seconds` with the sender blocked, while `reporting` says each time that it is
    /// no further than before; who was given up, and when.
    private func look(
        _ window: inout SendWindow, next: UInt64, seconds: Double, from begin: Instant,
        reporting: String? = nil
    ) -> [(name: String, after: Duration)] {
        var found: [(name: String, after: Duration)] = []
        for step in 1...Int(seconds * 40) {
            let now = begin + .milliseconds(25 * Int64(step))
            if let reporting {
                _ = report(reporting, received: 50, limit: 100, next: next, at: now, to: &window)
            }
            let names = window.holdups(next: next, isBlocked: true, bytesPerFrame: 1000, now: now)
            found += names.map { ($0.name, now - begin) }
        }
        return found
    }

    @Test("who holds up the others and says so is waited for twice as long as who says nothing")
    func slowButAlive() {
        var window = window(at: 1, "a", "b", "c")
        for name in ["a", "b"] {
            _ = report(name, received: 100, limit: 900, next: 100, at: start, to: &window)
        }
        let found = look(&window, next: 100, seconds: 1, from: start, reporting: "c")
        #expect(found.first?.name == "c" && found.first?.after == .milliseconds(400))
    }

    @Test("who alone holds up the others is not waited for, until it has what it missed")
    func slow() {
        var window = window(at: 1, "a", "b", "c")
        for name in ["a", "b"] {
            _ = report(name, received: 100, limit: 900, next: 100, at: start, to: &window)
        }
        _ = report("c", received: 50, limit: 100, next: 100, at: start, to: &window)
        let before = window.windowEnd(next: 100)
        let found = look(&window, next: 100, seconds: 1, from: start)
        #expect(before == 100 && found.map(\.name) == ["c"] && found.first?.after == .milliseconds(200))
        let (end, owed, floor) = (
            window.windowEnd(next: 100), window.owedFrom(next: 100), window.floor(next: 100)
        )
        #expect(end == 900 && owed == 50 && floor == 50)
        let later = start + .seconds(2)
        let still = report("c", received: 60, limit: 110, next: 800, at: later, to: &window)
        #expect(still?.isBack == false)
        let back = report("c", received: 800, limit: 1200, next: 800, at: later, to: &window)
        #expect(back?.isBack == true)
    }

    @Test("nobody is slow where half of the members or more are")
    func allSlow() {
        var window = window(at: 1, "a", "b", "c")
        _ = report("a", received: 100, limit: 900, next: 100, at: start, to: &window)
        for name in ["b", "c"] {
            _ = report(name, received: 50, limit: 100, next: 100, at: start, to: &window)
        }
        let found = look(&window, next: 100, seconds: 5, from: start)
        #expect(found.isEmpty)
    }

    @Test(
        "with pace a member is waited for that takes a megabyte a second, and five seconds one that does not")
    func pace() {
        var window = window(at: 1, "a", "b", "c", slow: .pace)
        for name in ["a", "b"] {
            _ = report(name, received: 100, limit: 90_000, next: 100, at: start, to: &window)
        }
        var found: [(name: String, after: Duration)] = []
        var limit: UInt64 = 100
        for second in 0..<12 {
            let now = start + .seconds(second)
            _ = report("c", received: limit - 50, limit: limit, next: limit, at: now, to: &window)
            found += look(&window, next: limit, seconds: 1, from: now)
            limit += 1500
        }
        #expect(found.isEmpty)
        found = look(&window, next: limit - 1500, seconds: 12, from: start + .seconds(12))
        #expect(found.map(\.name) == ["c"])
    }

    @Test("an evicted member has no claim to what was sent before")
    func evict() {
        var window = window(at: 1, "a", "b", slow: .evict)
        _ = report("a", received: 100, limit: 900, next: 100, at: start, to: &window)
        _ = report("b", received: 50, limit: 100, next: 100, at: start, to: &window)
        let found = look(&window, next: 100, seconds: 2, from: start)
        #expect(found.map(\.name) == ["b"] && found.first?.after == .seconds(1))
        let (owed, end) = (window.owedFrom(next: 100), window.evictedEnd(of: identity("b")))
        #expect(owed == 100 && end == 100 && window.evicts)
        #expect(window.evictedEnd(of: identity("b", 2)) == 0)
    }
}
