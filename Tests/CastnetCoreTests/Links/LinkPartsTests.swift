import CastnetCore
import NIOCore
import Testing

@Suite("Parts of links")
struct LinkPartsTests {
    static let start = Instant(nanoseconds: 0)

    // MARK: Large messages

    @Test("chunks of several messages take turns, and come together again")
    func chunks() {
        var queue = ChunkQueue(chunkBytes: 10)
        queue.append(1, isReply: false, ByteBuffer(repeating: 1, count: 35))
        queue.append(2, isReply: false, ByteBuffer(repeating: 2, count: 15))
        queue.append(3, isReply: false, ByteBuffer())
        var assembler = PartAssembler<Int>()
        let begun = [
            assembler.begin(1, 100, first: ByteBuffer(), total: 35, now: Self.start),
            assembler.begin(2, 200, first: ByteBuffer(), total: 15, now: Self.start),
            assembler.begin(2, 200, first: ByteBuffer(), total: 15, now: Self.start),
        ]
        #expect(begun == [true, true, false])
        var order: [UInt64] = []
        var whole: [Int] = []
        while let chunk = queue.next() {
            order.append(chunk.id)
            if case .whole(let head, let bytes, _) = assembler.chunk(chunk.id, chunk.bytes) {
                whole.append(head + bytes.readableBytes)
            }
        }
        #expect(order == [1, 2, 1, 2, 1, 1])
        #expect(whole == [215, 135])
        let held = assembler.heldBytes
        #expect(held == 0)
    }

    @Test("an assembler holds what came, never what was claimed, and forgets what goes too far")
    func assembler() {
        var assembler = PartAssembler<Int>()
        _ = assembler.begin(1, 0, first: ByteBuffer(repeating: 0, count: 5), total: 1 << 40, now: Self.start)
        let held = assembler.heldBytes
        #expect(held == 5)
        _ = assembler.begin(2, 0, first: ByteBuffer(repeating: 0, count: 5), total: 8, now: Self.start)
        if case .inconsistent = assembler.chunk(2, ByteBuffer(repeating: 0, count: 4)) {
        } else {
            Issue.record("too far")
        }
        if case .stray = assembler.chunk(2, ByteBuffer(repeating: 0, count: 4)) {
        } else {
            Issue.record("stray")
        }
        let head = assembler.forget(1)
        #expect(head == 0)
        let (left, isEmpty) = (assembler.heldBytes, assembler.isEmpty)
        #expect(left == 0)
        #expect(isEmpty)
    }

    @Test("what is cut is dropped on request")
    func forgetChunks() {
        var queue = ChunkQueue(chunkBytes: 10)
        queue.append(1, isReply: false, ByteBuffer(repeating: 1, count: 35))
        queue.append(1, isReply: true, ByteBuffer(repeating: 1, count: 5))
        let (first, second) = (queue.forget(1, isReply: false), queue.forget(1, isReply: false))
        #expect(first)
        #expect(!second)
        let left = queue.next()
        #expect(left?.isReply == true)
    }

    // MARK: Turns

    private func members(_ names: [String]) -> [Member] {
        names.map {
            Member(identity: NodeIdentity(name: $0, incarnation: Incarnation(1)), server: $0, addresses: [])
        }
    }

    @Test("strict turns whatever order the members come in; shares stay within one while members change")
    func roundRobin() {
        var generator = SeededGenerator(seed: 11)
        var balancer = Balancer(topicsMax: 10)
        let topic = Topic(unchecked: "t")
        var names = ["a", "b", "c", "d"]
        for _ in 0..<50 {
            var shares: [String: Int] = [:]
            for _ in 0..<Int.random(in: 1...40, using: &generator) {
                let picked = balancer.pick(
                    members(names.shuffled(using: &generator)), for: Target(topic), balance: .roundRobin
                ) { _ in 0 }
                shares[picked?.server ?? "", default: 0] += 1
            }
            let counts = names.map { shares[$0, default: 0] }
            #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1)
            if names.count > 2, Bool.random(using: &generator) {
                names.removeLast()
            } else {
                names.append("n\(names.count)")
            }
        }
        #expect(balancer.pick([], for: Target(topic), balance: .roundRobin) { _ in 0 } == nil)
    }

    @Test("least outstanding takes the idlest, and turns between equals")
    func leastOutstanding() {
        var balancer = Balancer(topicsMax: 10)
        let topic = Topic(unchecked: "t")
        let loads = ["a": 2, "b": 0, "c": 0]
        let picks = (0..<4).map { _ in
            balancer.pick(members(["a", "b", "c"]), for: Target(topic), balance: .leastOutstanding) {
                loads[$0.name, default: 0]
            }?.server
        }
        #expect(picks == ["b", "c", "b", "c"])
    }

    // MARK: Dials

    private func peer(_ number: Int) -> NodeIdentity {
        NodeIdentity(name: "peer-\(number)", incarnation: Incarnation(1))
    }

    @Test("dials in flight, links in all and links per peer are bounded; turns go round the peers")
    func dialLimits() {
        var queue = DialQueue(dialsMax: 2, linksMax: 10, perPeerMax: 1, seed: 1)
        queue.enqueue(1, to: peer(1), now: Self.start)
        queue.enqueue(2, to: peer(1), now: Self.start)
        queue.enqueue(3, to: peer(2), now: Self.start)
        queue.enqueue(4, to: peer(3), now: Self.start)
        #expect(queue.next(openLinks: 0, now: Self.start) == .dial(1))
        #expect(queue.next(openLinks: 0, now: Self.start) == .dial(3))
        #expect(queue.next(openLinks: 0, now: Self.start) == .dialsFull)
        queue.dialled()
        #expect(queue.next(openLinks: 9, now: Self.start) == .linksFull)
        #expect(queue.next(openLinks: 1, now: Self.start) == .dial(4))
        queue.dialled()
        queue.dialled()
        #expect(queue.next(openLinks: 3, now: Self.start) == .none)
        queue.closed(peer(1), inOrder: true, now: Self.start)
        #expect(queue.next(openLinks: 2, now: Self.start) == .dial(2))
    }

