import CastnetCore
import NIOCore
import Testing

@Suite("The budget of links") struct LinkBudgetTests {
    private let start = Instant(nanoseconds: 0)

    @Test("the process's descriptors bound the links, with room for everything else")
    func descriptors() {
        func most(_ connections: Int, _ max: Int, _ used: Int) -> Int {
            LinkBudget(
                connections: connections, perAddress: 128, descriptors: .init(max: max, used: used)
            ).linksMax
        }
        #expect(most(512, 1 << 20, 30) == 512)
        #expect(most(512, 256, 20) == 256 - 20 - LinkBudget.otherDescriptors)
        #expect(most(512, 64, 20) == 22, "a small process gives half of what is left")
        #expect(most(512, 16, 16) == 4)
        #expect(LinkBudget(connections: 512, perAddress: 1, descriptors: nil).ordinaryMax == 496)
        #expect(LinkBudget(connections: 8, perAddress: 1, descriptors: nil).ordinaryMax == 8)
    }

    @Test("who has not said hello makes room, the oldest first; who has stays")
    func strangers() {
        var budget = LinkBudget(connections: 3, perAddress: 100, descriptors: nil)
        func verdict(_ address: String, _ dialling: Int) -> LinkBudget.Verdict {
            budget.verdict(for: address, dialling: dialling)
        }
        for link in 1...3 as ClosedRange<UInt64> {
            #expect(verdict("a", 0) == .take)
            budget.accepted(link, from: "a")
        }
        budget.introduced(1)
        #expect(verdict("b", 0) == .displace(2))
        budget.closed(2, from: "a")
        #expect(verdict("b", 1) == .displace(3))
        #expect(verdict("b", 0) == .take)
        budget.accepted(4, from: "b")
        budget.introduced(3)
        budget.introduced(4)
        #expect(verdict("b", 0) == .closeIdle)
        #expect(!budget.hasReserve(dialling: 0))
    }

    @Test("one address takes no more than its share, and displaces only its own")
    func addresses() {
        var budget = LinkBudget(connections: 100, perAddress: 2, descriptors: nil)
        func verdict(_ address: String, _ dialling: Int) -> LinkBudget.Verdict {
            budget.verdict(for: address, dialling: dialling)
        }
        budget.accepted(1, from: "b")
        budget.accepted(2, from: "a")
        budget.accepted(3, from: "a")
        #expect(verdict("a", 0) == .displaceOfAddress(2))
        budget.introduced(2)
        budget.introduced(3)
        #expect(verdict("a", 0) == .refuseAddress)
        #expect(verdict("b", 0) == .take)
        #expect(verdict("", 0) == .take)
    }

    @Test("a reserve is left for repair")
    func reserve() {
        var budget = LinkBudget(connections: 32, perAddress: 100, descriptors: nil)
        func verdict(_ address: String, _ dialling: Int) -> LinkBudget.Verdict {
            budget.verdict(for: address, dialling: dialling)
        }
        for link in 1...30 as ClosedRange<UInt64> {
            budget.accepted(link, from: "a")
            budget.introduced(link)
        }
        #expect(verdict("a", 0) == .closeIdle)
        #expect(budget.hasReserve(dialling: 0))
        budget.accepted(31, from: "a")
        #expect(budget.isInReserve)
        #expect(!budget.hasReserve(dialling: 1))
    }

    @Test("a crowd stops the listener for a moment, again and again")
    func crowd() {
        var budget = LinkBudget(connections: 1, perAddress: 1, descriptors: nil)
        let pauses = (0..<32).compactMap { _ in budget.crowded(now: start) }
        #expect(pauses == [start + .milliseconds(10)])
        let next = budget.crowded(now: start + .milliseconds(10))
        #expect(next == nil)
    }
}

@Suite("Credit, replay and heat of topics") struct LinkFlowTests {
    private let topic = Topic(unchecked: "scheduler")
    private let other = Topic(unchecked: "other")

