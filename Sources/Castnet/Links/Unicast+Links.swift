package import CastnetCore
import DequeModule
import Logging
package import NIOCore
import NIOPosix

/// Opening, accepting and closing links.
extension Unicast {
    private static let helloDeadline = Duration.seconds(5)
    private static let dialDeadline = TimeAmount.seconds(5)

    // MARK: The listener

    /// Binds the one TCP listener; the address says which port the kernel chose.
    package func bind() -> EventLoopFuture<HostPort> {
        let listen = configuration.node.listen
        let bootstrap = ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try accept(channel) }
            }
        return bootstrap.bind(host: listen.host, port: Int(listen.port)).map { [self] channel in
            listener = channel
            let address = channel.localAddress
            return HostPort(
                host: address?.ipAddress ?? listen.host, port: UInt16(address?.port ?? Int(listen.port)))
        }.flatMapErrorThrowing { error in
            throw CastnetError(.unreachable, "node.listen: cannot listen on \(listen)", underlying: error)
        }
    }

    private func accept(_ channel: any Channel) throws {
        tick()
        let address = channel.remoteAddress?.ipAddress ?? ""
        if isClosing || links.count >= configuration.limits.connections {
            counters.add(.limitConnectionsHit)
            throw CastnetError(.limitReached, "limits.connections")
        }
        if perAddress[address, default: 0] >= configuration.limits.perAddress {
            counters.add(.limitPerAddressHit)
            throw CastnetError(.limitReached, "limits.per-address")
        }
        perAddress[address, default: 0] += 1
        channel.closeFuture.whenComplete { [self] _ in
            let count = perAddress[address, default: 1] - 1
            perAddress[address] = count > 0 ? count : nil
        }
        counters.add(.linkAccepted)
        let own = hello(purpose: .service, heartbeat: .zero)
        let machine = LinkMachine(role: .acceptor, own: own, helloDeadline: Self.helloDeadline, now: now)
        let link = Link(owner: self, key: nil, machine: machine, own: own, now: now)
        links[ObjectIdentifier(link)] = link
        try channel.pipeline.syncOperations.addHandler(link)
    }

    private func hello(purpose: Hello.Purpose, heartbeat: Duration) -> Hello {
        var hello = Hello(
            purpose: purpose, cluster: configuration.node.cluster, node: identity,
            messageMax: UInt64(configuration.limits.message))
        hello.heartbeatMilliseconds = UInt32(clamping: heartbeat.nanoseconds / 1_000_000)
        return hello
    }

    // MARK: Dialling

    func linkKey(for message: OutboundMessage, to member: Member, id: UInt64) -> Link.Key {
        let route = message.route
        if route.carrier == .persistent {
            let slot = message.sequence % UInt64(max(1, route.connections))
            return Link.Key(purpose: .persistent, peer: member.identity, topic: message.topic, slot: slot)
        }
        // A link that is not shared is one message's own.
        return Link.Key(purpose: .ephemeral, peer: member.identity, topic: nil, slot: route.share ? 0 : id)
    }

    /// Makes a link for `key`; it connects at once or as soon as limits and back-off allow.
    func dial(_ key: Link.Key, to member: Member) -> Link {
        let heartbeat = key.purpose == .persistent ? heartbeatInterval(of: key) : .zero
        let own = hello(purpose: key.purpose, heartbeat: heartbeat)
        let machine = LinkMachine(
            role: .dialler(expecting: key.peer), own: own, helloDeadline: Self.helloDeadline, now: now)
        let link = Link(owner: self, key: key, machine: machine, own: own, now: now)
        link.addresses = member.addresses
        links[ObjectIdentifier(link)] = link
        dialled[key] = link
        waitingDials.append(link)
        startDials()
        return link
    }

    private func heartbeatInterval(of key: Link.Key) -> Duration {
        guard let topic = key.topic else { return .zero }
        return configuration.table.policy(for: topic, kind: .call, size: 0).route.heartbeatInterval
    }

    /// Starts the dials that limits and back-off allow; the others stay in turn.
    func startDials() {
        var postponed = Deque<Link>()
        while let link = waitingDials.popFirst() {
            guard links[ObjectIdentifier(link)] != nil, let key = link.key else { continue }
            if let until = backoffs[key.peer]?.until, until > now {
                loop.scheduleTask(deadline: until.nioDeadline) { [weak self] in
                    guard let self else { return }
                    tick()
                    waitingDials.append(link)
                    startDials()
                }
            } else if dialsInFlight >= configuration.limits.dials {
                counters.add(.limitDialsHit)
                postponed.append(link)
                break
            } else if links.count - waitingDials.count > configuration.limits.connections,
                !closeLeastRecentlyUsed()
            {
                counters.add(.limitConnectionsHit)
                postponed.append(link)
                break
            } else {
                connect(link)
            }
        }
        waitingDials = postponed + waitingDials
    }

    /// Closes the ephemeral link that has been idle for longest; false when none is idle.
    private func closeLeastRecentlyUsed() -> Bool {
        let idle = links.values.filter { $0.isEphemeral && $0.isIdle && $0.isConnected }
        guard let oldest = idle.min(by: { $0.lastUsedAt < $1.lastUsedAt }) else { return false }
        oldest.finish(.limit, .limit)
        return true
    }

    private func connect(_ link: Link) {
        guard let address = link.addresses.first else {
            return dialFailed(link, CastnetError(.unreachable, "the directory knows no address of it"))
        }
        dialsInFlight += 1
        ClientBootstrap(group: loop)
            .connectTimeout(Self.dialDeadline)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(link) }
            }
            .connect(host: address.host, port: Int(address.port))
            .whenComplete { [self] result in
                tick()
                dialsInFlight -= 1
                if case .failure(let error) = result {
                    link.addresses = Array(link.addresses.dropFirst())
                    link.addresses.isEmpty ? dialFailed(link, error) : connect(link)
                }
                startDials()
                flushLinks()
            }
    }

    private func dialFailed(_ link: Link, _ error: any Error) {
        guard let key = link.key, links[ObjectIdentifier(link)] != nil else { return }
        counters.add(.linkDialFailed)
        log.debug("dial failed", metadata: ["castnet.peer": "\(key.peer)", "castnet.error": "\(error)"])
        backoffs[key.peer, default: Backoff()].failed(now: now, using: &generator)
        abandon(link)
        sink.missed(key.peer)
    }

    // MARK: What links report

    func connected(_ link: Link) {
        tick()
        guard link.key != nil else { return }
        counters.add(.linkOpened)
        // Messages queued while dialling follow the hello in the same segment.
        for id in link.assigned.keys.sorted() { transmit(id, on: link) }
    }

    func opened(_ link: Link, _ hello: Hello) {
        if let key = link.key { backoffs[key.peer] = nil }
        sink.met(hello.node)
    }

    func closed(_ link: Link) {
        tick()
        if let reason = link.closedBecause { counters.add(reason.counter) }
        if let key = link.key, link.closedBecause != .finished, link.closedBecause != .idle {
            backoffs[key.peer, default: Backoff()].failed(now: now, using: &generator)
        }
        assembled(-link.assembledBytes)
        abandon(link)
        if link.wasOpen, let peer = link.peer {
            sink.parted(from: peer, isLost: link.closedBecause == .dead || link.closedBecause == .failed)
        }
        startDials()
        flushLinks()
    }

    /// Forgets a link and decides what becomes of the messages on it.
    func abandon(_ link: Link) {
        links[ObjectIdentifier(link)] = nil
        if let key = link.key, dialled[key] === link { dialled[key] = nil }
        let assigned = link.assigned
        link.assigned = [:]
        let reason = link.closedBecause
        // A peer that refused the hello, or that said goodbye before it, has not looked at any message.
        let refused = !link.wasOpen && reason != nil && reason != .failed && reason != .helloDeadline
        for (id, wasSent) in assigned.sorted(by: { $0.key < $1.key }) {
            let why =
                "the link to \(link.key?.peer.description ?? "a peer") ended: "
                + "\(reason?.rawValue ?? "not reached")"
            linkLost(id, wasSent: wasSent, refused: refused, why: why)
        }
    }

    // MARK: The end

    /// Stops: no new message is taken, what is under way may finish for `drain`, then every link says
    /// goodbye.
    package func close(drain: Duration) -> EventLoopFuture<Void> {
        tick()
        isClosing = true
        let done = loop.makePromise(of: Void.self)
        let listenerClosed = listener?.close() ?? loop.makeSucceededVoidFuture()
        listenerClosed.whenComplete { [self] _ in waitUntilIdle(until: now + drain, done) }
        return done.futureResult
    }

    private func waitUntilIdle(until deadline: Instant, _ done: EventLoopPromise<Void>) {
        tick()
        let isIdle = outstanding.isEmpty && links.values.allSatisfy(\.isIdle)
        guard isIdle || now >= deadline else {
            let next = min(deadline, now + .milliseconds(5))
            loop.scheduleTask(deadline: next.nioDeadline) { [self] in waitUntilIdle(until: deadline, done) }
            return
        }
        for link in links.values {
            link.finish(.stopping, .stopping)
            if !link.isConnected { abandon(link) }
        }
        for id in outstanding.keys.sorted() { finish(id, .released, "this node has stopped") }
        done.succeed()
    }

    /// The links as `status` shows them.
    package func snapshot() -> [LinkSnapshot] {
        links.values.map { link in
            LinkSnapshot(
                peer: link.peer?.name ?? link.key?.peer.name ?? "", address: link.remote,
                carrier: link.carrier.rawValue, topic: link.key?.topic?.name, isDialled: link.key != nil,
                isOpen: link.wasOpen && link.isConnected, outstanding: link.assigned.count)
        }
    }
}

/// A link as `status` shows it.
public struct LinkSnapshot: Hashable, Sendable, Codable {
    /// The peer's node name.
    public var peer: String
    /// The peer's address.
    public var address: String
    /// `persistent` or `ephemeral`.
    public var carrier: String
    /// The topic of a persistent link.
    public var topic: String?
    /// True when this node opened it.
    public var isDialled: Bool
    /// True between the hellos and the end.
    public var isOpen: Bool
    /// Messages of this node on it that have not ended.
    public var outstanding: Int
}

extension LinkMachine.CloseReason {
    /// The counter of links that ended so.
    var counter: Counter {
        switch self {
        case .finished: .linkClosedFinished
        case .idle: .linkClosedIdle
        case .stopping: .linkClosedStopping
        case .refused: .linkClosedRefused
        case .protocol: .linkClosedProtocol
        case .version: .linkClosedVersion
        case .cluster: .linkClosedCluster
        case .wrongNode: .linkClosedWrongNode
        case .ownNode: .linkClosedOwnNode
        case .limit: .linkClosedLimit
        case .helloDeadline: .linkClosedHelloDeadline
        case .dead: .linkClosedDead
        case .failed: .linkClosedFailed
        }
    }
}
