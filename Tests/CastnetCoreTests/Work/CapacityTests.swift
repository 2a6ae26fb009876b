import Testing

@testable import CastnetCore

/// Members of different speed get what they can do, and nothing while their hands are full.
@Suite("Capacity") struct CapacityTests {
    private static let topic = Topic(unchecked: "t")

    private func member(_ name: String) -> Member {
        Member(
            identity: NodeIdentity(name: name, incarnation: Incarnation(1)), server: name, addresses: [])
    }

    /// Servers with their times, driven by one client with `inFlight` messages, or at a rate.
    private struct Model {
        var book = CapacityBook(topicsMax: 10)
        var members: [Member]
        let times: [Double]
        let concurrency: Int
        var busy: [[Double]]
        var done: [Int]
        var turnedAway = 0

        init(_ members: [Member], _ times: [Double], concurrency: Int) {
            self.members = members
            self.times = times
            self.concurrency = concurrency
            busy = times.map { _ in [] }
            done = times.map { _ in 0 }
        }

        /// True when somebody took it.
        mutating func send(at now: Double) -> Bool {
            while let picked = book.pick(members, topic: topic) {
                book.sent(topic, to: picked.identity)
                let index = members.firstIndex(of: picked) ?? 0
                guard busy[index].count >= concurrency else {
                    busy[index].append(now + times[index])
                    return true
                }
                turnedAway += 1
                book.turnedAway(topic, by: picked.identity)
            }
            return false
        }

        mutating func finish(at now: Double) {
            for index in busy.indices {
                for end in busy[index] where end <= now {
                    done[index] += 1
                    let time = Duration.nanoseconds(Int64(times[index] * 1e9))
                    book.answered(topic, by: members[index].identity, service: time)
                }
                busy[index].removeAll { $0 <= now }
            }
        }
    }

    private func shares(
        concurrency: Int, inFlight: Int = .max, every interval: Double = 0, seconds: Double = 20
    ) -> (done: [Int], turnedAway: Int) {
        let members = ["a", "b", "c"].map(member)
        var model = Model(members, [0.0102, 0.0204, 0.0408], concurrency: concurrency)
        var (now, next, waiting) = (0.0, 0.0, 0)
        while now < seconds {
            model.finish(at: now)
            if interval > 0 {
                while next <= now {
                    waiting += 1
                    next += interval
                }
            } else {
                waiting = inFlight - model.busy.reduce(0) { $0 + $1.count }
            }
            while waiting > 0, model.send(at: now) { waiting -= 1 }
            now += 0.000_5
        }
        return (model.done, model.turnedAway)
    }

    private func expect(
        _ done: [Int], at location: SourceLocation = #_sourceLocation
    ) {
        let sum = Double(done.reduce(0, +))
        for (count, share) in zip(done, [4.0 / 7, 2.0 / 7, 1.0 / 7]) {
            let found = Double(count) / sum
            #expect(abs(found - share) <= share / 10, "\(done)", sourceLocation: location)
        }
    }

    @Test(arguments: [1, 64]) func `shares follow the speed, with everybody busy`(concurrency: Int) {
        let (done, turnedAway) = shares(concurrency: concurrency, inFlight: 32)
        expect(done)
        #expect(turnedAway * 5 <= done.reduce(0, +), "\(turnedAway) of \(done)")
    }

    @Test func `shares follow the speed below saturation, and one by one`() {
        expect(shares(concurrency: 1, every: 1.0 / 85).done)
        expect(shares(concurrency: 64, every: 1.0 / 85).done)
        expect(shares(concurrency: 1, inFlight: 1).done)
    }

    @Test func `a member whose hands are full gets nothing until it answers or calls`() {
        var book = CapacityBook(topicsMax: 10)
        let (one, two) = (member("one"), member("two"))
        book.sent(Self.topic, to: one.identity)
        book.sent(Self.topic, to: one.identity)
        book.turnedAway(Self.topic, by: one.identity)
        #expect(book.pick([one], topic: Self.topic) == nil)
        #expect(book.pick([one, two], topic: Self.topic) == two)
        book.called(Self.topic, by: one.identity, for: 1)
        #expect(book.pick([one], topic: Self.topic) == one)
        book.sent(Self.topic, to: one.identity)
        #expect(book.pick([one], topic: Self.topic) == nil)
        // It may be free again: the next one finds out.
        book.gaveUp(Self.topic, at: one.identity)
        #expect(book.pick([one], topic: Self.topic) == one)
        book.turnedAway(Self.topic, by: one.identity)
        book.forget(one.identity)
        #expect(book.pick([one], topic: Self.topic) == one)
    }

    @Test func `a first message that takes long, because of its connection, is soon forgotten`() {
        var model = Model([member("quick"), member("slow")], [0.01, 0.02], concurrency: 64)
        model.book.sent(Self.topic, to: model.members[0].identity)
        model.book.answered(Self.topic, by: model.members[0].identity, service: .milliseconds(500))
        for step in 0..<100 {
            model.finish(at: Double(step) * 0.0125)
            let isTaken = model.send(at: Double(step) * 0.0125)
            #expect(isTaken)
        }
        // Of a hundred, in a little more than a second.
        #expect(model.done[0] >= 50, "\(model.done)")
    }
}
