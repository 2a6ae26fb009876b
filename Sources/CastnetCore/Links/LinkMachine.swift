/// The rules of one link, from its first byte to its last: hello, liveness, goodbye.
///
/// Both sides send their hello as soon as the connection stands; messages of the dialler may follow in the
/// same segment, and the acceptor looks at them only once it has accepted the hello.
package struct LinkMachine: ~Copyable {
    /// Who opened the connection.
    package enum Role: Sendable {
        /// This side; `expecting` is the node it wants, nil when any will do.
        case dialler(expecting: NodeIdentity?)
        case acceptor
    }

    package enum Action: Sendable {
        case none
        /// The peer's hello is accepted.
        case opened(Hello)
        /// Give the packet to whoever handles messages.
        case deliver(Packet)
        case send(Packet)
        /// Send the goodbye if there is one, then close; `reason` names the counter.
        case close(CloseReason, Goodbye?)
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
        /// Waits for the peer's hello; becomes open or closed.
        case greeting(deadline: Instant)
        /// Hellos exchanged; becomes closed.
        case open
        /// Over; nothing more happens.
        case closed
    }

    private let role: Role
    private let own: Hello
    private var state: State
    /// The negotiated heartbeat interval; nil: no heartbeats.
    package private(set) var heartbeatInterval: Duration?
    private var heardAt: Instant
    private var beatAt: Instant
    private var nonce: UInt64 = 0

    package init(role: Role, own: Hello, helloDeadline: Duration, now: Instant) {
        self.role = role
        self.own = own
        state = .greeting(deadline: now + helloDeadline)
        heardAt = now
        beatAt = now
    }

    /// True between the hellos and the end.
    package var isOpen: Bool { if case .open = state { true } else { false } }

    /// When `timerFired` is due.
    package var nextDeadline: Instant? {
        switch state {
        case .greeting(let deadline): deadline
        case .open: heartbeatInterval.map { min(beatAt + $0, heardAt + $0 * 3) }
        case .closed: nil
        }
    }

    /// Bytes came, whole packets or not.
    package mutating func heard(now: Instant) { heardAt = now }

    package mutating func received(_ packet: Packet, now: Instant) -> Action {
        heardAt = now
        switch (state, packet) {
        case (.closed, _): return .none
        case (_, .goodbye(let goodbye)):
            state = .closed
            return .close(goodbye.reason.asClosed, nil)
        case (.greeting, .hello(let hello)): return greet(hello, now: now)
        case (.greeting, _): return end(.protocol, .protocolError, "a packet came before the hello")
        case (.open, .hello): return end(.protocol, .protocolError, "a second hello")
        case (.open, .heartbeat(let nonce)): return .send(.heartbeatAnswer(nonce))
        case (.open, .heartbeatAnswer), (.open, .credit): return .none
        case (.open, .message), (.open, .reply), (.open, .chunk), (.open, .cancel): return .deliver(packet)
        }
    }

    /// The bytes of the peer make no sense.
    package mutating func malformed(_ error: WireError) -> Action {
        guard notClosed else { return .none }
        let isForeign = error == .magic || error == .version
        return end(isForeign ? .version : .protocol, .protocolError, "malformed packet: \(error.rawValue)")
    }

    package mutating func timerFired(now: Instant) -> Action {
        switch state {
        case .closed: return .none
        case .greeting(let deadline):
            return now >= deadline ? end(.helloDeadline, .helloDeadline, "no hello in time") : .none
        case .open:
            guard let heartbeatInterval else { return .none }
            if now >= heardAt + heartbeatInterval * 3 {
                return end(.dead, .dead, "nothing heard for 3 heartbeat intervals")
            }
            guard now >= beatAt + heartbeatInterval else { return .none }
            beatAt = now
            nonce += 1
            return .send(.heartbeat(nonce))
        }
    }

    /// This side wants the link to end.
    package mutating func finish(_ reason: CloseReason, _ goodbye: Goodbye.Reason, _ text: String = "")
        -> Action
    {
        notClosed ? end(reason, goodbye, text) : .none
    }

    /// The connection is gone; false when the end was known already.
    package mutating func disconnected() -> Bool {
        defer { state = .closed }
        return notClosed
    }

    private var notClosed: Bool { if case .closed = state { false } else { true } }

    private mutating func greet(_ hello: Hello, now: Instant) -> Action {
        guard hello.versionMin <= own.versionMax, hello.versionMax >= own.versionMin else {
            return end(
                .version, .version,
                "versions \(hello.versionMin)-\(hello.versionMax); "
                    + "this node speaks \(own.versionMin)-\(own.versionMax)"
            )
        }
        guard hello.cluster == own.cluster else {
            return end(.cluster, .cluster, "this node is of cluster \(quoted(own.cluster))")
        }
        guard hello.node != own.node else { return end(.ownNode, .ownNode, "this node dialled itself") }
        if case .dialler(let expected?) = role, !expected.accepts(hello.node) {
            return end(.wrongNode, .wrongNode, "expected \(expected), found \(hello.node)")
        }
        state = .open
        beatAt = now
        let milliseconds = max(hello.heartbeatMilliseconds, own.heartbeatMilliseconds)
        if hello.purpose == .persistent || own.purpose == .persistent, milliseconds > 0 {
            heartbeatInterval = .milliseconds(Int64(min(max(milliseconds, 10), 3_600_000)))
        }
        return .opened(hello)
    }

    private mutating func end(_ reason: CloseReason, _ goodbye: Goodbye.Reason, _ text: String) -> Action {
        state = .closed
        return .close(reason, Goodbye(goodbye, text))
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
