/// With whom a table is compared.
package enum ExchangePartner: Hashable, Sendable {
    /// An address of the configuration; who is there says so.
    case seed(HostPort)
    case node(NodeIdentity)
}

/// When this node compares its table with another's over a link.
struct TableExchange: Sendable {
    var at: Instant?
    /// Until when it is done often: there is news, or silence.
    var quickUntil = Instant(nanoseconds: .min)
    /// Partners that are still to be told the newest news without a wait.
    var rumours = 0
    /// When another node's table came last.
    var heardAt: Instant?
    var isSilent = false
}

/// Tables are compared over links where `directory.seeds` names addresses: for networks without multicast,
/// and for the time in which it fails.
///
/// Each node takes a random partner time and again, says what it knows without the records, hears the same,
/// and both ask for the records they lack. News is passed on at once, so that it is everywhere after a few
/// times the base-two logarithm of the group; ages are passed on, so that lives end everywhere.
extension DirectoryMachine {
    /// Datagrams that a node says of its table at a time: of a larger one a part, from a random place on.
    static let exchangePacketsMax = 64
    /// The record of more bytes than a datagram holds; a larger one is for beacons.
    package static let exchangedRecordMax = 32 << 10

    /// News is told to so many partners, one after the other: with one, about every fifth node would learn of
    /// it only when an exchange is due anyway.
    private static let rumourPartners = 3
    private static let rumourPause = Duration.milliseconds(20)

    var exchanges: Bool { !rules.seeds.isEmpty }

    /// Between two exchanges: as rare as beacons, unless these do not say who lives.
    private var exchangePause: Duration {
        isQuick ? interval / 8 : interval * 2
    }

    private var isQuick: Bool { !rules.beacons || echo.isSilent || suspectCount > 0 }

    /// Does what is due.
    mutating func exchange(now: Instant, _ actions: inout [DirectoryAction]) {
        guard exchanges, phase == .running, let due = exchange.at, due <= now else { return }
        if isQuick { exchange.quickUntil = max(exchange.quickUntil, now + interval * 5) }
        exchange.rumours = max(0, exchange.rumours - 1)
        let pause = now < exchange.quickUntil ? min(exchangePause, interval / 8) : exchangePause
        exchange.at =
            now + (exchange.rumours > 0 ? jitter(Self.rumourPause) : generator.jitter(pause, in: 0.8...1))
        noticeSilence(now: now, &actions)
        guard let partner = partner() else { return }
        counters.add(.directoryExchanges)
        actions.append(.exchange(partner, [beacon(.request(.table))] + summary(now: now)))
    }

    /// Soon: something is new.
    mutating func exchangeSoon(now: Instant) {
        guard exchanges else { return }
        exchange.quickUntil = max(exchange.quickUntil, now + .seconds(1))
        exchange.rumours = Self.rumourPartners
        exchange.at = earliest(exchange.at, now + jitter(Self.rumourPause))
    }

    /// One of the seeds while nobody else is known, and now and then, so that parts of a group find each
    /// other.
    private mutating func partner() -> ExchangePartner? {
        let count = UInt64(entries.count)
        if generator.next() % 8 != 0 {
            for _ in 0..<8 {
                let entry = entries[Int(generator.next() % count)]
                guard entry.isPresent, !entry.sources.contains(.own), !entry.record.addresses.isEmpty else {
                    continue
                }
                return .node(entry.identity)
            }
        }
        let others = rules.seeds.filter { !own.addresses.contains($0) }
        return others.isEmpty ? nil : .seed(others[Int(generator.next() % UInt64(others.count))])
    }

    /// Says once that no partner answers, and once that one does again.
    private mutating func noticeSilence(now: Instant, _ actions: inout [DirectoryAction]) {
        let since = exchange.heardAt ?? startedAt
        guard !exchange.isSilent, now - since >= max(.seconds(5), exchangePause * 3) else { return }
        exchange.isSilent = true
        actions.append(.changed(.seedsSilent(age: exchange.heardAt.map { now - $0 })))
    }

