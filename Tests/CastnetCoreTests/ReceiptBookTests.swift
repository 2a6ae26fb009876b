import Testing

@testable import CastnetCore

@Suite struct ReceiptBookTests {
    private let start = Instant(nanoseconds: 1_000_000_000)
    private let members = ["a", "b"].map { NodeIdentity(name: $0, incarnation: Incarnation(1)) }

    /// A receipt of a message in frames 10 to 20.
    private func book(_ token: UInt64 = 1, frames: ClosedRange<UInt64> = 10...20) -> ReceiptBook {
        var book = ReceiptBook()
        open(token, frames, in: &book)
        return book
    }

    private func open(
        _ token: UInt64, _ frames: ClosedRange<UInt64>, _ settle: Settlement = .received,
        in book: inout ReceiptBook
    ) {
        book.open(
            token, Topic(unchecked: "t"), delivered: [], waiting: members, channel: "c", settle: settle,
            deadline: start + .seconds(5), now: start)
        book.began(token, firstFrame: frames.lowerBound)
        book.sent(token, lastFrame: frames.upperBound)
    }

    private func progress(
        first: UInt64 = 1, before: UInt64, processedBefore: UInt64? = nil, received: UInt64,
        hasLost: Bool = false, processed: UInt64? = nil, bits: [UInt8] = [], hasRefused: Bool = false
    ) -> Progress {
        Progress(
            before: before, processedBefore: processedBefore,
            position: Report.StreamPosition(
                streamID: 1, first: first, received: received, limit: received,
                processed: processed ?? received, gaps: 0, processedBits: bits),
            hasLost: hasLost, hasRefused: hasRefused)
    }

    private func report(
        _ member: Int, _ progress: Progress, _ claim: ReceiptBook.Claim = .holds, to book: inout ReceiptBook
    ) {
        book.position(
            members[member], progress, channel: "c", now: start + .milliseconds(3), claim: { _ in claim })
    }

    private func outcomes(_ book: inout ReceiptBook) -> [Receipt.Outcome]? {
        book.takeFinished().first?.rows.map(\.outcome)
    }

    @Test("a receipt is complete when every member has passed its last frame")
    func complete() {
        var book = book()
        report(0, progress(before: 1, received: 20), to: &book)
        report(1, progress(before: 1, received: 21), to: &book)
        let early = outcomes(&book)
        #expect(early == nil)
        report(0, progress(before: 20, received: 30), to: &book)
        let rows = book.takeFinished().first?.rows ?? []
        #expect(rows.map(\.outcome) == [.multicast, .multicast])
        #expect(rows.map(\.latency) == [.milliseconds(3), .milliseconds(3)] && book.openCount == 0)
    }

    @Test(
        "what a member lost on the way is not claimed, nor later",
        arguments: [(1, 12), (12, 15), (20, 40)] as [(UInt64, UInt64)])
    func lost(_ hole: (before: UInt64, received: UInt64)) {
        var book = book()
        report(0, progress(before: hole.before, received: hole.received, hasLost: true), to: &book)
        report(0, progress(before: hole.received, received: 50), to: &book)
        report(1, progress(before: 1, received: 50), to: &book)
        let early = outcomes(&book)
        #expect(early == nil)
        book.timerFired(now: start + .seconds(5))
        let outcome = outcomes(&book)
        #expect(outcome == [.timedOut, .multicast])
    }

    @Test("what was lost before the message began, or after it had ended, is not held against it")
    func elsewhere() {
        var book = book()
        report(0, progress(before: 1, received: 10, hasLost: true), to: &book)
        report(1, progress(before: 1, received: 21), to: &book)
        report(0, progress(before: 10, received: 21), to: &book)
        let outcome = outcomes(&book)
        #expect(outcome == [.multicast, .multicast])
    }

    @Test("a loss in a message that has not ended yet is remembered")
    func underWay() {
        var book = ReceiptBook()
        book.open(
            1, Topic(unchecked: "t"), delivered: [], waiting: members, channel: "c",
            deadline: start + .seconds(5), now: start)
        book.began(1, firstFrame: 10)
        report(0, progress(before: 1, received: 15, hasLost: true), to: &book)
        book.sent(1, lastFrame: 20)
        for member in 0...1 { report(member, progress(before: 15, received: 21), to: &book) }
        book.timerFired(now: start + .seconds(5))
        let outcome = outcomes(&book)
        #expect(outcome == [.timedOut, .multicast])
    }

    @Test("a member that began behind the message never had it")
    func late() {
        var book = book()
        report(0, progress(first: 11, before: 0, received: 30), to: &book)
        report(1, progress(first: 10, before: 0, received: 30), to: &book)
        book.timerFired(now: start + .seconds(5))
        let outcome = outcomes(&book)
        #expect(outcome == [.timedOut, .multicast])
    }

