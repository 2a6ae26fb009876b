extension DirectoryMachine {
    /// Suspects and gives up nodes that were silent, forgets those long gone; returns the names (as digests)
    /// of the suspects to ask for a sign of life.
    ///
    /// Signs of life only move an entry's own times, so a scan may find nothing to do and looks again when
    /// the next entry may be due: a handful of scans per interval, whatever the group's size.
    mutating func expire(now: Instant, _ actions: inout [DirectoryAction]) -> [UInt64] {
        guard let due = expiryAt, due <= now else { return [] }
        counters.add(.assemblyTimeout, assembler.expire(now: now))
        let names = entries.filter { next(of: $0.value).map { $0 <= now } ?? false }.keys.sorted()
        var probes: [UInt64] = []
        for name in names {
            if expire(name, now: now, &actions) { probes.append(Beacon.digest(ofName: name)) }
        }
        expiryAt = assembler.isEmpty ? nil : now + BeaconAssembler.age
        for entry in entries.values { expiryAt = earliest(expiryAt, next(of: entry)) }
        let pause = max(.milliseconds(5), rules.interval / 64)
        expiryAt = expiryAt.map { max($0, now + pause) }
        return Array(probes.prefix(BeaconFormat.requestEntriesMax))
    }

    /// When the entry needs something next.
    private func next(of entry: DirectoryEntry) -> Instant? {
        switch entry.state {
        case .alive: return entry.suspicionAt(notBefore: echo.backAt)
        case .suspect:
            let death = echo.isSilent ? nil : entry.deathAt(notBefore: echo.backAt)
            return earliest(earliest(death, entry.probeAt), entry.retryAt)
        case .left, .dead: return entry.forgottenAt(after: rules.goneKept)
        }
    }

    /// One entry that is due; true when it is to be asked.
    private mutating func expire(
        _ name: String, now: Instant, _ actions: inout [DirectoryAction]
    ) -> Bool {
        guard let entry = entries[name] else { return false }
        switch entry.state {
        case .alive:
            setState(name, .suspect, now: now)
            let probe = now + jitter(entry.interval / 10)
            entries[name]?.probeAt = probe
            counters.add(.suspected)
            actions.append(.changed(.suspected(entry.identity, .silent)))
            return false
        case .suspect:
            if !echo.isSilent, let death = entry.deathAt(notBefore: echo.backAt), death <= now {
                setState(name, .dead, now: now)
                fallBack(name)
                counters.add(.died)
                actions.append(.changed(.died(entry.identity)))
                return false
            }
            if let retry = entry.retryAt, retry <= now {
                entries[name]?.unreachable = false
                setState(name, .alive, now: now)
                actions.append(.changed(.refuted(entry.identity)))
                return false
            }
            // A vouched node is asked for as long as it is silent, but no more than its beacons would cost.
            let silence = now - (entry.heard ?? entry.since)
            let pause = silence < entry.interval * 3 ? entry.interval * 3 / 10 : entry.interval
            entries[name]?.probeAt = now + pause
            return rules.beacons
        case .left, .dead:
            remove(name)
            return false
        }
    }
}
