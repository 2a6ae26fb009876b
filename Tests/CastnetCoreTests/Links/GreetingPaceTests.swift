import CastnetCore
import NIOCore
import Testing

@Suite("Pacing of those who come")
struct GreetingPaceTests {
    private static let start = Instant(nanoseconds: 5_000_000_000)

    @Test("as many as a second allows at once, then as many a second", arguments: [1, 20, 1000, 1_000_000])
    func rate(perSecond: Int) {
        var pace = GreetingPace(perSecond: perSecond, seed: 1)
        var taken = 0
        let count = min(3 * perSecond, 10_000) + 1
        for _ in 0..<count where pace.greeted(now: Self.start) == nil { taken += 1 }
        #expect(taken == min(perSecond, count))
        guard taken < count else { return }
        var later = 0
        for _ in 0..<count where pace.greeted(now: Self.start + .seconds(1)) == nil { later += 1 }
        #expect((perSecond - 1...perSecond).contains(later))
    }

    @Test("who is sent away comes back within five seconds, and never as one crowd")
    func spread() {
        var pace = GreetingPace(perSecond: 10, seed: 2)
        let times = (0..<1000).compactMap { _ in pace.greeted(now: Self.start) }
        #expect(times.count == 990)
        #expect(times.allSatisfy { (.zero...GreetingPace.longest).contains($0) })
        let slots = Dictionary(grouping: times.dropFirst(100)) { $0.nanoseconds / 500_000_000 }
        #expect(slots.count >= 10)
        #expect(slots.values.allSatisfy { $0.count < 180 })
        // A few wait for little.
        var few = GreetingPace(perSecond: 10, seed: 3)
        let short = (0..<12).compactMap { _ in few.greeted(now: Self.start) }
        #expect(short.count == 2 && short.allSatisfy { $0 <= .milliseconds(500) })
    }

    @Test("a crowd that obeys is taken in at the rate of the limit", arguments: [64, 300])
    func crowd(count: Int) {
        var pace = GreetingPace(perSecond: 32, seed: 4)
        var waiting = [Instant](repeating: Self.start, count: count)
        var last = Self.start
        while let next = waiting.min(), let place = waiting.firstIndex(of: next) {
            last = next
            if let time = pace.greeted(now: next) {
                waiting[place] = next + max(time, .nanoseconds(1))
            } else {
                waiting.remove(at: place)
            }
        }
        let least = Duration.seconds(count / 32 - 1)
        #expect((least...(least * 2 + .seconds(6))).contains(last - Self.start))
    }

    // MARK: The dialler

    private let peer = NodeIdentity(name: "busy", incarnation: Incarnation(1))

    @Test("a dialler stays away for as long as it was told, also when another link to the peer opens")
    func obedience() {
        var queue = DialQueue(dialsMax: 9, linksMax: 99, perPeerMax: 9, seed: 1)
        for number in 1...3 as ClosedRange<UInt64> { queue.enqueue(number, to: peer, now: Self.start) }
        #expect(queue.next(openLinks: 0, now: Self.start) == .dial(1))
        #expect(queue.next(openLinks: 0, now: Self.start) == .dial(2))
        queue.dialled()
        queue.opened(peer, now: Self.start)
        queue.paced(peer, for: .seconds(3), now: Self.start)
        queue.dialled()
        queue.opened(peer, now: Self.start)
        queue.paced(peer, for: .seconds(1), now: Self.start)
        queue.opened(peer, now: Self.start)
        queue.enqueue(4, to: peer, now: Self.start)
        #expect(queue.isBackingOff(peer, now: Self.start + .milliseconds(2999)))
        #expect(queue.nextDeadline == Self.start + .seconds(3))
        queue.timerFired(now: Self.start + .seconds(3))
        // Its turn had come before it heard.
        #expect(queue.next(openLinks: 0, now: Self.start + .seconds(3)) == .dial(3))
        #expect(queue.next(openLinks: 0, now: Self.start + .seconds(3)) == .dial(4))
        queue.opened(peer, now: Self.start + .seconds(3))
        #expect(queue.backoffEnd(peer) == nil)
    }