    @Test("a row says repaired where a part of the message went over TCP")
    func repaired() {
        var book = book()
        open(2, 21...21, in: &book)
        book.served(members[0], 18...20, channel: "c")
        for member in 0...1 { report(member, progress(before: 1, received: 22), to: &book) }
        let finished = book.takeFinished().sorted { $0.token < $1.token }
        #expect(
            finished.map { $0.rows.map(\.outcome) } == [[.repaired, .multicast], [.multicast, .multicast]])
    }

    @Test("processed is said only of what was handled, in whatever order")
    func processed() {
        var book = ReceiptBook()
        open(1, 4...4, .processed, in: &book)
        open(2, 5...5, .processed, in: &book)
        for member in 0...1 { report(member, progress(before: 1, received: 9, processed: 4), to: &book) }
        let early = outcomes(&book)
        #expect(early == nil)
        for member in 0...1 {
            let progress = progress(before: 9, processedBefore: 4, received: 9, processed: 4, bits: [0x40])
            report(member, progress, to: &book)
        }
        let second = book.takeFinished().map(\.token)
        #expect(second == [2])
        for member in 0...1 {
            report(member, progress(before: 9, processedBefore: 4, received: 9), to: &book)
        }
        let first = outcomes(&book)
        #expect(first == [.multicast, .multicast])
    }

    @Test("where a member will never handle something, nothing of that time is called processed")
    func refused() {
        var book = ReceiptBook()
        open(1, 4...4, .processed, in: &book)
        open(2, 4...4, in: &book)
        var refusal = progress(before: 6, received: 6, hasRefused: true)
        refusal.processedBefore = 3
        report(0, refusal, to: &book)
        report(0, progress(before: 6, received: 9), to: &book)
        report(1, progress(before: 1, received: 9), to: &book)
        let received = book.takeFinished().map(\.token)
        #expect(received == [2])
        book.timerFired(now: start + .seconds(5))
        let outcome = outcomes(&book)
        #expect(outcome == [.timedOut, .multicast])
    }

    @Test("a report that says less than an earlier one breaks nothing")
    func backwards() {
        var book = book()
        report(0, progress(before: 50, received: 10, hasLost: true), to: &book)
        report(0, progress(before: 10, received: 50), to: &book)
        report(1, progress(before: 1, received: 50), to: &book)
        let outcome = outcomes(&book)
        #expect(outcome == [.multicast, .multicast])
    }

    @Test("members that leave, and the deadline, close what nobody reports about")
    func left() {
        var book = book()
        book.memberGone(members[0], now: start)
        book.timerFired(now: start + .milliseconds(4999))
        let early = outcomes(&book)
        #expect(early == nil && book.nextDeadline == start + .seconds(5))
        book.timerFired(now: start + .seconds(5))
        let outcome = outcomes(&book)
        #expect(outcome == [.left, .timedOut])
    }

    @Test("a small message is not kept waiting by a large one that was opened before it")
    func interleaved() {
        var book = ReceiptBook()
        book.open(
            1, Topic(unchecked: "t"), delivered: [], waiting: members, channel: "c",
            deadline: start + .seconds(5), now: start)
        book.began(1, firstFrame: 1)
        open(2, 4...4, in: &book)
        for member in 0...1 { report(member, progress(before: 1, received: 5), to: &book) }
        let finished = book.takeFinished()
        #expect(finished.map(\.token) == [2] && book.openCount == 1)
    }

    @Test("a member that hears the topic no longer has left, whatever it reports")
    func dropped() {
        var book = book()
        report(0, progress(before: 1, received: 30), .dropped, to: &book)
        report(1, progress(before: 1, received: 30), to: &book)
        let outcome = outcomes(&book)
        #expect(outcome == [.left, .multicast])
    }

    @Test("a report from behind a change of what the member hears waits for the directory")
    func unknown() {
        for hears in [true, false] {
            var book = book()
            report(0, progress(before: 1, received: 30), .unknown, to: &book)
            report(1, progress(before: 1, received: 30), to: &book)
            let early = outcomes(&book)
            #expect(early == nil)
            book.memberUpdated(
                members[0], now: start + .milliseconds(9), hears: { _ in hears },
                claim: { _ in { _ in hears ? .holds : .dropped } })
            let outcome = outcomes(&book)
            #expect(outcome == [hears ? .multicast : .left, .multicast])
        }
    }

    @Test("a member that drops the topic before it reported has left")
    func unsubscribed() {
        var book = book()
        report(1, progress(before: 1, received: 30), to: &book)
        book.memberUpdated(
            members[0], now: start, hears: { _ in false }, claim: { _ in { _ in .dropped } })
        let outcome = outcomes(&book)
        #expect(outcome == [.left, .multicast])
    }
}
