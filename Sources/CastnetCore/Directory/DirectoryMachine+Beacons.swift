extension DirectoryMachine {
    /// A datagram that did not decode: only counted.
    package mutating func rejected(_ fault: BeaconFault) { counters.add(fault.counter) }

    /// What the driver put on the wire.
    package mutating func sent(bytes: Int) {
        counters.add(.beaconOut)
        counters.add(.beaconOutBytes, bytes)
    }

    /// A beacon from `source`, the datagram's address.
    package mutating func received(
        _ beacon: Beacon, from source: HostPort? = nil, now: Instant
    ) -> [DirectoryAction] {
        guard phase == .running else { return [] }
        guard beacon.cluster == cluster else {
            counters.add(.beaconRejectedCluster)
            return []
        }
        counters.add(.beaconIn)
        traffic.note(now: now)
        if case .digest = beacon.body { digests.note(now: now) }
        var actions: [DirectoryAction] = []
        if beacon.sender.name == own.identity.name {
            ownNameHeard(beacon, source, now: now, &actions)
            return actions
        }
        hearing.heardAt = now
        if hearing.isSilent {
            hearing.isSilent = false
            actions.append(.changed(.othersBack))
        }
        if beacon.body.isRepetition, let position = entries.position(of: beacon.senderDigest) {
            switch entries.refresh(
                position, beacon.stamp, interval: beacon.intervalMilliseconds, now: now)
            {
            case .nothing: break
            case .later: return actions
            case .sooner:
                look(at: now + beacon.interval)
                return actions
            }
        }
        if case .request(let request) = beacon.body { answer(request, now: now) }
        if case .table(let table) = beacon.body { told(table, by: beacon.sender, now: now, &actions) }
        if let position = entries.position(of: beacon.senderDigest),
            entries.isJust(position, beacon.stamp), !beacon.body.isGoodbye
        {
            heard(at: position, beacon, now: now, &actions)
            return actions
        }
        guard let entry = entries[beacon.sender.name] else {
            strangerHeard(beacon, now: now, &actions)
            return actions
        }
        let known = max(entry.identity.incarnation, entry.leftIncarnation ?? Incarnation(0))
        if beacon.sender.incarnation < known {
            olderHeard(beacon, source, now: now, &actions)
        } else if beacon.sender.incarnation == entry.leftIncarnation {
            counters.add(.beaconStale)
        } else if case .goodbye = beacon.body {
            // The goodbye of an incarnation never heard otherwise ends the ones before it, too.
            leave(beacon.sender, now: now, &actions)
        } else {
            if entry.state == .dead, case .digest = beacon.body { strangerNoticed(beacon, now: now) }
            if beacon.sender.incarnation > entry.identity.incarnation {
                takeOver(beacon.sender, now: now, &actions)
            }
            heard(beacon.sender.name, interval: beacon.interval, now: now, &actions)
            read(beacon, now: now, &actions)
        }
        return actions
    }

    /// From a node whose record is the one that is known.
    private mutating func heard(
        at position: Int, _ beacon: Beacon, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        guard case .digest(let heads) = beacon.body else {
            return heard(at: position, interval: beacon.interval, now: now, &actions)
        }
        if entries[position].life.state == .dead { strangerNoticed(beacon, now: now) }
        heard(at: position, interval: beacon.interval, now: now, &actions)
        if !heads.isEmpty { actions.append(.changed(.heads(beacon.sender, heads))) }
    }

    /// The body of a beacon whose sender is known, alive and current.
    private mutating func read(_ beacon: Beacon, now: Instant, _ actions: inout [DirectoryAction]) {
        guard let known = entries[beacon.sender.name]?.record.version else { return }
        switch beacon.body {
        case .record(let record):
            apply(record, source: .beacon, interval: beacon.interval, now: now, &actions)
            return
        case .part:
            if beacon.recordVersion > known { assemble(beacon, now: now, &actions) }
        case .digest(let heads):
            if !heads.isEmpty { actions.append(.changed(.heads(beacon.sender, heads))) }
        case .request, .goodbye, .table: break
        }
        if let version = entries[beacon.sender.name]?.record.version, beacon.recordVersion > version {
            want(beacon, now: now)
        }
    }

    /// Not an entry until its record is known: its digest alone names no topic.
    private mutating func strangerHeard(
        _ beacon: Beacon, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        switch beacon.body {
        case .record(let record):
            apply(record, source: .beacon, interval: beacon.interval, now: now, &actions)
        case .part:
            assemble(beacon, now: now, &actions)
            if entries[beacon.sender.name] == nil { want(beacon, now: now) }
        case .digest:
            strangerNoticed(beacon, now: now)
            want(beacon, now: now)
        case .request, .table: want(beacon, now: now)
        case .goodbye:
            wants.forget(beacon.sender.name)
            assembler.discard(beacon.sender.name)
        }
    }

    private mutating func assemble(_ beacon: Beacon, now: Instant, _ actions: inout [DirectoryAction]) {
        switch assembler.add(beacon, now: now) {
        case .waiting: look(at: now + BeaconAssembler.age)
        case .complete(let record):
            apply(record, source: .beacon, interval: beacon.interval, now: now, &actions)
        case .refused(let counter): counters.add(counter)
        }
    }

    /// Asks for the sender's record soon. A part only means that the others are on their way; a large group
    /// tells a newcomer its table.
    private mutating func want(_ beacon: Beacon, now: Instant) {
        guard rules.beacons else { return }
        let isLarge = isCrowd || beacon.interval > interval * 11 / 10
        let answersCome = isNewcomer(now) && entries[beacon.sender.name] == nil
        if isLarge, answersCome { return }
        // Many that start together have asked everyone, and are answered or announce themselves meanwhile.
        var due = now + turn(in: wantsWindow) + (answersCome ? .milliseconds(300) : .zero)
        if case .part = beacon.body { due = now + stretched(.milliseconds(400)) }
        if !wants.add(beacon.sender, version: beacon.recordVersion, at: due) {
            counters.add(.limitBeaconRequestsHit)
        }
    }

    // MARK: Questions

    private mutating func answer(_ request: Beacon.Request, now: Instant) {
        guard rules.beacons else { return }
        let name = Beacon.digest(ofName: own.identity.name)
        switch request {
        case .everyone(let known):
            if isCrowd {
                // What is told then is for this node, too.
                telling.isWanted = false
                needTable(tellers: 2, ofOwnSide: false, now: now)
            } else if !known.contains(Beacon.digest(of: own.identity, version: own.version)) {
                answer(within: answerWindow, now: now)
            }
        case .records(let names):
            wants.postpone(names, to: now + wantsWindow * 2 + turn(in: wantsWindow))
            if names.contains(name) {
                let spread = Self.scaled(.seconds(1), Double(names.count) / Double(rules.packetsPerSecond))
                answer(within: max(.milliseconds(5), spread), now: now)
            }
        // Asked over links only.
        case .table: break
        case .life(let names):
            let heard = entries.hearable(names)
            asked(forSame: heard.contains { entries[$0].life.state == .suspect }, now: now)
            for position in heard {
                let interval = entries[position].life.interval(atLeast: pace)
                entries.putOffProbe(position, to: now + nextProbe(every: interval))
            }
            if names.contains(name) {
                let due = max(now, schedule.lastDigest.map { $0 + .milliseconds(20) } ?? now)
                schedule.lifeAt = earliest(schedule.lifeAt, due + jitter(.milliseconds(5)))
            }
        }
    }

    /// Sends the record within `window`; an announcement that comes earlier serves as well.
    mutating func answer(within window: Duration, now: Instant) {
        var due = now + jitter(window)
        if let last = schedule.lastFull { due = max(due, last + .milliseconds(40)) }
        if let announcement = schedule.announcements.first, announcement <= due { return }
        schedule.answerAt = earliest(schedule.answerAt, due)
    }

    // MARK: Names in use twice

    private mutating func ownNameHeard(
        _ beacon: Beacon, _ source: HostPort?, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        if beacon.sender == own.identity {
            echoed(now: now, &actions)
            return
        }
        if case .goodbye = beacon.body { return }
        if ownRival?.incarnation != beacon.sender.incarnation {
            ownRival = .init(
                incarnation: beacon.sender.incarnation, address: Self.address(beacon, source), firstHeard: now
            )
        }
        guard let rival = ownRival, !rival.reported else { return }
        // A later one certainly runs beside this node; an earlier one may only have left datagrams behind.
        guard rival.incarnation > own.identity.incarnation || now - rival.firstHeard >= interval * 3 / 4
        else {
            return
        }
        ownRival?.reported = true
        counters.add(.directoryNameConflicts)
        actions.append(
            .changed(
                .nameConflict(
                    .init(
                        name: own.identity.name, first: own.identity.incarnation,
                        firstAddress: own.addresses.first, second: rival.incarnation,
                        secondAddress: rival.address))))
    }

    private mutating func echoed(now: Instant, _ actions: inout [DirectoryAction]) {
        echo.missing = 0
        guard echo.isSilent else { return }
        echo.isSilent = false
        echo.backAt = now
        look(at: now)
        actions.append(.changed(.beaconsBack))
        schedule.joinRounds.append(now + jitter(stretched(.milliseconds(200))))
    }

    /// Datagrams overtake each other, so an old incarnation is a conflict only if it is still heard most of
    /// an interval after the new one.
    private mutating func olderHeard(
        _ beacon: Beacon, _ source: HostPort?, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        counters.add(.beaconStale)
        let name = beacon.sender.name
        if case .goodbye = beacon.body { return }
        guard let entry = entries[name], entry.state == .alive else { return }
        guard let rival = entry.rival, rival.incarnation == beacon.sender.incarnation else {
            entries[name]?.rival = .init(
                incarnation: beacon.sender.incarnation, address: Self.address(beacon, source), firstHeard: now
            )
            return
        }
        guard !rival.reported, now - rival.firstHeard >= entry.interval * 3 / 4 else { return }
        entries[name]?.rival?.reported = true
        counters.add(.directoryNameConflicts)
        actions.append(
            .changed(
                .nameConflict(
                    .init(
                        name: name, first: entry.identity.incarnation,
                        firstAddress: entry.record.addresses.first, second: rival.incarnation,
                        secondAddress: rival.address ?? Self.address(beacon, source)))))
    }

    /// Where a sender listens, or at least sends from.
    private static func address(_ beacon: Beacon, _ source: HostPort?) -> HostPort? {
        if case .record(let record) = beacon.body, let address = record.addresses.first { return address }
        return source
    }
}

extension Beacon.Body {
    fileprivate var isGoodbye: Bool { if case .goodbye = self { true } else { false } }

    /// True for a body that tells nothing new to whoever has the record's version.
    var isRepetition: Bool {
        switch self {
        case .digest(let heads): heads.isEmpty
        case .record: true
        case .part, .request, .goodbye, .table: false
        }
    }
}
