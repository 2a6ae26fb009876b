import CastnetCore
import NIOCore

/// A link machine with its driver's part, and what the specification says of all it went through.
struct LinkSide: ~Copyable {
    enum Event {
        case connected, heard, timer, probe, leave, inputClosed, disconnected
        case received(Packet)
        case malformed(WireError)
        case exceeded
        case finish(LinkMachine.CloseReason, Goodbye.Reason)
    }

    static let api = NodeIdentity(name: "api-1", incarnation: Incarnation(0x0198_0000_0001_2345))
    static let worker = NodeIdentity(name: "worker-2", incarnation: Incarnation(0x0198_0000_0002_6789))
    static let helloDeadline = Duration.seconds(5)
    /// Section 2.8 of docs/wire-links.md.
    static let drainTime = Duration.seconds(60)
    /// The driver refuses who claims more.
    private static let totalMax: UInt64 = 1 << 40

    let role: LinkMachine.Role
    let own: Hello
    var now = Instant(nanoseconds: 1_000_000_000)
    private var machine: LinkMachine
    private var decoder = PacketDecoder()
    private var messages = AccountedParts()
    private var replies = AccountedParts()
    private(set) var connectedAt: Instant?
    private(set) var heardAt: Instant?
    /// The hello that was accepted.
    private(set) var peer: Hello?
    private(set) var hasLeft = false
    private(set) var hasPeerLeft = false
    private(set) var drainingSince: Instant?
    private(set) var isOver = false
    private(set) var closed: LinkMachine.CloseReason?
    private(set) var taken: UInt64 = 0
    /// What the peer says it took at most.
    private(set) var told: UInt64?
    /// The last heartbeat that the peer answered.
    private(set) var answered: UInt64?
    private(set) var whole = 0

    init(_ role: LinkMachine.Role, _ own: Hello) {
        (self.role, self.own) = (role, own)
        machine = LinkMachine(role: role, own: own, helloDeadline: Self.helloDeadline, now: now)
    }

    var isDraining: Bool { drainingSince != nil }
    var isConnected: Bool { connectedAt != nil && !isOver }
    var interval: Duration? { machine.heartbeatInterval }
    var nextDeadline: Instant? { machine.nextDeadline }
    var hasNoParts: Bool { messages.isEmpty && replies.isEmpty }

    func report(_ reached: inout LinkRules.Reached) {
        if peer != nil { reached.opened += 1 }
        if let closed { reached.closes.insert(closed) }
        reached.taken += Int(taken)
        reached.whole += whole
    }

    /// What a driver does with the bytes of a read; gives back what is to be sent.
    mutating func read(_ bytes: ByteBuffer) throws(BrokenRule) -> [Packet] {
        var bytes = bytes
        var answers = try play(.heard)
        decoder.feed(&bytes)
        while !isOver, let event = nextEvent() { answers += try play(event) }
        return answers
    }

    private mutating func nextEvent() -> Event? {
        do { return try decoder.next().map { .received($0) } } catch { return .malformed(error) }
    }

    /// Lets the machine see the event, judges its answer, and gives back what is to be sent.
    mutating func play(_ event: Event) throws(BrokenRule) -> [Packet] {
        let wasOver = isOver
        let action = try perform(event)
        guard !wasOver else {
            guard case .none = action else {
                throw BrokenRule(description: "\(action) after the end")
            }
            try judgeState(event)
            return []
        }
        try rule(mayAnswer(event, with: action), "\(event) is answered with \(action)")
        let answers = try follow(action)
        try judgeState(event)
        return answers
    }

