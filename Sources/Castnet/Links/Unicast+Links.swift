package import CastnetCore
import Foundation
import Logging
package import NIOCore
import NIOPosix

/// Opening, accepting and closing links.
extension Unicast {
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

    /// Binds the Unix-domain socket for peers of the same user on this host; where that fails they come over
    /// TCP.
    func bindUnix(in directory: SocketDirectory) -> EventLoopFuture<Void> {
        guard configuration.node.unixSockets, HostID.current != 0 else {
            return loop.makeSucceededVoidFuture()
        }
        let path = directory.socket(of: identity, host: HostID.current)
        do {
            try directory.prepare()
            directory.removeStale(host: HostID.current)
        } catch {
            warnOfUnix(error)
            return loop.makeSucceededVoidFuture()
        }
        return ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1024)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try accept(channel) }
            }
            .bind(unixDomainSocketPath: path).map { [self] channel in
                unixListener = channel
                unixPath = path
                // The directory lets nobody in; this says so once more.
                chmod(path, 0o600)
            }.recover { [self] in warnOfUnix($0) }
    }

    private func warnOfUnix(_ error: any Error) {
        log.warning(
            "no Unix-domain socket: peers on this host come over TCP", metadata: ["castnet.error": "\(error)"]
        )
    }

    private func accept(_ channel: any Channel) throws {
        tick()
        // Who comes over a Unix-domain socket has no address; `limits.per-peer` bounds it.
        let address = channel.remoteAddress?.ipAddress
        if connectedCount + dials.dialsInFlight >= configuration.limits.connections, !closeLeastRecentlyUsed()
        {
            counters.add(.limitConnectionsHit)
            throw CastnetError(.limitReached, "limits.connections")
        }
        if let address {
            if acceptedPerAddress[address, default: 0] >= configuration.limits.perAddress {
                counters.add(.limitPerAddressHit)
                throw CastnetError(.limitReached, "limits.per-address")
            }
            acceptedPerAddress[address, default: 0] += 1
        }
        counters.add(.linkAccepted)
        let own = hello(purpose: .service)
        let link = makeLink(key: nil, role: .acceptor, own: own)
        count(link)
        link.acceptedFrom = address
        // Where the link never got to see its channel, this is the only end it has.
        channel.closeFuture.whenComplete { [self] _ in
            discount(link)
            links[link.number] = nil
        }
        try channel.pipeline.syncOperations.addHandler(link)
    }

    private func count(_ link: Link) {
        connectedCount += 1
        link.isCounted = true
    }

    /// A link's connection is gone: it counts against no limit any more.
    private func discount(_ link: Link) {
        guard link.isCounted else { return }
        link.isCounted = false
        connectedCount -= 1
        guard link.key == nil else { return }
        if let address = link.acceptedFrom { acceptedPerAddress.release(address) }
        if let peer = link.peer { acceptedPerPeer.release(peer.name) }
    }

    private func makeLink(key: Link.Key?, role: LinkMachine.Role, own: Hello) -> Link {
        let machine = LinkMachine(role: role, own: own, helloDeadline: helloDeadline, now: now)
        let link = Link(owner: self, number: nextLink, key: key, machine: machine, own: own, now: now)
        links[nextLink] = link
        nextLink += 1
        return link
    }

    private func hello(purpose: Hello.Purpose) -> Hello {
        Hello(
            purpose: purpose, cluster: configuration.node.cluster, node: identity,
            messageMax: UInt64(configuration.limits.message))
    }

    // MARK: Dialling

    /// Where a member is dialled, best first.
    func ways(to member: Member) -> [PeerAddress] {
        ways(member.addresses, unixPath: member.unixPath, hostID: member.hostID)
    }

    /// A path means the same socket only to who is of the same host.
    func ways(_ addresses: [HostPort], unixPath: String?, hostID: UInt64) -> [PeerAddress] {
        let isHere = configuration.node.unixSockets && hostID != 0 && hostID == HostID.current
        let unix = isHere ? unixPath.map { [PeerAddress.unix($0)] } ?? [] : []
        return unix + addresses.map { .tcp($0) }
    }

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
    func dial(_ key: Link.Key, at addresses: [PeerAddress], heartbeat: Duration) -> Link {
        var own = hello(purpose: key.purpose)
        own.expected = key.peer
        if key.purpose == .persistent {
            own.heartbeatMilliseconds = UInt32(clamping: heartbeat.nanoseconds / 1_000_000)
        }
        let link = makeLink(key: key, role: .dialler, own: own)
        link.addresses = addresses
        dialled[key] = link
        let hits = dials.perPeerHits
        dials.enqueue(link.number, to: key.peer, now: now)
        if dials.perPeerHits > hits { counters.add(.limitPerPeerHit) }
        startDials()
        return link
    }

    /// Starts the dials that limits and back-off allow; the others stay in turn.
    func startDials() {
        while true {
            switch dials.next(openLinks: connectedCount, now: now) {
            case .dial(let number):
                if let link = links[number] { connect(link) } else { dials.dialled() }
            case .dialsFull:
                counters.add(.limitDialsHit)
                return armDials()
            case .linksFull:
                counters.add(.limitConnectionsHit)
                // What it closes starts the next dial.
                _ = closeLeastRecentlyUsed()
                return armDials()
            case .none: return armDials()
            }
        }
    }

    /// One timer for the end of the first back-off that somebody waits for.
    private func armDials() {
        guard let next = dials.nextDeadline else { return }
        if let dialTimer, dialTimer.at <= next { return }
        dialTimer?.task.cancel()
        let task = loop.scheduleTask(deadline: next.nioDeadline) { [weak self] in
            guard let self else { return }
            tick()
            dialTimer = nil
            dials.timerFired(now: now)
            startDials()
            flushLinks()
        }
        dialTimer = (next, task)
    }

    /// Closes the ephemeral link that has been idle for longest; false when none is idle.
    private func closeLeastRecentlyUsed() -> Bool {
        let idle = links.values.filter { $0.isEphemeral && $0.isIdle && $0.isConnected }
        guard let oldest = idle.min(by: { $0.lastUsedAt < $1.lastUsedAt }) else { return false }
        oldest.finish(.limit, .idle)
        return true
    }

    private func connect(_ link: Link) {
        guard let address = link.addresses.first else {
            return dialFailed(link, CastnetError(.unreachable, "the directory knows no address of it"))
        }
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(Self.dialDeadline)
        let connection =
            switch address {
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            case .tcp(let address):
                bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connect(host: address.host, port: Int(address.port))
            }
        connection.whenComplete { [self] result in
            tick()
            switch result {
            case .success(let channel): connected(link, channel)
            case .failure(let error):
                link.addresses = Array(link.addresses.dropFirst())
                link.addresses.isEmpty ? dialFailed(link, error) : connect(link)
            }
            startDials()
            flushLinks()
        }
    }

    private func connected(_ link: Link, _ channel: any Channel) {
        guard let key = link.key else { return }
        dials.dialled()
        guard links[link.number] != nil else {
            // Nobody wants it any more.
            channel.close(promise: nil)
            return dials.closed(key.peer, inOrder: true, now: now)
        }
        counters.add(.linkOpened)
        count(link)
        do {
            try channel.pipeline.syncOperations.addHandler(link)
        } catch {
            // The channel closed before the link could join it.
            _ = link.notConnected()
            closed(link)
        }
    }

    private func dialFailed(_ link: Link, _ error: any Error) {
        guard let key = link.key else { return }
        counters.add(.linkDialFailed)
        log.debug("dial failed", metadata: ["castnet.peer": "\(key.peer)", "castnet.error": "\(error)"])
        dials.failed(key.peer, now: now)
        abandon(link)
        sink.missed(key.peer)
    }

    // MARK: What links report

    func opened(_ link: Link, _ hello: Hello) {
        sink.met(hello.node)
        if let key = link.key {
            dials.opened(key.peer, now: now)
        } else {
            let count = acceptedPerPeer[hello.node.name, default: 0]
            acceptedPerPeer[hello.node.name] = count + 1
            if count >= configuration.limits.perPeer {
                counters.add(.limitPerPeerHit)
                link.finish(.limit, .limit, "limits.per-peer: \(count) links")
            } else if isLeaving, hello.purpose != .service {
                // Members may still come for missing frames, nobody else.
                link.leave()
            }
        }
    }

    /// A link takes no new messages: the next one to its peer opens another.
    func retire(_ link: Link) {
        if let key = link.key, dialled[key] === link { dialled[key] = nil }
    }

    /// Ends a link, whether it stands or is still being dialled.
    func end(_ link: Link, _ reason: LinkMachine.CloseReason, _ goodbye: Goodbye.Reason, _ text: String = "")
    {
        guard !link.isConnected else { return link.finish(reason, goodbye, text) }
        if let key = link.key { dials.forget(link.number, to: key.peer) }
        abandon(link)
    }

    func closed(_ link: Link) {
        tick()
        discount(link)
        if let reason = link.closedBecause { counters.add(reason.counter) }
        if let key = link.key {
            let inOrder = [.finished, .idle, .limit].contains(link.closedBecause)
            dials.closed(key.peer, inOrder: inOrder, now: now)
        }
        abandon(link)
        if link.wasOpen, let peer = link.peer {
            sink.parted(from: peer, isLost: link.closedBecause == .dead || link.closedBecause == .failed)
        }
        startDials()
        flushLinks()
    }

    /// Forgets a link and decides what becomes of the messages on it.
    private func abandon(_ link: Link) {
        links[link.number] = nil
        retire(link)
        let why =
            "the link to \(link.key?.peer.description ?? "a peer") ended: "
            + "\(link.closedBecause?.rawValue ?? "not reached")"
        for (id, mayHaveBeenTaken) in link.takeAssigned() {
            linkLost(id, wasTaken: mayHaveBeenTaken, why: why)
        }
        if let key = link.key, key.purpose == .service { sink.repairLinkEnded(key.peer) }
    }

    // MARK: The end

    /// Begins to stop: nothing new is taken in, and the peers are told, so that what crosses their goodbye
    /// goes to other members. What was taken in is still answered.
    package func leave() {
        tick()
        guard !isLeaving else { return }
        isLeaving = true
        for link in links.values { link.leave() }
        flushLinks()
    }

    /// Stops: no new message is taken, what is under way may finish for `drain`, then every link says
    /// goodbye.
    package func close(drain: Duration) -> EventLoopFuture<Void> {
        leave()
        isClosing = true
        listener?.close(promise: nil)
        unixListener?.close(promise: nil)
        if let unixPath { unlink(unixPath) }
        let done = loop.makePromise(of: Void.self)
        let listenerClosed = listener?.closeFuture ?? loop.makeSucceededVoidFuture()
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
        finishAll("this node has stopped")
        let open = links.values.compactMap(\.context?.channel.closeFuture)
        for link in links.values { end(link, .stopping, .stopping) }
        EventLoopFuture.andAllComplete(open, on: loop).cascade(to: done)
    }

    /// What of the limits is used.
    struct Usage {
        var connections = 0
        var dials = 0
        var pendingCalls = 0
    }

    var usage: Usage {
        Usage(
            connections: connectedCount, dials: dials.dialsInFlight, pendingCalls: outstanding.count)
    }

    /// The links as `status` shows them.
    package func snapshot() -> [LinkSnapshot] {
        links.values.sorted { $0.number < $1.number }.map { link in
            LinkSnapshot(
                peer: link.peer?.name ?? link.key?.peer.name ?? "", address: link.remote,
                carrier: link.carrier.rawValue, topic: link.key?.topic?.name, isDialled: link.key != nil,
                isOpen: link.wasOpen && link.isConnected, outstanding: link.assigned.count)
        }
    }
}

extension [String: Int] {
    /// One less of `key`; nothing is kept of what is at none.
    fileprivate mutating func release(_ key: String) {
        guard let count = self[key] else { return }
        self[key] = count > 1 ? count - 1 : nil
    }
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