    @Test("a sender that uses its credit up gets it back once messages are finished: never a deadlock")
    func credit() {
        for bytes in [0, 64, 5_000, 64 << 10, 64 << 20] {
            var (book, ledger) = (CreditBook(), CreditLedger())
            var (waiting, sent, refused) = (0, 0, 0)
            for _ in 0..<10_000 {
                if book.take(topic, bytes: bytes) {
                    if !ledger.received(topic, bytes: bytes) { refused += 1 }
                    (sent, waiting) = (sent + 1, waiting + 1)
                    continue
                }
                // What is finished one by one must wake the sender before nothing is left.
                var grant: Credit?
                while grant == nil, waiting > 0 {
                    grant = ledger.finished(topic, bytes: bytes)
                    waiting -= 1
                }
                if let grant { book.granted(grant, of: topic) }
            }
            #expect(sent >= 5_000, "\(bytes) bytes")
            #expect(refused == 0, "\(bytes) bytes")
        }
    }

    @Test("who sends past its credit is found out; topics nobody comes back to cost nothing")
    func ledger() {
        var ledger = CreditLedger()
        let taken = (0..<CreditBook.firstMessages + 1).map { _ in ledger.received(topic, bytes: 1) }
        #expect(taken.count { $0 } == CreditBook.firstMessages)
        #expect(taken.last == false)
        let isOtherTaken = ledger.received(other, bytes: 1)
        #expect(isOtherTaken)
        var grants = 0
        for number in 0..<5_000 {
            let once = Topic(unchecked: "t\(number)")
            guard ledger.received(once, bytes: 10) else { continue }
            if ledger.finished(once, bytes: 10) != nil { grants += 1 }
        }
        #expect(grants > 3_900)
    }

    @Test("a topic without credit, or held, stops no other, and stays in order")
    func queue() {
        var queue = SendQueue()
        func begin(_ ids: Range<UInt64>, _ topic: Topic) -> [UInt64] {
            ids.filter { queue.start($0, topic, bytes: 1) == .now }
        }
        func beginReady(_ topic: Topic, unwanted: Set<UInt64> = []) -> [UInt64] {
            var begun: [UInt64] = []
            while let (id, hasCredit) = queue.next(isWanted: { !unwanted.contains($0) }) {
                begun += hasCredit ? [id] : begin(id..<id + 1, topic)
            }
            return begun
        }
        #expect(begin(0..<5_000, topic) == Array(0..<UInt64(CreditBook.firstMessages)))
        #expect(begin(6_000..<6_001, other) == [6_000])
        queue.append(5_000)
        queue.granted(Credit(topic: topic.name, messages: 4, bytes: 4))
        #expect(beginReady(topic, unwanted: [4_098]) == [4_096, 4_097, 4_099, 4_100])
        queue.granted(Credit(topic: topic.name, messages: 2_000, bytes: 2_000))
        #expect(beginReady(topic) == Array(4_101...5_000))

        queue.hold(other)
        #expect(begin(7_000..<7_001, other).isEmpty)
        #expect(beginReady(other).isEmpty)
        queue.release(other)
        #expect(beginReady(other) == [7_000])
        #expect(queue.waitingCount == 0)
    }

