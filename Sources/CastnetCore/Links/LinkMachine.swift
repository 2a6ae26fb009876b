/// The rules of one link, from the dial to its last byte: hello, liveness, goodbye.
///
/// Both sides send their hello as soon as the connection stands; messages of the dialler may follow in the
/// same segment, and the acceptor looks at them only once it has accepted the hello. Only the dialler sends
/// messages; answers come back on the same link.
package struct LinkMachine: ~Copyable {
    /// Who opened the connection.
    package enum Role: Sendable { case dialler, acceptor }

    package enum Action: Sendable {
        case none
        /// The peer's hello is accepted.
        case opened(Hello)
        /// Give the packet to whoever handles messages.
        case deliver(Packet)
        case send(Packet)
        /// The peer has taken in everything that was sent before the heartbeat with this number.
        case reached(UInt64)
        /// The dialler has ended its side: close once everything that came is answered.
        case drain
        /// The peer takes no more messages: of those sent on this link it took the first `taken`, the others
        /// were never looked at. Close when nothing is owed any more.
        case peerLeaves(taken: UInt64)
        /// Send the goodbye if there is one, then close; the reason names the counter. Of the messages sent
        /// on this link the peer took at most `taken`; nil: nobody knows.
        case close(CloseReason, Goodbye?, taken: UInt64?)
    }

    /// Why a link ended: the REASON of `link.closed.REASON`.
    package enum CloseReason: String, Hashable, Sendable, CaseIterable {
        case finished, idle, stopping, refused, `protocol`, version, cluster
        case wrongNode = "wrong-node"
        case ownNode = "own-node"
        case limit
        case helloDeadline = "hello-deadline"
        case dead, failed
    }

    private enum State {
        /// No connection yet; becomes greeting or closed.
        case dialling
        /// Waits for the peer's hello; becomes open or closed.
        case greeting(deadline: Instant)
        /// Hellos exchanged, messages flow; becomes leaving, left or closed.
        case open
        /// This side said goodbye: it takes no new message and answers those it took; becomes closed.
        case leaving
        /// The peer said goodbye: nothing new goes to it, its last answers come; becomes closed.
        case left
        /// The dialler has ended its side of the stream; what came is still answered; becomes closed.
        case draining(deadline: Instant)
        /// Over; nothing more happens.
        case closed
    }

    /// How long answers to a dialler that has ended its side may take.
    private static let drainTime = Duration.seconds(60)

    private let role: Role
    private let own: Hello
    private let helloDeadline: Duration
    private var state = State.dialling
    /// The negotiated heartbeat interval; nil: no heartbeats.
    package private(set) var heartbeatInterval: Duration?
    /// Messages of the peer that were taken in.
    package private(set) var taken: UInt64 = 0
    /// The peer may end its side of the stream before this one: the dialler of an ephemeral link.
    private var mayDrain = false
    /// The acceptor is busy: after this time, which is never above ``GreetingPace/longest``, it may be
    /// dialled again.
    package private(set) var comeBack: Duration?
    private var heardAt: Instant
    private var beatAt: Instant
    /// The number of the last heartbeat.
    package private(set) var nonce: UInt64 = 0

    package init(role: Role, own: Hello, helloDeadline: Duration, now: Instant) {
        self.role = role
        self.own = own
        self.helloDeadline = helloDeadline
        heardAt = now
        beatAt = now
    }

    /// True between the hellos and the first goodbye.
    package var isOpen: Bool { if case .open = state { true } else { false } }

    /// When `timerFired` is due.
    package var nextDeadline: Instant? {
        switch state {
        case .greeting(let deadline), .draining(let deadline): deadline
        case .open, .leaving, .left: heartbeatInterval.map { min(beatAt + $0, heardAt + $0 * 3) }
        case .dialling, .closed: nil
        }
    }

    /// The connection stands: send `own` hello and, as the dialler, what waits.
    package mutating func connected(now: Instant) {
        guard case .dialling = state else { return }
        heardAt = now
        state = .greeting(deadline: now + helloDeadline)
    }

    /// Bytes came, whole packets or not; or bytes left after the peer had taken none for a while.
    package mutating func heard(now: Instant) { heardAt = now }

    package mutating func received(_ packet: Packet, now: Instant) -> Action {
        heardAt = now
        switch (state, packet) {
        case (.closed, _), (.dialling, _), (.draining, _): return .none
        case (_, .goodbye(let goodbye)): return receivedGoodbye(goodbye)
        case (.greeting, .hello(let hello)): return greet(hello, now: now)
        case (.greeting, _): return end(.protocol, .protocolError, "a packet came before the hello")
        case (_, .hello): return end(.protocol, .protocolError, "a second hello")
        case (_, .heartbeat(let nonce)): return .send(.heartbeatAnswer(nonce))
        case (_, .heartbeatAnswer(let nonce)): return .reached(nonce)
        case (_, .room): return .deliver(packet)
        case (_, .credit), (_, .busy), (_, .mayStart), (_, .started):
            return role == .dialler ? .deliver(packet) : .none
        case (_, .confirmed), (_, .start): return role == .acceptor ? .deliver(packet) : .none
        case (_, .message): return receivedMessage(packet)
        case (_, .reply), (_, .chunk), (_, .cancel), (_, .repair), (_, .directory): return .deliver(packet)
        }
    }

    /// The bytes of the peer make no sense.
    package mutating func malformed(_ error: WireError) -> Action {
        guard notClosed else { return .none }
        let isForeign = error == .magic || error == .version
        return end(isForeign ? .version : .protocol, .protocolError, "malformed packet: \(error.rawValue)")
    }

    /// The peer sends more than it may.
    package mutating func exceeded(_ text: String) -> Action {
        notClosed ? end(.protocol, .protocolError, text) : .none
    }

    package mutating func timerFired(now: Instant) -> Action {
        switch state {
        case .dialling, .closed: return .none
        case .draining(let deadline):
            return now >= deadline ? end(.dead, .dead, "no answer to what came before the end") : .none
        case .greeting(let deadline):
            return now >= deadline ? end(.helloDeadline, .helloDeadline, "no hello in time") : .none
        case .open, .leaving, .left:
            guard let heartbeatInterval else { return .none }
            if now >= beatAt + heartbeatInterval * 2 {
                // This side itself stood still: what the peer said meanwhile may still wait to be read.
                heardAt = max(heardAt, now - heartbeatInterval * 2)
            }
            if now >= heardAt + heartbeatInterval * 3 {
                return end(.dead, .dead, "nothing heard for 3 heartbeat intervals")
            }
            guard now >= beatAt + heartbeatInterval else { return .none }
            beatAt = now
            nonce &+= 1
            return .send(.heartbeat(nonce))
        }
    }

    /// Asks for a sign of life besides the regular ones.
    package mutating func probe() -> Action {
        switch state {
        case .open, .leaving, .left:
            nonce &+= 1
            return .send(.heartbeat(nonce))
        case .dialling, .greeting, .draining, .closed: return .none
        }
    }

    /// Nothing more comes from the peer, which may still read: a dialler that has said all it had to say.
    package mutating func inputClosed(now: Instant) -> Action {
        switch state {
        case .open where mayDrain, .leaving where mayDrain, .left where mayDrain:
            state = .draining(deadline: now + Self.drainTime)
            return .drain
        case .closed, .draining: return .none
        case .dialling, .greeting, .open, .leaving, .left:
            state = .closed
            return .close(.failed, nil, taken: nil)
        }
    }

    /// This side takes no more messages and closes once it has answered what it took.
    package mutating func leave(_ text: String = "") -> Action {
        switch state {
        case .open:
            state = .leaving
            return .send(.goodbye(Goodbye(.stopping, text, taken: taken)))
        case .left, .leaving, .draining, .closed: return .none
        case .dialling, .greeting: return end(.stopping, .stopping, text)
        }
    }

    /// Too many say hello: the dialler may come back after `time`. None of its messages was looked at.
    package mutating func sendAway(for time: Duration, _ text: String) -> Action {
        guard case .open = state, role == .acceptor else { return .none }
        state = .closed
        let milliseconds = UInt32(clamping: time.nanoseconds / 1_000_000)
        let goodbye = Goodbye(.limit, text, taken: taken, comeBackMilliseconds: milliseconds)
        return .close(.limit, goodbye, taken: nil)
    }

    /// This side wants the link to end now.
    package mutating func finish(_ reason: CloseReason, _ goodbye: Goodbye.Reason, _ text: String = "")
        -> Action
    {
        switch state {
        case .closed: return .none
        case .leaving:
            // The goodbye has been said.
            state = .closed
            return .close(reason, nil, taken: nil)
        default: return end(reason, goodbye, text)
        }
    }

    /// The connection is gone, or was never there; false when the end was known already.
    package mutating func disconnected() -> Bool {
        defer { state = .closed }
        return notClosed
    }

    private var notClosed: Bool { if case .closed = state { false } else { true } }

    private mutating func receivedMessage(_ packet: Packet) -> Action {
        guard role == .acceptor else {
            return end(.protocol, .protocolError, "a message against the link's direction")
        }
        // It crossed this side's goodbye, which tells the peer that it was not looked at.
        if case .leaving = state { return .none }
        taken += 1
        return .deliver(packet)
    }

    private mutating func receivedGoodbye(_ goodbye: Goodbye) -> Action {
        let isOrderly =
            switch state {
            case .open, .leaving: goodbye.reason == .stopping
            case .dialling, .greeting, .left, .draining, .closed: false
            }
        if isOrderly {
            if case .open = state { state = .left }
            return .peerLeaves(taken: goodbye.taken)
        }
        state = .closed
        if role == .dialler, goodbye.reason == .limit, let milliseconds = goodbye.comeBackMilliseconds {
            comeBack = min(.milliseconds(Int64(milliseconds)), GreetingPace.longest)
        }
        return .close(goodbye.reason.asClosed, nil, taken: goodbye.taken)
    }

    private mutating func greet(_ hello: Hello, now: Instant) -> Action {
        guard hello.versionMin <= own.versionMax, hello.versionMax >= own.versionMin else {
            let versions = "versions \(hello.versionMin)-\(hello.versionMax)"
            return end(
                .version, .version, "\(versions); this node speaks \(own.versionMin)-\(own.versionMax)")
        }
        guard hello.cluster == own.cluster else {
            return end(.cluster, .cluster, "this node is of cluster \(quoted(own.cluster))")
        }
        guard hello.node != own.node else { return end(.ownNode, .ownNode, "this node dialled itself") }
        // Both sides check, so that an acceptor that is not meant executes nothing.
        if role == .acceptor, let expected = hello.expected, !expected.accepts(own.node) {
            return end(.wrongNode, .wrongNode, "expected \(expected), found \(own.node)")
        }
        if role == .dialler, let expected = own.expected, !expected.accepts(hello.node) {
            return end(.wrongNode, .wrongNode, "expected \(expected), found \(hello.node)")
        }
        state = .open
        mayDrain = role == .acceptor && hello.purpose == .ephemeral
        beatAt = now
        let milliseconds = max(hello.heartbeatMilliseconds, own.heartbeatMilliseconds)
        if hello.purpose == .persistent || own.purpose == .persistent, milliseconds > 0 {
            heartbeatInterval = .milliseconds(Int64(min(max(milliseconds, 10), 3_600_000)))
        }
        return .opened(hello)
    }

    /// A hello that one side refuses the other refuses by the same rules: no message was taken.
    private mutating func end(_ reason: CloseReason, _ goodbye: Goodbye.Reason, _ text: String) -> Action {
        defer { state = .closed }
        let isRefusal =
            switch reason {
            case .version, .cluster, .wrongNode, .ownNode: true
            default: false
            }
        var unseen: UInt64?
        if case .greeting = state, isRefusal { unseen = 0 }
        if case .dialling = state { unseen = 0 }
        return .close(reason, Goodbye(goodbye, text, taken: taken), taken: unseen)
    }
}

extension NodeIdentity {
    /// True when `other` is the node meant; an unknown incarnation (0) means any start of that name.
    package func accepts(_ other: NodeIdentity) -> Bool {
        name == other.name && (incarnation.value == 0 || incarnation == other.incarnation)
    }
}

extension Goodbye.Reason {
    var asClosed: LinkMachine.CloseReason {
        switch self {
        case .stopping: .stopping
        case .idle: .idle
        case .limit: .limit
        case .protocolError, .version, .cluster, .wrongNode, .ownNode, .helloDeadline, .dead: .refused
        }
    }
}
