import CastnetCore
import Foundation
import Logging
package import NIOCore
import NIOPosix

/// Opening and closing links.
extension Unicast {
    func makeLink(key: Link.Key?, role: LinkMachine.Role, own: Hello) -> Link {
        let machine = LinkMachine(role: role, own: own, helloDeadline: helloDeadline, now: now)
        let link = Link(owner: self, number: nextLink, key: key, machine: machine, own: own, now: now)
        links[nextLink] = link
        nextLink += 1
        return link
    }

    func hello(purpose: Hello.Purpose) -> Hello {
        var hello = Hello(
            purpose: purpose, cluster: configuration.node.cluster, node: identity,
            messageMax: UInt64(configuration.limits.message))
        hello.features = [.credit, .replay, .busy, .claims]
        return hello
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

    /// The link that takes a message to `member`.
    func link(for entry: Outstanding, to member: Member, id: UInt64) -> Link {
        let message = entry.message
        let key = linkKey(for: message, carrier: entry.carrier, to: member, id: id)
        if let link = dialled[key] { return link }
        // The first message of a promoted topic to this member: it may not overtake those before it.
        var older: Link?
        if entry.carrier != message.route.carrier {
            let olderKey = linkKey(for: message, carrier: .ephemeral, to: member, id: id)
            older = dialled[olderKey]
            if let older, !older.mayHandOver {
                entry.carrier = .ephemeral
                return older
            }
        }
        let link = dial(key, at: ways(to: member), heartbeat: message.route.heartbeatInterval)
        if let older { link.follow(older, topic: message.topic) }
        return link
    }

    private func linkKey(
        for message: OutboundMessage, carrier: Carrier, to member: Member, id: UInt64
    ) -> Link.Key {
        let route = message.route
        if carrier == .persistent {
            let slot = message.sequence % UInt64(max(1, route.connections))
            return Link.Key(purpose: .persistent, peer: member.identity, topic: message.topic, slot: slot)
        }
        // A link that is not shared is one message's own.
        return Link.Key(purpose: .ephemeral, peer: member.identity, topic: nil, slot: route.share ? 0 : id)
    }

    /// Makes a link for `key`; it connects at once or as soon as limits and back-off allow.
    /// `isAnybody`: whoever answers is meant.
    func dial(
        _ key: Link.Key, at addresses: [PeerAddress], heartbeat: Duration, isAnybody: Bool = false
    ) -> Link {
        var own = hello(purpose: key.purpose)
        own.expected = isAnybody ? nil : key.peer
        if key.purpose == .persistent {
            own.heartbeatMilliseconds = UInt32(clamping: heartbeat.nanoseconds / 1_000_000)
        }
        let link = makeLink(key: key, role: .dialler, own: own)
        link.addresses = addresses
        dialled[key] = link
        let hits = dials.perPeerHits
        dials.enqueue(link.number, to: key.peer, isUrgent: key.purpose != .ephemeral, now: now)
        if dials.perPeerHits > hits {
            counters.add(.limitPerPeerHit)
            // What it closes starts the dial.
            _ = makeRoom { $0.key?.peer == key.peer }
        }
        startDials()
        return link
    }

    /// Starts the dials that limits and back-off allow; the others stay in turn.
    func startDials() {
        while true {
            switch dials.next(openLinks: budget.openCount, now: now) {
            case .dial(let number):
                if let link = links[number] { connect(link) } else { dials.dialled() }
            case .dialsFull:
                counters.add(.limitDialsHit)
                return armDials()
            case .linksFull:
                counters.add(.limitConnectionsHit)
                // What it closes starts the next dial.
                _ = makeRoom()
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
        let task = loop.scheduleTask(deadline: next.nioDeadline) { [self] in
            tick()
            dialTimer = nil
            dials.timerFired(now: now)
            startDials()
            flushLinks()
        }
        dialTimer = (next, task)
    }

    /// Closes the ephemeral link that has been idle for longest; false when none is idle. Which side dialled
    /// it does not matter: a message that crosses the goodbye goes another way.
    func makeRoom(where isMeant: (Link) -> Bool = { _ in true }) -> Bool {
        var oldest: Link?
        for link in links.values where link.mayGiveWay && isMeant(link) {
            if oldest.map({ link.lastUsedAt < $0.lastUsedAt }) ?? true { oldest = link }
        }
        guard let oldest else { return false }
        oldest.gaveWay = true
        oldest.finish(.limit, .idle)
        discount(oldest)
        return true
    }

    private func connect(_ link: Link) {
        guard let address = link.addresses.first else {
            return dialFailed(link, CastnetError(.unreachable, "the directory knows no address of it"))
        }
        let connection = connector.connect(to: address, on: loop)
        connection.whenComplete { [self] result in
            tick()
            switch result {
            case .success(let channel): connected(link, channel)
            case .failure(let error as IOError) where error.isShortage:
                counters.add(.linkDescriptorsShort)
                _ = makeRoom()
                if let key = link.key { dials.unaffordable(link.number, to: key.peer, now: now) }
            case .failure(let error):
                // A socket's path that is gone says nothing about the node; its last address does.
                link.isRefused =
                    (error as? IOError)?.errnoCode == ECONNREFUSED
                    || (error as? NIOConnectionError).map(\.isRefusal) == true
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
        budget.dialled()
        link.isCounted = true
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
        if let key = link.key, key.peer.incarnation == Incarnation(0) { rename(link, key, to: hello.node) }
        sink.met(hello.node)
        if let key = link.key {
            dials.opened(key.peer, now: now)
        } else {
            introduced(link, hello)
        }
    }

    /// A peer that was known by its name only has said which start of its node it is: as such the directory
    /// knows it from now on, and messages look for its links.
    private func rename(_ link: Link, _ key: Link.Key, to peer: NodeIdentity) {
        var renamed = key
        renamed.peer = peer
        if dialled[key] === link { dialled[key] = nil }
        if dialled[renamed] == nil { dialled[renamed] = link }
        link.key = renamed
        dials.renamed(key.peer, to: peer, now: now)
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

    /// Nothing waits for a link that is not there yet. Others may still come to one that is shared.
    func isUnneeded(_ link: Link) {
        guard let key = link.key, key.purpose == .ephemeral, key.slot != 0, link.closedBecause == nil,
            dials.forget(link.number, to: key.peer)
        else { return }
        abandon(link)
    }

    func closed(_ link: Link) {
        tick()
        discount(link)
        if let reason = link.closedBecause { counters.add(reason.counter) }
        if let key = link.key {
            let inOrder = link.gaveWay || [.finished, .idle].contains(link.closedBecause)
            if let time = link.machine.comeBack {
                counters.add(.linkDialsPaced)
                dials.paced(key.peer, for: time, now: now)
            } else {
                let isRefused = link.closedBecause == .limit
                dials.closed(key.peer, inOrder: inOrder, isRefused: isRefused, now: now)
            }
        }
        abandon(link)
        if link.wasOpen, let peer = link.peer {
            sink.parted(from: peer, isLost: link.isLost)
        }
        startDials()
        flushLinks()
    }

    /// Forgets a link and decides what becomes of the messages on it.
    private func abandon(_ link: Link) {
        links[link.number] = nil
        link.dropWords()
        retire(link)
        let why =
            "the link to \(link.key?.peer.description ?? "a peer") ended: "
            + "\(link.closedBecause?.rawValue ?? "not reached")"
            + (link.endText.isEmpty ? "" : ", \(link.endText)")
        for (id, mayHaveBeenTaken) in link.takeAssigned() {
            linkLost(id, wasTaken: mayHaveBeenTaken, by: link, why: why)
        }
        if let key = link.key, key.purpose == .service { sink.repairLinkEnded(key.peer) }
        leaveDoors(of: link)
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
        let isIdle = outstanding.isEmpty && links.values.allSatisfy(\.isUnused)
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

    /// What of the limits is used, and what is held.
    package struct Usage {
        package var connections = 0
        /// As many as `limits.connections` and the process's descriptors allow.
        package var connectionsMax = 0
        package var dials = 0
        package var pendingCalls = 0
        /// Messages past `limits.pending-calls`, and those that wait for a member or a free handler.
        package var parked = 0
        package var waiting = 0
        /// Connected or not.
        package var links = 0
        package var assembledBytes = 0
    }

    package var usage: Usage {
        Usage(
            connections: budget.openCount, connectionsMax: budget.linksMax, dials: dials.dialsInFlight,
            pendingCalls: outstanding.count - parkedCount, parked: parkedCount,
            waiting: unserved.count + crowded.count, links: links.count, assembledBytes: assembledBytes)
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

extension NIOConnectionError {
    /// True where every address that the host has refused the connection.
    fileprivate var isRefusal: Bool {
        !connectionErrors.isEmpty
            && connectionErrors.allSatisfy { ($0.error as? IOError)?.errnoCode == ECONNREFUSED }
    }
}