    @Test("what came before is known until its answer is confirmed, and doubted where it was forgotten")
    func replay() {
        var window = ReplayWindow()
        let reply = { (id: UInt64) in ReplyHead(id: id, outcome: .accepted, total: 0) }
        window.opened(10)
        window.began(1)
        window.opened(20)
        guard case .running = window.again(1, by: 20) else { return #expect(Bool(false), "not running") }
        let way = window.handled(1, on: 10)
        #expect(way == 20)
        window.answered(reply(1), ByteBuffer(string: "one"), on: way)
        window.closed(20)
        guard case .answered(_, let kept?) = window.again(1, by: 10) else {
            return #expect(Bool(false), "not answered")
        }
        #expect(String(buffer: kept) == "one")
        guard case .new = window.again(2, by: 10) else { return #expect(Bool(false), "not new") }
        window.began(2)
        window.answered(reply(2), ByteBuffer(repeating: 1, count: 2 << 20), on: window.handled(2, on: 10))
        guard case .answered(_, nil) = window.again(2, by: 10) else {
            return #expect(Bool(false), "a large answer was kept")
        }
        // Answers without bytes are kept as such, whatever room the others take.
        window.began(3)
        window.answered(reply(3), ByteBuffer(), on: window.handled(3, on: 10))
        guard case .answered(_, .some) = window.again(3, by: 10) else {
            return #expect(Bool(false), "an empty answer was lost")
        }
        #expect(window.idMax == 3)
    }

    @Test("the first copy of a message is not handled where the second was faster")
    func overtaken() {
        var window = ReplayWindow()
        window.opened(1)
        window.opened(2)
        guard case .new = window.again(7, by: 2) else { return #expect(Bool(false), "not new") }
        window.began(7)
        #expect(window.isOvertaken(7) && !window.isOvertaken(8))
        for id in 100..<100_000 as Range<UInt64> { _ = window.again(id, by: 2) }
        #expect(window.isOvertaken(99_999) && !window.isOvertaken(7), "the oldest go first")
        window.closed(1)
        #expect(!window.isOvertaken(99_999), "the first link can bring no more")
    }

    @Test("a peer that confirms nothing is remembered as far as there is room")
    func unconfirmed() {
        var window = ReplayWindow()
        window.opened(1)
        for id in 1...5_000 as ClosedRange<UInt64> {
            window.began(id)
            let head = ReplyHead(id: id, outcome: .accepted, total: 0)
            window.answered(head, ByteBuffer(), on: window.handled(id, on: 1))
        }
        guard case .forgotten = window.again(900, by: 1) else { return #expect(Bool(false), "remembered") }
        guard case .answered = window.again(4_000, by: 1) else { return #expect(Bool(false), "forgotten") }
        guard case .new = window.again(5_001, by: 1) else { return #expect(Bool(false), "not new") }
        window.confirmed(5_000, on: 1)
        // It has its answer, and so will never ask; if it does, that is as if it had never come.
        guard case .new = window.again(4_000, by: 1) else { return #expect(Bool(false), "not confirmed") }
    }

    @Test("topics are promoted at the one rate and sent back below the other")
    func heat() {
        var hot = HotTopics(topicsMax: 3)
        let promotion = Route.Promotion(afterPerMinute: 10, backPerMinute: 3)
        let at = { (seconds: Int64) in Instant(nanoseconds: seconds * 1_000_000_000) }
        func send(at second: Int64) -> Bool { hot.sent(topic, promotion, now: at(second)) }
        func cool(_ second: Int64, isBusy: Bool) -> [Topic] { hot.cool(now: at(second)) { _ in isBusy } }
        let first = (0..<12).map { send(at: $0) }
        #expect(first == Array(repeating: false, count: 9) + [true, true, true])
        #expect(hot.promotedCount == 1)
        #expect(cool(50, isBusy: false).isEmpty)
        // Between the rates nothing changes.
        for second in [60, 65, 70, 75, 80] as [Int64] {
            #expect(send(at: second))
            #expect(cool(second, isBusy: false).isEmpty)
        }
        #expect(cool(150, isBusy: true).isEmpty, "a busy topic stays")
        #expect(cool(150, isBusy: false) == [topic])
        #expect(!send(at: 151))
        // A topic without a policy for it is only named.
        let promoted = (0..<400).count { _ in hot.sent(other, nil, now: at(152)) }
        #expect(promoted == 0)
        #expect(hot.hot(now: at(152)) == [.init(topic: other, perMinute: 400, isPromoted: false)])
        for number in 0..<100 { _ = hot.sent(Topic(unchecked: "t\(number)"), nil, now: at(153)) }
        #expect(hot.hot(now: at(300)).isEmpty)
    }

    @Test func `an answer that outlives its link holds its own bytes only`() {
        var window = ReplayWindow()
        window.opened(1)
        // As it was read from a socket: a small reply is a part of a large buffer.
        let read = ByteBuffer(repeating: 7, count: 60_000)
        let slice = read.getSlice(at: 100, length: 20)
        for id in 1...2 as ClosedRange<UInt64> {
            window.began(id)
            _ = window.handled(id, on: 1)
            let head = ReplyHead(id: id, outcome: .accepted, total: 20)
            // The second is answered when the link has ended.
            window.answered(head, slice ?? read, on: 1)
            if id == 1 { window.closed(1) }
        }
        for id in 1...2 as ClosedRange<UInt64> {
            guard case .answered(_, let payload?) = window.again(id, by: 2) else {
                Issue.record("\(id) is not known")
                continue
            }
            #expect(payload == slice)
            #expect(payload.storageCapacity < 200)
        }
    }
}
