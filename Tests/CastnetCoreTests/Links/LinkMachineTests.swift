import CastnetCore
import NIOCore
import Testing

@Suite("Link machine")
struct LinkMachineTests {
    static let start = Instant(nanoseconds: 1_000_000_000)
    static let api = PacketVectors.api
    static let worker = PacketVectors.worker

    static func hello(
        _ node: NodeIdentity, purpose: Hello.Purpose = .persistent, _ adjust: (inout Hello) -> Void = { _ in }
    ) -> Hello {
        var hello = Hello(purpose: purpose, cluster: "demo", node: node, messageMax: 1 << 20)
        adjust(&hello)
        return hello
    }

    static func dialler(_ own: Hello = hello(api)) -> LinkMachine {
        var machine = LinkMachine(role: .dialler, own: own, helloDeadline: .seconds(5), now: start)
        machine.connected(now: start)
        return machine
    }

    static func acceptor(_ own: Hello = hello(worker, purpose: .service)) -> LinkMachine {
        var machine = LinkMachine(role: .acceptor, own: own, helloDeadline: .seconds(5), now: start)
        machine.connected(now: start)
        return machine
    }

    static let message = Packet.message(PacketVectors.call, ByteBuffer(string: "ping"))

    /// What an action is, in a word a test can compare.
    static func word(_ action: LinkMachine.Action) -> String {
        switch action {
        case .none: "none"
        case .opened(let hello): "opened \(hello.node.name)"
        case .deliver: "deliver"
        case .send(.goodbye(let goodbye)): "send goodbye taken \(goodbye.taken)"
        case .send(.heartbeat(let nonce)): "send heartbeat \(nonce)"
        case .send(.heartbeatAnswer(let nonce)): "send answer \(nonce)"
        case .send: "send"
        case .reached(let nonce): "reached \(nonce)"
        case .drain: "drain"
        case .peerLeaves(let taken): "peer leaves, took \(taken)"
        case .close(let reason, let goodbye, let taken):
            "close \(reason.rawValue)\(goodbye == nil ? "" : " with goodbye")"
                + (taken.map { " taken \($0)" } ?? "")
        }
    }

    @Test("hello, then messages; a packet before the hello or a second hello ends the link")
    func order() {
        var machine = Self.acceptor()
        let opened = Self.word(machine.received(.hello(Self.hello(Self.api)), now: Self.start))
        #expect(opened == "opened api-1")
        let delivered = Self.word(machine.received(Self.message, now: Self.start))
        #expect(delivered == "deliver")
        let second = Self.word(machine.received(.hello(Self.hello(Self.api)), now: Self.start))
        #expect(second == "close protocol with goodbye")
        let after = Self.word(machine.received(Self.message, now: Self.start))
        #expect(after == "none")
        var early = Self.acceptor()
        let refused = Self.word(early.received(Self.message, now: Self.start))
        #expect(refused == "close protocol with goodbye")
    }