    @Test("a link that turns out to lead to a peer counts as that peer's")
    func renamed() {
        var queue = DialQueue(dialsMax: 9, linksMax: 10, perPeerMax: 1, seed: 1)
        queue.enqueue(1, to: peer(0), now: Self.start)
        #expect(queue.next(openLinks: 0, now: Self.start) == .dial(1))
        queue.enqueue(2, to: peer(0), now: Self.start)
        queue.renamed(peer(0), to: peer(1), now: Self.start)
        #expect(queue.next(openLinks: 1, now: Self.start) == .dial(2))
        queue.enqueue(3, to: peer(1), now: Self.start)
        #expect(queue.next(openLinks: 2, now: Self.start) == .none)
        queue.closed(peer(1), inOrder: true, now: Self.start)
        #expect(queue.next(openLinks: 1, now: Self.start) == .dial(3))
    }

    @Test("a failed dial waits 50 ms to 5 s, with jitter; success forgets it")
    func backoff() {
        var queue = DialQueue(dialsMax: 2, linksMax: 10, perPeerMax: 4, seed: 1)
        var now = Self.start
        for number in 1...30 as ClosedRange<UInt64> {
            queue.enqueue(number, to: peer(1), now: now)
            #expect(queue.next(openLinks: 0, now: now) == (number == 1 ? .dial(1) : .none))
            if let end = queue.nextDeadline {
                #expect((.milliseconds(50)...(.seconds(5))).contains(end - now))
                #expect(queue.isBackingOff(peer(1), now: now))
                now = end
                queue.timerFired(now: now)
                #expect(queue.next(openLinks: 0, now: now) == .dial(number))
            }
            queue.failed(peer(1), now: now)
        }
        queue.peerGone(peer(1), now: now)
        #expect(!queue.isBackingOff(peer(1), now: now))
        queue.enqueue(99, to: peer(1), now: now)
        queue.forget(99, to: peer(1))
        #expect(queue.next(openLinks: 0, now: now) == .none)
    }
}

@Suite("Attempts")
struct AttemptsTests {
    private let one = NodeIdentity(name: "a", incarnation: Incarnation(1))
    private let two = NodeIdentity(name: "b", incarnation: Incarnation(1))

    private func member(_ identity: NodeIdentity) -> Member {
        Member(identity: identity, server: identity.name, addresses: [])
    }

    private func route(_ retry: Route.Retry, idempotent: Bool = false) -> Route {
        var route = Route(carrier: .persistent)
        route.retry = retry
        route.idempotent = idempotent
        return route
    }

    @Test("what was not taken goes on for as long as it takes, elsewhere first")
    func untaken() {
        var attempts = Attempts()
        for _ in 0..<10 {
            attempts.begin(at: one)
            #expect(attempts.linkLost(wasTaken: false, route: route(.none)) == .again)
        }
        let both = [member(one), member(two)]
        #expect(attempts.preferred(both) { _ in false }.map(\.identity) == [two])
        #expect(attempts.preferred([member(one)]) { _ in false }.map(\.identity) == [one])
        #expect(attempts.preferred(both) { $0 == two }.map(\.identity) == [two])
        #expect(Attempts().preferred(both) { $0 == two }.map(\.identity) == [one])
    }

    @Test("what may have been executed is lost, unless repeating does no harm, up to the attempts")
    func taken() {
        var attempts = Attempts()
        attempts.begin(at: one)
        #expect(attempts.linkLost(wasTaken: true, route: route(.otherMember)) == .end(.lost))
        let harmless = route(.otherMember, idempotent: true)
        #expect(attempts.linkLost(wasTaken: true, route: harmless) == .again)
        attempts.begin(at: two)
        #expect(attempts.linkLost(wasTaken: true, route: harmless) == .end(.lost))
    }

    @Test("`same` waits for the same node; what may have been executed is not released afterwards")
    func same() {
        var attempts = Attempts()
        attempts.begin(at: one)
        #expect(attempts.linkLost(wasTaken: false, route: route(.same, idempotent: true)) == .again)
        #expect(attempts.count == 0 && !attempts.mayHaveRun)
        attempts.begin(at: one)
        #expect(attempts.linkLost(wasTaken: true, route: route(.same, idempotent: true)) == .again)
        #expect(attempts.mayHaveRun)
        let restarted = NodeIdentity(name: "a", incarnation: Incarnation(2))
        #expect(attempts.preferred([member(two)]) { _ in false }.isEmpty)
        #expect(attempts.preferred([member(two), member(restarted)]) { _ in false } == [member(restarted)])
    }

    @Test("what a member gives back goes to another where the policy says so, or the member is leaving")
    func released() {
        var attempts = Attempts()
        attempts.begin(at: one)
        #expect(attempts.released(isLeaving: false, isPinned: false, route: route(.none)) == .end(.released))
        #expect(attempts.released(isLeaving: true, isPinned: true, route: route(.none)) == .end(.released))
        #expect(attempts.released(isLeaving: true, isPinned: false, route: route(.none)) == .again)
        #expect(attempts.released(isLeaving: false, isPinned: false, route: route(.otherMember)) == .again)
        attempts.begin(at: two)
        let end = attempts.released(isLeaving: false, isPinned: false, route: route(.otherMember))
        #expect(end == .end(.released))
        #expect(attempts.failed == [one])
    }
}
