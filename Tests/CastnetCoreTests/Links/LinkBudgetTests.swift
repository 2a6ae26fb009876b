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
        for link in 1...3 as ClosedRange<UInt64> {
            let found1 = budget.verdict(for: "a", dialling: 0)
            #expect(found1 == .take)
            budget.accepted(link, from: "a")
        }
        budget.introduced(1)
        let found2 = budget.verdict(for: "b", dialling: 0)
        #expect(found2 == .displace(2))
        budget.closed(2, from: "a")
        let found3 = budget.verdict(for: "b", dialling: 1)
        #expect(found3 == .displace(3))
        let found4 = budget.verdict(for: "b", dialling: 0)
        #expect(found4 == .take)
        budget.accepted(4, from: "b")
        budget.introduced(3)
        budget.introduced(4)
        let found5 = budget.verdict(for: "b", dialling: 0)
        #expect(found5 == .closeIdle)
        #expect(!budget.hasReserve(dialling: 0))
    }

    @Test("one address takes no more than its share, and displaces only its own")
    func addresses() {
        var budget = LinkBudget(connections: 100, perAddress: 2, descriptors: nil)
        budget.accepted(1, from: "b")
        budget.accepted(2, from: "a")
        budget.accepted(3, from: "a")
        let found6 = budget.verdict(for: "a", dialling: 0)
        #expect(found6 == .displace(2))
        budget.introduced(2)
        budget.introduced(3)
        let found7 = budget.verdict(for: "a", dialling: 0)
        #expect(found7 == .refuseAddress)
        let found8 = budget.verdict(for: "b", dialling: 0)
        #expect(found8 == .take)
        let found9 = budget.verdict(for: "", dialling: 0)
        #expect(found9 == .take)
    }

    @Test("a reserve is left for repair")
    func reserve() {
        var budget = LinkBudget(connections: 32, perAddress: 100, descriptors: nil)
        for link in 1...30 as ClosedRange<UInt64> {
            budget.accepted(link, from: "a")
            budget.introduced(link)
        }
        let found10 = budget.verdict(for: "a", dialling: 0)
        #expect(found10 == .closeIdle)
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
        let found11 = budget.crowded(now: start + .milliseconds(10))
        #expect(found11 == nil)
    }
}

@Suite("Credit, replay and heat of topics") struct LinkFlowTests {
    private let topic = Topic(unchecked: "scheduler")
    private let other = Topic(unchecked: "other")

    @Test("a sender that uses its credit up gets it back once messages are finished: never a deadlock")
    func credit() {
        for bytes in [0, 64, 5_000, 64 << 10, 64 << 20] {
            var (book, ledger) = (CreditBook(), CreditLedger())
            var (arrived, sent) = (0, 0)
            for _ in 0..<20_000 {
                if book.take(topic, bytes: bytes) {
                    let found12 = ledger.received(topic, bytes: bytes)
                    #expect(found12)
                    (sent, arrived) = (sent + 1, arrived + 1)
                    continue
                }
                // What is finished one by one must wake the sender before nothing is left.
                var grant: Credit?
                while grant == nil, arrived > 0 {
                    grant = ledger.finished(topic, bytes: bytes)
                    arrived -= 1
                }
                guard let grant else {
                    Issue.record("no credit though everything is finished, \(bytes) bytes")
                    break
                }
                book.granted(grant, of: topic)
            }
            #expect(sent >= 10_000)
        }
    }

    @Test("who sends past its credit is found out; topics nobody comes back to cost nothing")
    func ledger() {
        var ledger = CreditLedger()
        for _ in 0..<CreditBook.firstMessages {
            let found = ledger.received(topic, bytes: 1)
            #expect(found)
        }
        let found14 = ledger.received(topic, bytes: 1)
        #expect(!found14)
        let found15 = ledger.received(other, bytes: 1)
        #expect(found15)
        var grants = 0
        for number in 0..<5_000 {
            let once = Topic(unchecked: "t\(number)")
            let found16 = ledger.received(once, bytes: 10)
            #expect(found16)
            if ledger.finished(once, bytes: 10) != nil { grants += 1 }
        }
        #expect(grants > 3_900)
    }

    @Test("a topic without credit, or held, stops no other, and stays in order")
    func queue() {
        var queue = SendQueue()
        for id in 0..<UInt64(CreditBook.firstMessages) {
            let found = queue.begins(id, topic, bytes: 1)
            #expect(found)
        }
        for id in 5_000..<5_010 as Range<UInt64> {
            let found = queue.begins(id, topic, bytes: 1)
            #expect(!found)
        }
        let found19 = queue.begins(6_000, other, bytes: 1)
        #expect(found19)
        queue.append(5_010)
        queue.granted(Credit(topic: topic.name, messages: 4, bytes: 4))
        var begun: [UInt64] = []
        while let id = queue.next() { if queue.begins(id, topic, bytes: 1) { begun.append(id) } }
        #expect(begun == [5_000, 5_001, 5_002, 5_003])
        queue.granted(Credit(topic: topic.name, messages: 100, bytes: 100))
        while let id = queue.next() { if queue.begins(id, topic, bytes: 1) { begun.append(id) } }
        #expect(begun == Array(5_000...5_010))

        queue.hold(other)
        let found20 = queue.begins(7_000, other, bytes: 1)
        #expect(!found20)
        let found21 = queue.next()
        #expect(found21 == nil)
        queue.release(other)
        let found22 = queue.next()
        #expect(found22 == 7_000)
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
        let first = (0..<12).map { hot.sent(topic, promotion, now: at($0)) }
        #expect(first == Array(repeating: false, count: 9) + [true, true, true])
        #expect(hot.promotedCount == 1)
        let found24 = hot.cool(now: at(50)) { _ in false }
        #expect(found24.isEmpty)
        // Between the rates nothing changes.
        for second in [60, 65, 70, 75, 80] as [Int64] {
            let found25 = hot.sent(topic, promotion, now: at(second))
            #expect(found25)
            let found26 = hot.cool(now: at(second)) { _ in false }
            #expect(found26.isEmpty)
        }
        let found27 = hot.cool(now: at(150)) { _ in true }
        #expect(found27.isEmpty, "a busy topic stays")
        let found28 = hot.cool(now: at(150)) { _ in false }
        #expect(found28 == [topic])
        let found29 = hot.sent(topic, promotion, now: at(151))
        #expect(!found29)
        // A topic without a policy for it is only named.
        for _ in 0..<400 {
            let found = hot.sent(other, nil, now: at(152))
            #expect(!found)
        }
        #expect(hot.hot(now: at(152)) == [.init(topic: other, perMinute: 400, isPromoted: false)])
        for number in 0..<100 { _ = hot.sent(Topic(unchecked: "t\(number)"), nil, now: at(153)) }
        #expect(hot.hot(now: at(300)).isEmpty)
    }
}