    @Test("what a peer asks for is forgotten with it, and never above five seconds")
    func bounds() {
        var backoff = Backoff()
        backoff.paced(for: .seconds(86_400), now: Self.start)
        #expect(backoff.until == Self.start + .seconds(5))
        backoff.paced(for: .seconds(-1), now: Self.start)
        #expect(backoff.until == Self.start + .seconds(5))
        backoff.forget()
        #expect(backoff.until == nil)
    }

    @Test("links that break together are one failure; waits grow while the peer refuses")
    func failures() {
        var generator = SeededGenerator(seed: 5)
        var backoff = Backoff()
        for _ in 0..<50 { backoff.failed(now: Self.start, using: &generator) }
        #expect(backoff.until.map { $0 - Self.start <= .milliseconds(150) } == true)
        var now = Self.start
        var longest = Duration.zero
        for _ in 0..<50 {
            now = backoff.until ?? now
            backoff.opened(now: now)
            backoff.failed(now: now, isRefused: true, using: &generator)
            longest = max(longest, (backoff.until ?? now) - now)
        }
        #expect(longest > .seconds(1) && longest <= .seconds(5))
        backoff.opened(now: now)
        backoff.failed(now: now, using: &generator)
        #expect(backoff.until.map { $0 - now <= .milliseconds(150) } == true)
    }

    // MARK: The machines

    @Test("who is sent away learns when to come back: five seconds at most, and from a refusal only")
    func machines() {
        typealias Machines = LinkMachineTests
        let now = Machines.start
        var acceptor = Machines.acceptor()
        let early = Machines.word(acceptor.sendAway(for: .seconds(1), "busy"))
        #expect(early == "none")
        _ = acceptor.received(.hello(Machines.hello(Machines.api)), now: now)
        let away = acceptor.sendAway(for: .milliseconds(1234), "busy")
        guard case .close(.limit, let goodbye?, nil) = away else {
            Issue.record("\(Machines.word(away))")
            return
        }
        #expect(goodbye == Goodbye(.limit, "busy", comeBackMilliseconds: 1234))
        let after = Machines.word(acceptor.received(Machines.message, now: now))
        #expect(after == "none")
        let cases: [(Goodbye, Duration?)] = [
            (goodbye, .milliseconds(1234)),
            (Goodbye(.limit, comeBackMilliseconds: 0), .zero),
            (Goodbye(.limit, comeBackMilliseconds: .max), .seconds(5)),
            (Goodbye(.limit), nil), (Goodbye(.idle, comeBackMilliseconds: 9), nil),
        ]
        for (goodbye, expected) in cases {
            var dialler = Machines.dialler()
            _ = dialler.received(.hello(Machines.hello(Machines.worker)), now: now)
            let end = Machines.word(dialler.received(.goodbye(goodbye), now: now))
            #expect(end.hasSuffix("taken 0"))
            let comeBack = dialler.comeBack
            #expect(comeBack == expected)
        }
        // An acceptor is told nothing of the kind.
        var other = Machines.acceptor()
        _ = other.received(.hello(Machines.hello(Machines.api)), now: now)
        _ = other.received(.goodbye(Goodbye(.limit, comeBackMilliseconds: 9)), now: now)
        let comeBack = other.comeBack
        #expect(comeBack == nil)
    }

    @Test("bytes behind the text are for refusals, and others' are ignored")
    func bytes() throws {
        func decoded(_ reason: UInt8, _ more: [UInt8]) throws -> Goodbye? {
            var buffer = ByteBuffer()
            buffer.writeInteger(UInt32(13 + more.count))
            buffer.writeBytes([0x02, 0, reason] + [UInt8](repeating: 0, count: 10) + more)
            var decoder = PacketDecoder()
            decoder.feed(&buffer)
            guard case .goodbye(let goodbye)? = try decoder.next() else { return nil }
            return goodbye
        }
        #expect(try decoded(7, [0, 0, 1, 0])?.comeBackMilliseconds == 256)
        #expect(try decoded(7, [0, 0, 1, 0, 9, 9])?.comeBackMilliseconds == 256)
        #expect(try decoded(7, [0, 0, 1])?.comeBackMilliseconds == nil)
        #expect(try decoded(7, [])?.comeBackMilliseconds == nil)
        #expect(try decoded(1, [0, 0, 1, 0])?.comeBackMilliseconds == nil)
    }
}
