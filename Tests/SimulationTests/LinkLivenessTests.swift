import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

@Suite("Link liveness")
struct LinkLivenessTests {
    static let seeds: ClosedRange<UInt64> = 1...20

    /// Silent for six seconds is only what is lost five times in a row: about once in a hundred hours.
    @Test("an hour with 5 % loss and 100 ms of jitter ends no link", arguments: [false, true])
    func hour(hasTraffic: Bool) {
        for seed in Self.seeds {
            let link = LinkSimulation(seed: seed, heartbeat: .seconds(2), loss: 0.05)
            if hasTraffic { link.talk() }
            link.run(for: .seconds(3600))
            #expect(link.ends.allSatisfy { $0.end == nil && $0.machine.isOpen }, "seed \(seed)")
            #expect(link.arrivals > (hasTraffic ? 20_000 : 7000), "seed \(seed)")
        }
    }

    /// A byte that is lost four times in a row comes after three seconds. An interval of 500 ms cannot tell
    /// that from a dead peer, and need not: what must hold is that nobody judges any sooner.
    @Test("where loss alone is silent for longer than three short intervals, nobody judges sooner")
    func shortInterval() {
        var deaths = 0
        for seed in Self.seeds {
            let link = LinkSimulation(seed: seed, heartbeat: .milliseconds(500), loss: 0.05)
            link.run(for: .seconds(3600))
            for side in link.ends {
                guard let end = side.end else { continue }
                // The other side is told by a goodbye.
                #expect(end.reason == .dead || end.reason == .refused, "seed \(seed)")
                guard end.reason == .dead else { continue }
                deaths += 1
                #expect(end.at - side.heardAt == .milliseconds(1500), "seed \(seed)")
            }
        }
        #expect(deaths > 0)
    }

    @Test(
        "a way that falls silent ends both sides three intervals after the last byte each of them heard",
        arguments: [(500, 0), (2000, 0.05)], [false, true])
    func silence(way: (milliseconds: Int64, loss: Double), hasTraffic: Bool) {
        let heartbeat = Duration.milliseconds(way.milliseconds)
        for seed in 1...UInt64(100) {
            let link = LinkSimulation(seed: seed, heartbeat: heartbeat, loss: way.loss)
            if hasTraffic { link.talk() }
            let moment = Duration.milliseconds(Int64.random(in: 5000...15_000, using: &link.generator))
            link.fallSilent(after: moment)
            link.run(for: moment + heartbeat * 3)
            for side in link.ends {
                #expect(side.end?.reason == .dead, "seed \(seed)")
                #expect(side.end.map { $0.at - side.heardAt } == heartbeat * 3, "seed \(seed)")
            }
        }
    }

    @Test(
        "a process that stood still reads what waits before it judges; its peer judged meanwhile",
        arguments: [0, 1])
    func standstill(stopped: Int) {
        for seed in Self.seeds {
            let link = LinkSimulation(seed: seed, heartbeat: .seconds(2), loss: 0.05)
            link.run(for: .milliseconds(Int64.random(in: 5000...15_000, using: &link.generator)))
            link.stop(stopped, for: .seconds(10))
            link.run(for: .seconds(20))
            let (asleep, awake) = (link.ends[stopped], link.ends[1 - stopped])
            // It learns from the goodbye that its peer gave it up.
            #expect(asleep.end?.reason == .refused, "seed \(seed)")
            #expect(awake.end?.reason == .dead, "seed \(seed)")
            #expect(awake.end.map { $0.at - awake.heardAt } == .seconds(6), "seed \(seed)")
        }
    }

    @Test(
        "a process that stood still while its peer died notices one interval after it wakes",
        arguments: [0, 1])
    func standstillBesideTheDead(stopped: Int) {
        for seed in Self.seeds {
            let link = LinkSimulation(seed: seed, heartbeat: .seconds(2), loss: 0.05)
            link.run(for: .milliseconds(Int64.random(in: 5000...15_000, using: &link.generator)))
            link.fallSilent(after: .zero)
            link.stop(stopped, for: .seconds(10))
            let wakes = link.now + .seconds(10)
            link.run(for: .seconds(20))
            let end = link.ends[stopped].end
            #expect(end?.reason == .dead, "seed \(seed)")
            #expect(end?.at == wakes + .seconds(2), "seed \(seed)")
        }
    }
}

// MARK: Two sides and the way between them

/// A dialler (0) and an acceptor (1) over two streams of bytes, in virtual time.
private final class LinkSimulation {
    /// One side: its machine, and what became of it.
    final class Side {
        var machine: LinkMachine
        /// When bytes came the last time.
        var heardAt: Instant
        var end: (reason: LinkMachine.CloseReason, at: Instant)?
        /// The process stands still until then: what comes waits, and no timer fires.
        var stoppedUntil: Instant

