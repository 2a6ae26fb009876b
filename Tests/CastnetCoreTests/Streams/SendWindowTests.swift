import Testing

@testable import CastnetCore

@Suite struct SendWindowTests {
    private let start = Instant(nanoseconds: 1_000_000_000)

    private func identity(_ name: String, _ incarnation: UInt64 = 1) -> NodeIdentity {
        NodeIdentity(name: name, incarnation: Incarnation(incarnation))
    }

    private func window(at next: UInt64, _ members: String...) -> SendWindow {
        var window = SendWindow(trust: 64, membersMax: 10, memory: .seconds(30))
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
        _ = window.stall(next: 100, since: start, patience: .seconds(60), now: later)
        let owedLater = window.owedFrom(next: 100)
        #expect(owedLater == 100 && window.count == 1)
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
}
