extension DirectoryMachine {
    /// A link tells of its peer. Peers nobody else told of are asked for their record, not made up.
    package mutating func link(
        _ fact: LinkFact, peer: NodeIdentity, now: Instant
    ) -> [DirectoryAction] {
        guard phase == .running, peer.name != own.identity.name else { return [] }
        var actions: [DirectoryAction] = []
        guard let entry = entries[peer.name] else {
            if case .opened = fact, rules.beacons, !wants.add(peer, version: 1, at: now) {
                counters.add(.limitBeaconRequestsHit)
            }
            return actions
        }
        guard peer.incarnation != entry.leftIncarnation else { return actions }
        if case .opened(let address) = fact {
            if peer.incarnation > entry.identity.incarnation { takeOver(peer, now: now, &actions) }
            guard entries[peer.name]?.identity == peer else { return actions }
            entries[peer.name]?.links += 1
            entries[peer.name]?.sources.insert(.link)
            if let address, entries[peer.name]?.record.addresses.isEmpty == true,
                var record = entries[peer.name]?.record
            {
                record.addresses = [address]
                replaceRecord(peer.name, by: record)
            }
            heard(peer.name, interval: nil, now: now, &actions)
            return actions
        }
        guard entry.identity == peer else { return actions }
        switch fact {
        case .opened: break
        case .heard: heard(peer.name, interval: nil, now: now, &actions)
        case .closed: entries[peer.name]?.links = max(0, entry.links - 1)
        case .lost:
            entries[peer.name]?.links = max(0, entry.links - 1)
            if entry.links <= 1 { suspect(peer.name, .linkLost, now: now, &actions) }
        }
        return actions
    }

    /// Nobody answered at the addresses of `peer`.
    package mutating func dialFailed(_ peer: NodeIdentity, now: Instant) -> [DirectoryAction] {
        var actions: [DirectoryAction] = []
        guard phase == .running, peer != own.identity, let entry = entries[peer.name],
            entry.identity == peer, entry.isPresent
        else { return actions }
        suspect(peer.name, .dialFailed, now: now, &actions)
        return actions
    }

    /// Doubt with a reason: the node stays in the views until it is dead, but calls prefer others meanwhile.
    private mutating func suspect(
        _ name: String, _ reason: DirectoryEvent.SuspicionReason, now: Instant,
        _ actions: inout [DirectoryAction]
    ) {
        guard let position = entries.position(of: name), entries[position].isPresent else { return }
        let entry = entries[position]
        let isNews = entry.state == .alive || !entry.unreachable
        setReachable(at: position, false)
        if entry.state == .suspect {
            // Another failed dial: the next try of a vouched node is put off again.
            entries[position].since = now
        }
        setState(at: position, .suspect, now: now)
        let probe = now + jitter(.milliseconds(20))
        if entry.sources.contains(.beacon) { entries[position].probeAt = probe }
        look(at: probe)
        guard isNews else { return }
        counters.add(.directorySuspected)
        actions.append(.changed(.suspected(entry.identity, reason)))
    }

    // MARK: Discovery sources

    /// The source numbered `source` tells of a node. Incarnation 0: it does not know which start it was.
    package mutating func discovered(
        _ record: NodeRecord, source: Int, now: Instant
    ) -> [DirectoryAction] {
        let name = record.identity.name
        guard phase == .running, name != own.identity.name, record.cluster == own.cluster,
            record.beaconFault == nil
        else { return [] }
        var actions: [DirectoryAction] = []
        if record.identity.incarnation == Incarnation(0) {
            discoveredByName(record, now: now, &actions)
        } else if let left = entries[name]?.leftIncarnation, record.identity.incarnation <= left {
            if entries[name]?.isWithdrawn == true, record.identity.incarnation == left {
                comeBack(record, now: now, &actions)
            } else {
                counters.add(.beaconStale)
            }
        } else {
            apply(record, source: .discovery, interval: rules.interval, now: now, &actions)
        }
        guard let entry = entries[name] else { return actions }
        let isNamed = record.identity.incarnation == Incarnation(0)
        guard isNamed || entry.identity == record.identity else { return actions }
        entries[name]?.sources.insert(.discovery)
        entries[name]?.discoverers.insert(source)
        if entry.state == .dead, !entry.sources.contains(.discovery) {
            heard(name, interval: nil, now: now, &actions)
        }
        return actions
    }

    /// A source tells again of a start that it had dropped: its record had expired, say, while the node could
    /// not reach the store.
    private mutating func comeBack(
        _ record: NodeRecord, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        let name = record.identity.name
        entries[name]?.leftIncarnation = nil
        entries[name]?.isWithdrawn = false
        if let known = entries[name]?.record, known.version <= record.version {
            replaceRecord(name, by: record)
        }
        entries[name]?.unreachable = false
        setState(name, .alive, now: now)
        counters.add(.directoryRefuted)
        actions.append(.changed(.refuted(record.identity)))
        compareChannels(name, &actions)
    }

    private mutating func discoveredByName(
        _ record: NodeRecord, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        let name = record.identity.name
        var record = record
        record.version = 0
        guard let entry = entries[name] else {
            apply(record, source: .discovery, interval: rules.interval, now: now, &actions)
            entries[name]?.base = record
            return
        }
        guard entry.base != record else { return }
        entries[name]?.base = record
        guard entry.record.version == 0 else { return }
        let identity = entry.identity
        replaceRecord(
            name,
            by: NodeRecord(
                identity: identity, version: 0, cluster: own.cluster, instance: record.instance,
                addresses: record.addresses, services: record.services, subscriptions: record.subscriptions))
        actions.append(.changed(.updated(identity)))
    }

    /// The source no longer tells of the node; where no other source knows it, it has left.
    package mutating func withdrawn(
        _ name: String, source: Int, now: Instant
    ) -> [DirectoryAction] {
        var actions: [DirectoryAction] = []
        guard let entry = entries[name], entry.discoverers.contains(source) else { return actions }
        entries[name]?.discoverers.remove(source)
        guard entry.discoverers.count == 1 else { return actions }
        entries[name]?.sources.remove(.discovery)
        if !entry.sources.contains(.fixed) { entries[name]?.base = nil }
        guard entry.sources.isDisjoint(with: [.fixed, .beacon]) else { return actions }
        let saidGoodbye = entry.state == .left && !entry.isWithdrawn
        leave(entry.identity, now: now, &actions)
        entries[name]?.isWithdrawn = !saidGoodbye
        // A name without an incarnation may be told of again at any time.
        if entry.identity.incarnation == Incarnation(0) { entries[name]?.leftIncarnation = nil }
        return actions
    }
}