        init(_ role: LinkMachine.Role, _ own: Hello, now: Instant) {
            machine = LinkMachine(role: role, own: own, helloDeadline: .seconds(60), now: now)
            (heardAt, stoppedUntil) = (now, now)
        }

        /// When its timer fires.
        var dueAt: Instant? { end == nil ? machine.nextDeadline.map { max($0, stoppedUntil) } : nil }
    }

    private enum Event {
        case bytes(Packet, to: Int)
        case talk
        case silence
    }

    let ends: [Side]
    var generator: SeededGenerator
    private(set) var arrivals = 0
    private var clock = VirtualClock()
    private var agenda = Agenda<Event>()
    private let loss: Double
    /// When the last bytes to each side arrive: later ones do not overtake them.
    private var lastAt: [Instant]
    private var isSilent = false

    var now: Instant { clock.now }

    init(seed: UInt64, heartbeat: Duration, loss: Double) {
        generator = SeededGenerator(seed: seed)
        self.loss = loss
        let now = clock.now
        lastAt = [now, now]
        var hello = Self.hello(of: "api-1", for: .persistent)
        hello.heartbeatMilliseconds = UInt32(heartbeat.nanoseconds / 1_000_000)
        let answer = Self.hello(of: "worker-2", for: .service)
        ends = [Side(.dialler, hello, now: now), Side(.acceptor, answer, now: now)]
        for end in ends { end.machine.connected(now: now) }
        write(.hello(hello), from: 0)
        write(.hello(answer), from: 1)
    }

    private static func hello(of name: String, for purpose: Hello.Purpose) -> Hello {
        let node = NodeIdentity(name: name, incarnation: Incarnation(1))
        return Hello(purpose: purpose, cluster: "demo", node: node, messageMax: 1 << 20)
    }

    private static let message = Packet.message(
        MessageHead(
            id: 1, kind: .call, topic: Topic(unchecked: "scheduler"), sequence: 1, sentAtMicroseconds: 0,
            timeLeftMicroseconds: 1_000_000, total: 4), ByteBuffer(string: "ping"))

    /// From now on the dialler sends a message twice a second, and each is answered.
    func talk() { agenda.add(.talk, at: now) }

    /// From then on nothing arrives, not even what is under way.
    func fallSilent(after moment: Duration) { agenda.add(.silence, at: now + moment) }

    func stop(_ side: Int, for duration: Duration) { ends[side].stoppedUntil = now + duration }

    func run(for duration: Duration) {
        let until = now + duration
        while let next = earliest(agenda.nextAt, earliest(ends[0].dueAt, ends[1].dueAt)), next <= until {
            clock.advance(to: next)
            // A timer that is due fires before the bytes of the same moment are read: the harder order.
            if let due = ends.indices.first(where: { side in ends[side].dueAt.map { $0 <= now } ?? false }) {
                perform(ends[due].machine.timerFired(now: now), of: due)
            } else if let event = agenda.popFirst()?.event {
                happen(event)
            }
        }
        clock.advance(to: until)
    }

    private func happen(_ event: Event) {
        switch event {
        case .silence: isSilent = true
        case .talk:
            if ends[0].machine.isOpen { write(Self.message, from: 0) }
            agenda.add(.talk, at: now + .milliseconds(Int64.random(in: 0...1000, using: &generator)))
        case .bytes(let packet, let side):
            let end = ends[side]
            guard !isSilent, end.end == nil else { return }
            guard now >= end.stoppedUntil else { return agenda.add(event, at: end.stoppedUntil) }
            end.heardAt = now
            arrivals += 1
            perform(end.machine.received(packet, now: now), of: side)
        }
    }

    private func perform(_ action: LinkMachine.Action, of side: Int) {
        switch action {
        case .send(let packet): write(packet, from: side)
        case .deliver(.message(let head, _)):
            write(.reply(ReplyHead(id: head.id, outcome: .accepted, total: 0), ByteBuffer()), from: side)
        case .close(let reason, let goodbye, _):
            ends[side].end = (reason, now)
            if let goodbye { write(.goodbye(goodbye), from: side) }
        default: break
        }
    }

    /// A segment that is lost comes after 200 ms, after 600 ms if it is lost again, then after 1.4 s: the
    /// kernel doubles its patience each time. What was written behind it waits with it.
    private func write(_ packet: Packet, from side: Int) {
        var delay = Duration.milliseconds(1)
        delay += .nanoseconds(Int64.random(in: 0...100_000_000, using: &generator))
        var patience = Duration.milliseconds(200)
        while Double.random(in: 0..<1, using: &generator) < loss {
            delay += patience
            patience = patience * 2
        }
        let to = 1 - side
        lastAt[to] = max(lastAt[to], now + delay)
        agenda.add(.bytes(packet, to: to), at: lastAt[to])
    }
}