    private mutating func perform(_ event: Event) throws(BrokenRule) -> LinkMachine.Action {
        switch event {
        case .connected:
            machine.connected(now: now)
            if connectedAt == nil, !isOver { (connectedAt, heardAt) = (now, now) }
        case .heard:
            machine.heard(now: now)
            heardAt = now
        case .received(let packet):
            heardAt = now
            let action = machine.received(packet, now: now)
            // Section 2.11 of docs/wire-links.md.
            let wait = machine.comeBack ?? .zero
            try rule(wait <= .seconds(role == .dialler ? 5 : 0), "a wait of \(wait)")
            return action
        case .timer: return machine.timerFired(now: now)
        case .probe: return machine.probe()
        case .leave: return machine.leave()
        case .inputClosed: return machine.inputClosed(now: now)
        case .malformed(let error): return machine.malformed(error)
        case .exceeded: return machine.exceeded("")
        case .finish(let reason, let goodbye): return machine.finish(reason, goodbye)
        case .disconnected:
            let isNew = machine.disconnected()
            try rule(isNew == !isOver, "an end is told: \(isNew)")
            try end()
        }
        return .none
    }

    private mutating func follow(_ action: LinkMachine.Action) throws(BrokenRule) -> [Packet] {
        switch action {
        case .none: break
        case .opened(let hello): peer = hello
        case .deliver(let packet):
            if case .message = packet { taken += 1 }
            if try !assemble(packet) { return try play(.malformed(.inconsistent)) }
        case .send(let packet):
            if case .goodbye = packet { hasLeft = true }
            return [packet]
        case .reached(let heartbeat): answered = heartbeat
        case .drain:
            drainingSince = now
            try messages.forgetAll()
        case .peerLeaves(let took): (hasPeerLeft, told) = (true, took)
        case .close(let reason, let goodbye, let took):
            (closed, told) = (reason, took ?? told)
            try end()
            return goodbye.map { [.goodbye($0)] } ?? []
        }
        return []
    }

    private mutating func end() throws(BrokenRule) {
        isOver = true
        try messages.forgetAll()
        try replies.forgetAll()
    }

    /// Puts together what came in parts, as the driver does; false where the parts contradict each other.
    private mutating func assemble(_ packet: Packet) throws(BrokenRule) -> Bool {
        switch packet {
        case .message(let head, let first):
            if head.total == UInt64(first.readableBytes) {
                whole += 1
            } else if head.total <= Self.totalMax {
                return try messages.begin(head.id, first, total: Int(head.total), now: now)
            }
        case .reply(let head, let first):
            if head.total == UInt64(first.readableBytes) {
                whole += 1
            } else if head.total <= Self.totalMax {
                return try replies.begin(head.id, first, total: Int(head.total), now: now)
            }
        case .chunk(let id, let isReply, let bytes):
            let result = isReply ? try replies.chunk(id, bytes) : try messages.chunk(id, bytes)
            if case .whole = result { whole += 1 }
            if case .inconsistent = result { return false }
        case .cancel(let id): try messages.forget(id)
        default: break
        }
        return true
    }

    private func judgeState(_ event: Event) throws(BrokenRule) {
        let (counted, isOpen, deadline) = (machine.taken, machine.isOpen, machine.nextDeadline)
        let interval = machine.heartbeatInterval
        try rule(counted == taken, "\(counted) are counted, \(taken) were taken")
        let shouldBeOpen = peer != nil && !hasLeft && !hasPeerLeft && !isDraining && !isOver
        try rule(isOpen == shouldBeOpen, "open after \(event): \(isOpen)")
        try rule(interval == intervalDue, "heartbeats every \(interval as Any)")
        if !isConnected {
            try rule(deadline == nil, "a deadline with nothing to wait for, after \(event)")
        } else if let drainingSince {
            try rule(deadline == drainingSince + Self.drainTime, "the end of draining moved")
        } else if peer == nil {
            try rule(deadline == connectedAt.map { $0 + Self.helloDeadline }, "the hello's deadline moved")
        } else {
            let isInTime = interval.map { interval in deadline.map { $0 <= now + interval } == true }
            try rule(isInTime ?? (deadline == nil), "due at \(deadline as Any) with \(interval as Any)")
        }
        guard case .timer = event, let deadline else { return }
        try rule(deadline > now, "the timer fired and is due again at once")
    }
}