    @Test("refusals, each with its reason, on either side", arguments: [true, false])
    func refusals(isDialler: Bool) {
        func answer(_ adjust: (inout Hello) -> Void) -> String {
            var own = Self.hello(Self.api)
            own.expected = Self.worker
            var machine = isDialler ? Self.dialler(own) : Self.acceptor()
            var theirs = Self.hello(isDialler ? Self.worker : Self.api)
            adjust(&theirs)
            return Self.word(machine.received(.hello(theirs), now: Self.start))
        }
        #expect(answer { $0.cluster = "other" } == "close cluster with goodbye taken 0")
        #expect(
            answer {
                $0.versionMin = 2
                $0.versionMax = 3
            } == "close version with goodbye taken 0")
        #expect(
            answer { $0.node = isDialler ? Self.api : Self.worker } == "close own-node with goodbye taken 0")
        let stranger = NodeIdentity(name: "worker-2", incarnation: Incarnation(9))
        let wrong = answer { if isDialler { $0.node = stranger } else { $0.expected = stranger } }
        #expect(wrong == "close wrong-node with goodbye taken 0")
        let anyStart = NodeIdentity(name: "worker-2", incarnation: Incarnation(0))
        #expect(answer { if !isDialler { $0.expected = anyStart } }.hasPrefix("opened"))
    }

    @Test("the hello's deadline runs from the connection, not from the wait for it")
    func helloDeadline() {
        var machine = LinkMachine(
            role: .dialler, own: Self.hello(Self.api), helloDeadline: .seconds(5), now: Self.start)
        let waiting = machine.nextDeadline
        #expect(waiting == nil)
        let later = Self.start + .seconds(60)
        machine.connected(now: later)
        let due = machine.nextDeadline
        #expect(due == later + .seconds(5))
        let early = Self.word(machine.timerFired(now: later + .seconds(4)))
        #expect(early == "none")
        let fired = Self.word(machine.timerFired(now: later + .seconds(5)))
        #expect(fired == "close hello-deadline with goodbye")
    }

    @Test("heartbeats: the slower wish holds, any byte counts, three intervals of silence end the link")
    func heartbeats() {
        var machine = Self.dialler(Self.hello(Self.api) { $0.heartbeatMilliseconds = 1000 })
        _ = machine.received(
            .hello(Self.hello(Self.worker) { $0.heartbeatMilliseconds = 2000 }), now: Self.start)
        let interval = machine.heartbeatInterval
        #expect(interval == .seconds(2))
        let first = Self.word(machine.timerFired(now: Self.start + .seconds(2)))
        #expect(first == "send heartbeat 1")
        machine.heard(now: Self.start + .seconds(3))
        for (beat, seconds) in [(2, 4), (3, 6), (4, 8)] {
            let alive = Self.word(machine.timerFired(now: Self.start + .seconds(seconds)))
            #expect(alive == "send heartbeat \(beat)")
        }
        let dead = Self.word(machine.timerFired(now: Self.start + .seconds(9)))
        #expect(dead == "close dead with goodbye")
        var other = Self.acceptor()
        _ = other.received(
            .hello(Self.hello(Self.api, purpose: .ephemeral) { $0.heartbeatMilliseconds = 5 }),
            now: Self.start)
        let none = other.heartbeatInterval
        #expect(none == nil)
        let answer = Self.word(other.received(.heartbeat(77), now: Self.start))
        #expect(answer == "send answer 77")
    }

    @Test("a side that stood still itself gives its peer one more interval to be read")
    func ownStall() {
        var machine = Self.dialler(Self.hello(Self.api) { $0.heartbeatMilliseconds = 2000 })
        _ = machine.received(.hello(Self.hello(Self.worker)), now: Self.start)
        let awake = Self.word(machine.timerFired(now: Self.start + .seconds(60)))
        #expect(awake == "send heartbeat 1")
        let dead = Self.word(machine.timerFired(now: Self.start + .seconds(62)))
        #expect(dead == "close dead with goodbye")
    }

    @Test("who leaves answers what it took and looks at nothing that crosses its goodbye")
    func leaving() {
        var machine = Self.acceptor()
        _ = machine.received(.hello(Self.hello(Self.api)), now: Self.start)
        _ = machine.received(Self.message, now: Self.start)
        let goodbye = Self.word(machine.leave())
        #expect(goodbye == "send goodbye taken 1")
        let crossing = Self.word(machine.received(Self.message, now: Self.start))
        #expect(crossing == "none")
        let chunk = Self.word(machine.received(.chunk(id: 7, isReply: false, ByteBuffer()), now: Self.start))
        #expect(chunk == "deliver")
        let end = Self.word(machine.finish(.stopping, .stopping))
        #expect(end == "close stopping")
    }

    @Test("after the peer's goodbye its last answers still come")
    func left() {
        var machine = Self.dialler()
        _ = machine.received(.hello(Self.hello(Self.worker)), now: Self.start)
        let left = Self.word(machine.received(.goodbye(Goodbye(.stopping, taken: 3)), now: Self.start))
        #expect(left == "peer leaves, took 3")
        let isOpen = machine.isOpen
        #expect(!isOpen)
        let reply = Packet.reply(ReplyHead(id: 1, outcome: .accepted, total: 0), ByteBuffer())
        let last = Self.word(machine.received(reply, now: Self.start))
        #expect(last == "deliver")
        let wasOpen = machine.disconnected()
        #expect(wasOpen)
    }

    @Test("a refusal by goodbye says what was taken; messages go one way only")
    func direction() {
        var refused = Self.dialler()
        let closed = Self.word(refused.received(.goodbye(Goodbye(.cluster, taken: 0)), now: Self.start))
        #expect(closed == "close refused taken 0")
        var machine = Self.dialler()
        _ = machine.received(.hello(Self.hello(Self.worker)), now: Self.start)
        let against = Self.word(machine.received(Self.message, now: Self.start))
        #expect(against == "close protocol with goodbye")
    }

    @Test("any order of events leaves a machine that never acts after its end")
    func anyOrder() {
        var generator = SeededGenerator(seed: 4)
        let packets = PacketVectors.session
        for round in 0..<20_000 {
            var now = Self.start
            var machine = round % 2 == 0 ? Self.dialler() : Self.acceptor()
            if round % 3 == 0 {
                _ = machine.received(.hello(Self.hello(round % 2 == 0 ? Self.worker : Self.api)), now: now)
            }
            var closes = 0
            for _ in 0..<20 {
                now = now + .milliseconds(Int64.random(in: 0...3000, using: &generator))
                let action: LinkMachine.Action
                switch Int.random(in: 0..<11, using: &generator) {
                case 0: action = machine.timerFired(now: now)
                case 1: action = machine.leave()
                case 2: action = machine.malformed(.truncated)
                case 3: action = machine.finish(.finished, .idle)
                case 4: action = machine.sendAway(for: .seconds(1), "busy")
                default:
                    guard let packet = packets.randomElement(using: &generator) else { continue }
                    action = machine.received(packet, now: now)
                }
                if closes > 0 { #expect(Self.word(action) == "none", "round \(round)") }
                if case .close = action { closes += 1 }
            }
            #expect(closes <= 1)
        }
    }
}