    /// What this node knows, without the records but its own.
    private mutating func summary(now: Instant) -> [Beacon] {
        let start = Int(generator.next() % UInt64(entries.count))
        var table: [Beacon.Told] = []
        for offset in 0..<entries.count {
            let entry = entries[(start + offset) % entries.count]
            if let told = told(of: entry, isWhole: entry.sources.contains(.own), now: now) {
                table.append(told)
            }
        }
        return packed(table, recordMax: BeaconFormat.datagramSizeMax / 2, packetsMax: Self.exchangePacketsMax)
    }

    /// Beacons of a datagram's size, the last record of each may be larger.
    private mutating func packed(_ table: some Sequence<Beacon.Told>, recordMax: Int, packetsMax: Int)
        -> [Beacon]
    {
        var beacons: [Beacon] = []
        var (packet, size): ([Beacon.Told], Int) = ([], 0)
        for var told in table {
            let bytes = told.fit(recordMax: recordMax)
            if size + bytes > BeaconFormat.datagramSizeMax - 256, !packet.isEmpty {
                beacons.append(beacon(.table(packet)))
                if beacons.count == packetsMax {
                    counters.add(.directoryExchangesCut)
                    return beacons
                }
                (packet, size) = ([], 0)
            }
            packet.append(told)
            size += bytes
        }
        if !packet.isEmpty { beacons.append(beacon(.table(packet))) }
        return beacons
    }

    private func told(of entry: DirectoryEntry, isWhole: Bool, now: Instant) -> Beacon.Told? {
        if entry.state == .left, let left = entry.leftIncarnation, !entry.isWithdrawn {
            let identity = NodeIdentity(name: entry.identity.name, incarnation: left)
            return .left(identity, age: now - entry.since)
        }
        guard var told = told(of: entry, now: now) else { return nil }
        told.isWhole = isWhole
        return told
    }

    /// A few hear the goodbye over links and pass it on.
    mutating func tellOfLeaving() -> [DirectoryAction] {
        guard exchanges else { return [] }
        let word = beacon(.table([.left(own.identity, age: .zero)]))
        return Set((0..<3).compactMap { _ in partner() }).map { .exchange($0, [word]) }
    }

    // MARK: The partner's words

    /// A beacon that `peer` sent over a link.
    package mutating func exchanged(
        _ word: Beacon, with peer: NodeIdentity, now: Instant
    ) -> [DirectoryAction] {
        guard phase == .running, word.sender == peer, peer.name != own.identity.name else { return [] }
        guard word.cluster == cluster else {
            counters.add(.beaconRejectedCluster)
            return []
        }
        counters.add(.beaconIn)
        var actions: [DirectoryAction] = []
        switch word.body {
        case .table(let table): compared(table, with: peer, now: now, &actions)
        case .request(.table): actions.append(.tell(peer, summary(now: now)))
        case .request(.records(let names)):
            let table = entries.entries.filter { names.contains($0.digest) }
                .compactMap { told(of: $0, isWhole: true, now: now) }
            let words = packed(table, recordMax: Self.exchangedRecordMax, packetsMax: 256)
            if !words.isEmpty { actions.append(.tell(peer, words)) }
        case .digest, .record, .part, .request, .goodbye: counters.add(.beaconRejectedForm)
        }
        return actions
    }

    private mutating func compared(
        _ table: [Beacon.Told], with peer: NodeIdentity, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        exchange.heardAt = now
        if exchange.isSilent {
            exchange.isSilent = false
            actions.append(.changed(.seedsBack))
        }
        let before = actions.count
        var missing: [UInt64] = []
        for position in entries.news(in: table, now: now)
        where !self.told(table[position], source: .seeds, now: now, &actions) {
            missing.append(table[position].digest)
        }
        // Rumours are passed on while they are news.
        if actions.count > before { exchangeSoon(now: now) }
        for start in stride(from: 0, to: missing.count, by: BeaconFormat.requestEntriesMax) {
            let some = missing[start..<min(missing.count, start + BeaconFormat.requestEntriesMax)]
            actions.append(.tell(peer, [beacon(.request(.records(Array(some))))]))
        }
    }
}
