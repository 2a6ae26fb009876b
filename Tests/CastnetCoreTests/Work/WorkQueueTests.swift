import Testing

@testable import CastnetCore

/// Who is taken in, who is handled next, and who hears of room.
@Suite("Work queue") struct WorkQueueTests {
    private static let start = Instant(nanoseconds: 0)

    private func sender(_ name: String) -> NodeIdentity {
        NodeIdentity(name: name, incarnation: Incarnation(1))
    }

    private func one(_ item: inout String) -> (piece: String, isLast: Bool) { (item, true) }

    @Test func `senders take turns, each first in, first out`() {
        var turns = SenderTurns<String>(messagesMax: 100, bytesMax: 10_000)
        for number in 0..<5 { turns.append("a\(number)", of: sender("a"), messages: 1, bytes: 1) }
        turns.append("b0", of: sender("b"), messages: 1, bytes: 1)
        turns.append("c0", of: sender("c"), messages: 1, bytes: 1)
        var order: [String] = []
        while let item = turns.next(one) { order.append(item) }
        #expect(order == ["a0", "b0", "c0", "a1", "a2", "a3", "a4"])
        #expect(turns.messages == 0 && turns.bytes == 0)
    }

    @Test func `an item of several messages is taken one by one`() {
        var turns = SenderTurns<Int>(messagesMax: 100, bytesMax: 100)
        turns.append(3, of: sender("a"), messages: 3, bytes: 30)
        turns.append(1, of: sender("b"), messages: 1, bytes: 10)
        var left: [Int] = []
        while let piece = turns.next({ item -> (piece: Int, isLast: Bool) in
            item -= 1
            return (item, item == 0)
        }) {
            left.append(piece)
            #expect(turns.messages == 4 - left.count)
        }
        #expect(left == [2, 0, 1, 0])
        #expect(turns.bytes == 0)
    }

    @Test(arguments: [10, 1_000]) func `one that floods leaves room for the others`(most: Int) {
        var turns = SenderTurns<Int>(messagesMax: most, bytesMax: 1 << 30)
        var taken = 0
        while turns.mayWait(sender("flood")), taken < 2 * most {
            turns.append(0, of: sender("flood"), messages: 1, bytes: 1)
            taken += 1
        }
        #expect(taken > most * 4 / 5 && taken < most)
        let isOtherIn = turns.mayWait(sender("other"))
        #expect(isOtherIn)
        // Bytes are shared the same way.
        var large = SenderTurns<Int>(messagesMax: 1_000, bytesMax: 1_000)
        large.append(0, of: sender("flood"), messages: 1, bytes: 950)
        let (mayFlood, mayOther) = (large.mayWait(sender("flood")), large.mayWait(sender("other")))
        #expect(!mayFlood && mayOther)
    }

    @Test func `senders that are gone cost nothing`() {
        var turns = SenderTurns<String>(messagesMax: 1_000, bytesMax: 1_000_000)
        turns.append("first", of: sender("first"), messages: 1, bytes: 1)
        for number in 0..<500 {
            turns.append("x", of: sender("n\(number)"), messages: 1, bytes: 1)
            _ = turns.next(one)
        }
        turns.append("last", of: sender("last"), messages: 1, bytes: 1)
        var rest: [String] = []
        while let item = turns.next(one) { rest.append(item) }
        #expect(rest.count == 2 && rest.contains("last"))
    }

    @Test func `as many workers as handlers; a full queue turns away and calls when it is half empty`() {
        var queue = WorkQueue<String>(concurrency: 2, messagesMax: 10, bytesMax: 1_000)
        var (started, taken) = (0, 0)
        for _ in 0..<20 where queue.admits(sender("a"), link: 7, isPrompt: false) {
            started += queue.append("m", of: sender("a"), messages: 1, bytes: 1)
            taken += 1
        }
        #expect(started == 2)
        #expect(taken == 9)
        let none = queue.calls(now: Self.start)
        #expect(none.isEmpty)
        let handled = [true, true, false, false].compactMap { queue.next(isFirst: $0, one) }
        #expect(handled.count == 4)
        let calls = (queue.calls(now: Self.start), queue.calls(now: Self.start))
        #expect(calls.0 == [WorkQueue<String>.Call(door: .link(7), count: 0)])
        #expect(calls.1.isEmpty)
        while queue.next(isFirst: false, one) != nil {}
        let last = queue.next(isFirst: false, one)
        #expect(last == nil)
        #expect(queue.isIdle)
    }

    @Test func `a prompt message needs a free handler; the first at the door has the next one`() {
        var queue = WorkQueue<String>(concurrency: 1, messagesMax: 10, bytesMax: 1_000)
        func admits(_ name: String, by link: UInt64 = 1) -> Bool {
            let isIn = queue.admits(sender(name), link: link, isPrompt: true)
            if isIn { _ = queue.append(name, of: sender(name), messages: 1, bytes: 1) }
            return isIn
        }
        func next(isFirst: Bool) -> String? { queue.next(isFirst: isFirst, one) }
        func called(_ now: Instant = Self.start) -> [WorkQueue<String>.Door] {
            queue.calls(now: now).map(\.door)
        }
        #expect(admits("a"))
        #expect(!admits("b"))
        #expect(!admits("c"))
        #expect(!admits("b"))
        #expect(next(isFirst: true) == "a")
        #expect(called().isEmpty)
        #expect(next(isFirst: false) == nil)
        #expect(called() == [.sender(sender("b"))])
        // Who comes again at once waits behind those who waited.
        #expect(!admits("a"))
        // A promise is a sender's, whatever link it comes by.
        #expect(admits("b", by: 9))
        #expect(next(isFirst: true) == "b")
        #expect(next(isFirst: false) == nil)
        #expect(called() == [.sender(sender("c"))])
        // Who has nothing to send passes.
        #expect(!admits("d"))
        queue.pass(sender("c"))
        #expect(called() == [.sender(sender("a"))])
        queue.pass(sender("a"))
        #expect(called() == [.sender(sender("d"))])
        #expect(!admits("a"))
        // Who does not come in time loses its place.
        let later = Self.start + WorkQueue<String>.promiseTime
        #expect(queue.nextDeadline == later)
        #expect(called(later) == [.sender(sender("a"))])
    }

    @Test func `what waits and who waits is told at the end`() {
        var queue = WorkQueue<String>(concurrency: 1, messagesMax: 10, bytesMax: 1_000)
        _ = queue.append("a", of: sender("a"), messages: 1, bytes: 1)
        _ = queue.append("b", of: sender("b"), messages: 1, bytes: 1)
        _ = queue.admits(sender("c"), link: 3, isPrompt: true)
        let (items, doors) = queue.close()
        #expect(Set(items) == ["a", "b"])
        #expect(doors == [.sender(sender("c"))])
    }
}
