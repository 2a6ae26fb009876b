/// When this node tells the group what it knows of everybody, on their behalf.
///
/// A newcomer to a large group, or the other half of one that was cut in two, needs thousands of records at
/// once. Instead of everyone, a few tell all they know: seven nodes fit one datagram.
struct TableTelling: Sendable {
    /// From when a table is needed until it has been told.
    struct Episode: Sendable {
        var began: Instant
        /// Not before this; put off with every part that is told.
        var end: Instant
        /// So many nodes are enough,
        var tellers: Int
        /// of those known before it began where two parts of a group have met, else of all.
        var ofOwnSide: Bool
    }
    var episode: Episode?
    /// When this node begins, unless enough others have.
    var turnAt: Instant?
    /// Who was heard telling in this episode, and when last.
    var heard: [String: Instant] = [:]
    /// Of these, those that were known before it began.
    var own: Set<String> = []
    /// The next entry to tell and how many are left; nil: this node does not tell.
    var position: (next: Int, left: Int)?
    var packetAt: Instant?
    /// Nodes heard that were not known or taken for dead, lately.
    var strangers: (last: String, since: Instant, count: Int) = ("", Instant(nanoseconds: .min), 0)
    var askedAt: Instant?
    /// This node asks for the table, however many nodes it knows.
    var isWanted = false

    var nextDeadline: Instant? { earliest(turnAt, packetAt) }

    /// Parts of a table that is being told are never so far apart.
    static let gap: Duration = .milliseconds(250)

    /// Until when nobody need ask for what a table will tell.
    func quietUntil(now: Instant) -> Instant? { episode.flatMap { $0.end > now ? $0.end : nil } }

    var hasEnough: Bool {
        guard let episode else { return true }
        return (episode.ofOwnSide ? own.count : heard.count) >= episode.tellers
    }

    mutating func partTold(now: Instant) {
        guard let end = episode?.end else { return }
        episode?.end = max(end, now + Self.gap)
    }
}

extension DirectoryMachine {
    /// In a larger group nobody answers for itself alone.
    static let crowdFrom = 128
    /// All tables told at a time together, in datagrams a second.
    static let tablePacketsPerSecond = 1500
    /// How long a newcomer waits for the table before it asks again.
    static let patienceOfNewcomers: Duration = .seconds(2)
    static let turnWindow: Duration = .seconds(1)

    var isCrowd: Bool { presentCount > Self.crowdFrom }

    // MARK: Needs

    /// The digest of a node that should be known, which a newcomer has announced to be before: one may have
    /// been missed, two are another part of the group that was out of reach.
    mutating func strangerNoticed(_ beacon: Beacon, now: Instant) {
        // To a node that has just started all are strangers; it has asked for everyone.
        guard rules.beacons, now - startedAt > Self.patienceOfNewcomers else { return }
        if now - telling.strangers.since > .seconds(1) { telling.strangers = ("", now, 0) }
        guard telling.strangers.last != beacon.sender.name else { return }
        telling.strangers.last = beacon.sender.name
        telling.strangers.count += 1
        // Some are always missed where many are.
        guard telling.strangers.count >= max(2, digests.perSecond(now: now) / 20) else { return }
        telling.strangers.count = 0
        let isYoung = now - startedAt < .seconds(20)
        if isCrowd, !isYoung { needTable(tellers: 4, ofOwnSide: true, now: now) }
        let askedLately = telling.askedAt.map { now - $0 < Self.patienceOfNewcomers } ?? false
        if isYoung || beacon.interval > interval * 3 / 2, !askedLately {
            telling.askedAt = now
            telling.isWanted = true
            schedule.joinRounds.append(now + turn(in: .milliseconds(200)))
        }
    }

    /// True for a while: the others come in as they are told of.
    func isNewcomer(_ now: Instant) -> Bool { now - startedAt < .seconds(5) }

    /// Somebody needs the whole table: this node or one of the others tells it.
    mutating func needTable(tellers: Int, ofOwnSide: Bool, now: Instant) {
        if var episode = telling.episode, episode.end > now {
            episode.tellers = max(tellers, episode.tellers)
            episode.ofOwnSide = episode.ofOwnSide || ofOwnSide
            telling.episode = episode
        } else {
            // Half of the time is enough for those who come all the time.
            if let last = telling.episode, !ofOwnSide, now - last.end < (last.end - last.began) / 2 { return }
            let end = now + Self.turnWindow + TableTelling.gap
            telling.episode = .init(began: now, end: end, tellers: tellers, ofOwnSide: ofOwnSide)
            telling.heard = [:]
            telling.own = []
        }
        guard telling.position == nil, telling.turnAt == nil, !telling.hasEnough else { return }
        telling.turnAt = now + turn(in: Self.turnWindow)
    }

    // MARK: Telling

