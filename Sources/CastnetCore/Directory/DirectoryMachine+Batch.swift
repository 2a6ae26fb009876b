extension Beacon {
    /// What a beacon that only repeats comes to.
    package struct Repetition: Sendable {
        var digest: UInt64
        var stamp: UInt64
        var at: Instant
        var interval: UInt32
        var isDigest: Bool
    }

    /// Nil: it may tell more than that its sender lives.
    package func repetition(at instant: Instant) -> Repetition? {
        guard body.isRepetition else { return nil }
        var isDigest = false
        if case .digest = body { isDigest = true }
        return .init(
            digest: senderDigest, stamp: stamp, at: instant, interval: intervalMilliseconds,
            isDigest: isDigest)
    }
}

extension DirectoryMachine {
    /// Takes in what came one after the other from nodes of this cluster, where it is but a sign of life.
    /// What is more is appended to `rest`, as positions in `heard`, and is for
    /// ``received(_:from:now:)``.
    ///
    /// Of a large table each entry has to be fetched from memory. All of these are fetched at once.
    package mutating func received(
        _ heard: [Beacon.Repetition], _ scratch: inout BatchScratch, rest: inout [Int]
    ) {
        guard phase == .running, !hearing.isSilent else { return rest += heard.indices }
        entries.refresh(heard, &scratch)
        for (position, refresh) in scratch.refreshes.enumerated() {
            let one = heard[position]
            switch refresh {
            case .nothing:
                rest.append(position)
                continue
            case .later: break
            case .sooner: look(at: one.at + .milliseconds(Int64(one.interval)))
            }
            counters.add(.beaconIn)
            traffic.note(now: one.at)
            if one.isDigest { digests.note(now: one.at) }
            hearing.heardAt = one.at
        }
    }
}

/// Memory for ``DirectoryMachine/received(_:_:rest:)``, used again and again.
package struct BatchScratch: Sendable {
    fileprivate var places: [UInt64] = []
    fileprivate var positions: [Int] = []
    fileprivate var stamps: [UInt64] = []
    fileprivate var refreshes: [DirectoryEntry.Life.Refresh] = []

    package init() {}
}

extension NodeTable {
    /// Which of these tell something that is not known here.
    func news(in table: [Beacon.Told], now: Instant) -> [Int] {
        var news: [Int] = []
        lookUp(table.count, digest: { table[$0].digest }) { index, position in
            let isKnown = position.map {
                entries[$0].life.knows(table[index].stamp, at: now - table[index].age)
            }
            if !(isKnown ?? false) { news.append(index) }
        }
        return news
    }

    /// The positions of those of these names whose beacons are heard.
    func hearable(_ names: [UInt64]) -> [Int] {
        var positions: [Int] = []
        lookUp(names.count, digest: { names[$0] }) { _, position in
            guard let position else { return }
            let life = entries[position].life
            if life.isPresent, life.sources.contains(.beacon) { positions.append(position) }
        }
        return positions
    }

    /// Looks up so many digests, in order. Some words of the index are fetched at once.
    @inline(__always)
    private func lookUp(
        _ count: Int, digest: (Int) -> UInt64, _ found: (_ index: Int, _ position: Int?) -> Void
    ) {
        for start in stride(from: 0, to: count, by: 16) {
            let end = min(start + 16, count)
            var places = InlineArray<16, UInt64>(repeating: 0)
            for index in start..<end { places[index - start] = firstPlace(of: digest(index)) }
            for index in start..<end {
                found(index, position(of: digest(index), firstPlace: places[index - start]))
            }
        }
    }

    /// Refreshes what can be, and says of each whether it was. One loop for each thing to fetch: none of its
    /// turns waits for the one before.
    fileprivate mutating func refresh(_ heard: [Beacon.Repetition], _ scratch: inout BatchScratch) {
        scratch.places.removeAll(keepingCapacity: true)
        scratch.positions.removeAll(keepingCapacity: true)
        scratch.stamps.removeAll(keepingCapacity: true)
        scratch.refreshes.removeAll(keepingCapacity: true)
        for one in heard { scratch.places.append(firstPlace(of: one.digest)) }
        for (one, place) in zip(heard, scratch.places) {
            // Whom nobody knows is compared with the own entry, which no beacon refreshes.
            scratch.positions.append(position(of: one.digest, firstPlace: place) ?? 0)
        }
        for position in scratch.positions { scratch.stamps.append(entries[position].life.stamp) }
        for (index, one) in heard.enumerated() {
            scratch.refreshes.append(
                scratch.stamps[index] == one.stamp
                    ? refresh(scratch.positions[index], one.stamp, interval: one.interval, now: one.at)
                    : .nothing)
        }
    }
}
