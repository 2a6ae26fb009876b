extension DirectoryMachine {
    /// A record of another node, whole and checked, from one of the sources.
    mutating func apply(
        _ record: NodeRecord, source: RecordSources, interval: Duration, now: Instant,
        _ actions: inout [DirectoryAction]
    ) {
        let name = record.identity.name
        guard let entry = entries[name] else {
            guard makeRoom(&actions) else { return }
            let sources: RecordSources = source == .seeds ? [.seeds, .beacon] : source
            var entry = DirectoryEntry(record: record, sources: sources, interval: interval, now: now)
            entry.heard = sources.contains(.beacon) ? now : nil
            wants.satisfied(record.identity, version: record.version)
            insert(entry)
            counters.add(.directoryJoined)
            actions.append(.changed(.joined(record.identity)))
            if !record.channels.isEmpty { compareChannels(name, &actions) }
            welcome(source, now: now)
            return
        }
        let isNewer =
            (entry.identity.incarnation, entry.record.version) < (record.identity.incarnation, record.version)
        guard isNewer else { return }
        if record.identity.incarnation > entry.identity.incarnation {
            takeOver(record.identity, now: now, &actions)
        }
        wants.satisfied(record.identity, version: record.version)
        assembler.discard(name)
        replaceRecord(name, by: record)
        entries[name]?.sources.insert(source == .seeds ? .beacon : source)
        actions.append(.changed(.updated(record.identity)))
        compareChannels(name, &actions)
        if entry.record.version == 0 || entry.identity != record.identity { welcome(source, now: now) }
    }

    /// A newcomer in a small group is told at once who is here, without waiting for its question.
    private mutating func welcome(_ source: RecordSources, now: Instant) {
        guard source == .beacon, rules.beacons, phase == .running, presentCount <= 64 else { return }
        answer(within: answerWindow, now: now)
    }

    /// A newer incarnation holds the name from now on: the old one is gone, and nothing is known of the new
    /// one but what static sources say of the name.
    mutating func takeOver(
        _ identity: NodeIdentity, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        guard let entry = entries[identity.name] else { return }
        var record =
            entry.base
            ?? NodeRecord(identity: identity, version: 0, cluster: own.cluster, addresses: [])
        if entry.identity.incarnation == Incarnation(0) { record = entry.record }
        record = NodeRecord(
            identity: identity, version: 0, cluster: own.cluster, instance: record.instance,
            addresses: record.addresses, services: record.services, subscriptions: record.subscriptions)
        assembler.discard(identity.name)
        let (old, wasPresent) = (entry.identity, entry.isPresent)
        replaceRecord(identity.name, by: record)
        setState(identity.name, .alive, now: now)
        entries[identity.name]?.heard = now
        entries[identity.name]?.links = 0
        entries[identity.name]?.unreachable = false
        entries[identity.name]?.leftIncarnation = nil
        entries[identity.name]?.isWithdrawn = false
        entries[identity.name]?.reportedChannels = [:]
        if old.incarnation == Incarnation(0) {
            actions.append(.changed(wasPresent ? .updated(identity) : .joined(identity)))
            return
        }
        entries[identity.name]?.rival = .init(
            incarnation: old.incarnation, address: entry.record.addresses.first, firstHeard: now)
        counters.add(.directorySuperseded)
        actions.append(.changed(.superseded(old: old, new: identity)))
    }

    /// A sign of life of the incarnation in the table.
    mutating func heard(
        _ name: String, interval: Duration?, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        guard let position = entries.position(of: name) else { return }
        heard(at: position, interval: interval, now: now, &actions)
    }

    mutating func heard(
        at position: Int, interval: Duration?, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        let had = entries[position].life
        var life = had
        life.heard = now
        if let interval {
            life.interval = interval
            life.sources.insert(.beacon)
            life.sources.remove(.seeds)
            if !had.sources.contains(.beacon) || interval < had.interval { look(at: now + interval) }
        }
        entries[position].life = life
        if interval == nil { entries[position].linkHeard = now }
        guard life.state != .alive || life.unreachable else { return }
        setReachable(at: position, true)
        setState(at: position, .alive, now: now)
        look(at: now + (interval ?? had.interval))
        counters.add(.directoryRefuted)
        actions.append(.changed(.refuted(entries[position].identity)))
    }

    /// Another node heard it at `instant`: a sign of life, but none that it can be reached from here.
    mutating func witnessed(
        _ name: String, at instant: Instant, interval: Duration, now: Instant,
        _ actions: inout [DirectoryAction]
    ) {
        guard let position = entries.position(of: name) else { return }
        witnessed(at: position, at: instant, interval: interval, now: now, &actions)
    }

    mutating func witnessed(
        at position: Int, at instant: Instant, interval: Duration, now: Instant,
        _ actions: inout [DirectoryAction]
    ) {
        var life = entries[position].life
        guard instant > life.heard ?? Instant(nanoseconds: .min) else { return }
        life.heard = instant
        life.interval = interval
        life.sources.insert(.beacon)
        entries[position].life = life
        look(at: now + interval)
        // Whoever was heard so long ago that it is suspect is no news.
        guard life.state == .dead || (life.state == .suspect && !life.unreachable),
            (now - instant).nanoseconds < interval.nanoseconds / 2 * 3
        else { return }
        setState(at: position, .alive, now: now)
        counters.add(.directoryRefuted)
        actions.append(.changed(.refuted(entries[position].identity)))
    }

    /// The node stopped in order, or its last source took it back.
    mutating func leave(_ identity: NodeIdentity, now: Instant, _ actions: inout [DirectoryAction]) {
        guard let entry = entries[identity.name] else { return }
        entries[identity.name]?.leftIncarnation = identity.incarnation
        entries[identity.name]?.isWithdrawn = false
        guard entry.state != .left else { return }
        wants.forget(identity.name)
        assembler.discard(identity.name)
        setState(identity.name, .left, now: now)
        if let position = entries.position(of: identity.name) { fallBack(at: position) }
        counters.add(.directoryLeft)
        actions.append(.changed(.left(identity)))
    }

    /// What static sources say is all that is left of a node that is gone: its next hello names it anew.
    mutating func fallBack(at position: Int) {
        entries[position].links = 0
        guard let base = entries[position].base else { return }
        entries[position].sources.subtract([.beacon, .link])
        replaceRecord(entries[position].identity.name, by: base)
    }

    // MARK: The table

    mutating func insert(_ entry: DirectoryEntry) {
        entries[entry.identity.name] = entry
        presentCount += 1
        index.insert(entry.record)
        look(at: entry.next(times))
    }

    mutating func remove(_ name: String) {
        guard let entry = entries.remove(name) else { return }
        if entry.isPresent { presentCount -= 1 }
        if entry.state == .suspect { suspectCount -= 1 }
        index.remove(entry.record)
    }

    mutating func replaceRecord(_ name: String, by record: NodeRecord) {
        guard let old = entries[name]?.record else { return }
        index.remove(old)
        entries[name]?.record = record
        index.insert(record)
    }

    mutating func setReachable(at position: Int, _ isReachable: Bool) {
        guard entries[position].unreachable == isReachable else { return }
        entries[position].unreachable = !isReachable
        index.touch(entries[position].record)
    }

    mutating func setState(_ name: String, _ state: NodeState, now: Instant) {
        if let position = entries.position(of: name) { setState(at: position, state, now: now) }
    }

    mutating func setState(at position: Int, _ state: NodeState, now: Instant) {
        var life = entries[position].life
        let (old, wasPresent) = (life.state, life.isPresent)
        if old != state { (life.state, life.since) = (state, now) }
        let isPresent = life.isPresent
        if wasPresent != isPresent { presentCount += isPresent ? 1 : -1 }
        if old == .suspect { suspectCount -= 1 }
        if state == .suspect { suspectCount += 1 } else { life.probeAt = nil }
        entries[position].life = life
        if !isPresent { look(at: now + goneKept) }
        // Whoever is but suspect stays in the views.
        if wasPresent != isPresent { index.touch(entries[position].record) }
    }

    /// True when one more node may be taken in; the one gone longest makes room.
    private mutating func makeRoom(_ actions: inout [DirectoryAction]) -> Bool {
        if entries.count < rules.membersMax {
            isLimitTold = false
            return true
        }
        let gone = entries.entries.lazy.filter { !$0.isPresent && !$0.isVouched }
        if let oldest = gone.min(by: { ($0.since, $0.identity.name) < ($1.since, $1.identity.name) }) {
            remove(oldest.identity.name)
            return true
        }
        counters.add(.limitMembersHit)
        if !isLimitTold {
            isLimitTold = true
            actions.append(.changed(.membersLimit(rules.membersMax)))
        }
        return false
    }

    /// Says once per change where the peer's channel is another one under the same name.
    mutating func compareChannels(_ name: String, _ actions: inout [DirectoryAction]) {
        guard let entry = entries[name], name != own.identity.name else { return }
        for channel in entry.record.channels {
            guard let mine = own.channels.first(where: { $0.name == channel.name }) else { continue }
            if mine.digest == channel.digest {
                entries[name]?.reportedChannels[channel.name] = nil
                continue
            }
            var pair = WireDigest()
            pair.add(mine.digest)
            pair.add(channel.digest)
            guard entry.reportedChannels[channel.name] != pair.value else { continue }
            entries[name]?.reportedChannels[channel.name] = pair.value
            counters.add(.directoryChannelDiffers)
            actions.append(
                .changed(.channelDiffers(own: own.identity, peer: entry.identity, channel: channel.name)))
        }
    }
}