    /// What is due of the own table.
    mutating func tell(now: Instant, _ actions: inout [DirectoryAction]) {
        if let turn = telling.turnAt, turn <= now {
            telling.turnAt = nil
            if !telling.hasEnough {
                telling.position = (Int(generator.next() % UInt64(max(1, entries.count))), entries.count)
                telling.packetAt = now
                counters.add(.beaconTables)
            }
        }
        guard let due = telling.packetAt, due <= now else { return }
        let table = nextPacket(now: now)
        telling.partTold(now: now)
        if !table.isEmpty { send(.table(table), now: now, &actions) }
        guard telling.position != nil else {
            telling.packetAt = nil
            return
        }
        let others = telling.heard.values.count { now - $0 < .seconds(1) }
        let tellers = max(others + 1, (telling.episode?.tellers ?? 1) * 2)
        telling.packetAt = now + .seconds(1) * tellers / Self.tablePacketsPerSecond
    }

    /// As many entries as fit a datagram, from where the last one ended.
    private mutating func nextPacket(now: Instant) -> [Beacon.Told] {
        guard var (next, left) = telling.position else { return [] }
        var table: [Beacon.Told] = []
        var room =
            BeaconFormat.datagramSizeMax - BeaconFormat.headerSize - own.identity.name.utf8.count - 2
        while left > 0 {
            let entry = entries[next % entries.count]
            if var told = told(of: entry, now: now) {
                room -= told.fit(recordMax: BeaconFormat.datagramSizeMax / 2)
                guard room >= 0 else { break }
                table.append(told)
            }
            (next, left) = ((next + 1) % entries.count, left - 1)
        }
        telling.position = left > 0 ? (next, left) : nil
        return table
    }

    /// Nodes that were heard, the own one among them; what is only configured others have as well.
    func told(of entry: DirectoryEntry, now: Instant) -> Beacon.Told? {
        if entry.sources.contains(.own) { return .init(record: own, interval: interval, age: .zero) }
        guard entry.state == .alive, entry.sources.contains(.beacon), entry.record.version > 0,
            let heard = entry.heard
        else { return nil }
        return .init(record: entry.record, interval: entry.interval, age: now - heard)
    }

    // MARK: Being told

    /// A part of the table of `teller`.
    mutating func told(
        _ table: [Beacon.Told], by teller: NodeIdentity, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        if let episode = telling.episode, telling.heard[teller.name] == nil,
            let entry = entries[teller.name], entry.isPresent, entry.since < episode.began
        {
            telling.own.insert(teller.name)
        }
        if telling.heard.count < 64 { telling.heard[teller.name] = now }
        telling.partTold(now: now)
        if telling.hasEnough { telling.turnAt = nil }
        for position in entries.news(in: table, now: now) {
            if self.told(table[position], source: .beacon, now: now, &actions) { continue }
            let due = now + turn(in: wantsWindow)
            let record = table[position].record
            if !wants.add(record.identity, version: record.version, at: due) {
                counters.add(.limitBeaconRequestsHit)
            }
        }
    }

    /// What another node knows of a third; false: its record has to be asked for.
    mutating func told(
        _ told: Beacon.Told, source: RecordSources, now: Instant, _ actions: inout [DirectoryAction]
    ) -> Bool {
        let heard = now - told.age
        if let position = entries.position(of: told.digest), entries.isJust(position, told.stamp),
            !told.hasLeft
        {
            guard !told.isOld, !entries[position].life.sources.contains(.own) else {
                return true
            }
            witnessed(at: position, at: heard, interval: told.interval, now: now, &actions)
            return true
        }
        let identity = told.record.identity
        let position = entries.position(of: told.digest, identity.name)
        guard identity.name != own.identity.name else { return true }
        if told.hasLeft {
            heardOfLeaving(identity, now: now, &actions)
            return true
        }
        guard !told.isOld else { return true }
        let entry = position.map { entries[$0] }
        if let entry {
            let known = max(entry.identity.incarnation, entry.leftIncarnation ?? Incarnation(0))
            guard identity.incarnation >= known, identity.incarnation != entry.leftIncarnation else {
                counters.add(.beaconStale)
                return true
            }
        }
        let version = told.record.version
        let isNewer = entry.map {
            ($0.identity.incarnation, $0.record.version) < (identity.incarnation, version)
        }
        if isNewer ?? true, !told.isWhole { return false }
        if isNewer ?? true {
            apply(told.record, source: source, interval: told.interval, now: now, &actions)
            // It was not heard here.
            if entry?.identity != identity, let position = entries.position(of: told.digest, identity.name) {
                entries[position].heard = heard
                look(at: entries[position].next(times))
            }
        }
        witnessed(identity.name, at: heard, interval: told.interval, now: now, &actions)
        return true
    }

    /// Another node heard its goodbye.
    private mutating func heardOfLeaving(
        _ identity: NodeIdentity, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        guard let entry = entries[identity.name], entry.identity.incarnation <= identity.incarnation,
            entry.leftIncarnation.map({ $0 < identity.incarnation }) ?? true
        else { return }
        leave(identity, now: now, &actions)
    }
}
