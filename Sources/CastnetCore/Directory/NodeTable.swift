/// Every node the directory knows, by its name: a dense list, and an index into it by the name's digest.
///
/// Made for ten thousand nodes of which several thousand a second are looked up by digests that came along:
/// a look-up touches one word of the index and one entry. Removing moves the last entry, so positions hold
/// until then only.
struct NodeTable: Sendable {
    private(set) var entries: [DirectoryEntry] = []
    /// Open addressing, at most three quarters full: 0 is empty, else the upper bits of a name's digest above
    /// a position plus one, so that no entry but the one that is meant need be touched.
    private var index: [UInt64] = []
    private static let positions: UInt64 = 0xFF_FFFF
    /// Of each entry: it needs nothing before then, in milliseconds from `duesFrom`; 0: not looked at since
    /// it was changed.
    private var dues: [UInt32] = []
    /// Of each ``block`` of entries: none of them needs anything before then.
    private var blockDues: [UInt32] = []
    private static let block = 16
    private var duesFrom = Instant(nanoseconds: 0)
    private var duesTimes: DirectoryEntry.Times?
    /// Nobody outside knows which names share a place.
    private static let secret = UInt64.random(in: .min ... .max) | 1

    var count: Int { entries.count }

    subscript(name: String) -> DirectoryEntry? {
        get { position(of: Beacon.digest(ofName: name), name).map { entries[$0] } }
        set {
            guard let newValue else {
                remove(name)
                return
            }
            if let position = position(of: newValue.digest, name) {
                self[position] = newValue
            } else {
                append(newValue)
            }
        }
    }

    subscript(position: Int) -> DirectoryEntry {
        _read { yield entries[position] }
        _modify {
            changed(position)
            yield &entries[position]
        }
    }

    private mutating func changed(_ position: Int) {
        dues[position] = 0
        blockDues[position / Self.block] = 0
    }

    /// See ``DirectoryEntry/Life/refresh(_:interval:now:)``.
    mutating func refresh(
        _ position: Int, _ stamp: UInt64, interval: UInt32, now: Instant
    ) -> DirectoryEntry.Life.Refresh {
        let refresh = entries[position].life.refresh(stamp, interval: interval, now: now)
        if refresh == .sooner { changed(position) }
        return refresh
    }

    func position(of name: String) -> Int? { position(of: Beacon.digest(ofName: name), name) }

    func position(of digest: UInt64, _ name: String) -> Int? {
        position(of: digest) { $0.record.identity.name == name }
    }

    /// Of a name of this digest, as far as the index tells; of several any.
    func position(of digest: UInt64) -> Int? { position(of: digest) { _ in true } }

    /// See ``DirectoryEntry/Life/isJust(_:)``.
    func isJust(_ position: Int, _ stamp: UInt64) -> Bool { entries[position].life.isJust(stamp) }

    /// Puts off the question about a suspect; it is none of what was looked up when it needs something.
    mutating func putOffProbe(_ position: Int, to instant: Instant) {
        let planned = entries[position].life.probeAt
        if planned == nil { changed(position) }
        entries[position].life.probeAt = max(instant, planned ?? instant)
    }

    /// The word of the index where the search for a digest begins; 0: there is no such name.
    @inline(__always)
    func firstPlace(of digest: UInt64) -> UInt64 { index.isEmpty ? 0 : index[home(of: digest)] }

    /// The same as ``position(of:)``, for whom ``firstPlace(of:)`` has been looked up.
    @inline(__always)
    func position(of digest: UInt64, firstPlace place: UInt64) -> Int? {
        if place == 0 { return nil }
        return (place ^ digest) & ~Self.positions == 0 ? Self.position(place) : position(of: digest)
    }

    @inline(__always)
    private func position(of digest: UInt64, where isMeant: (borrowing DirectoryEntry) -> Bool) -> Int? {
        guard !index.isEmpty else { return nil }
        var place = home(of: digest)
        while index[place] != 0 {
            if (index[place] ^ digest) & ~Self.positions == 0 {
                let position = Self.position(index[place])
                if isMeant(entries[position]) { return position }
            }
            place = (place + 1) & (index.count - 1)
        }
        return nil
    }

    /// The positions of entries that need something now; `next`: brought forward to what others need later.
    ///
    /// One word of every few entries is looked at, and those entries only that may need something.
    mutating func due(_ times: DirectoryEntry.Times, now: Instant, _ next: inout Instant?) -> [Int] {
        var computed = duesTimes ?? times
        if duesTimes == nil || times.mayComeSooner(than: computed) || now - duesFrom > .seconds(86_400) {
            computed = times
            duesFrom = now
            for position in dues.indices { changed(position) }
        }
        computed.pace = max(computed.pace, times.pace)
        duesTimes = computed
        var (due, first) = ([Int](), UInt32.max)
        let limit = milliseconds(to: now)
        for block in blockDues.indices {
            let isDue = blockDues[block] <= limit
            first = min(first, isDue ? look(at: block, times, now: now, &due) : blockDues[block])
        }
        if first < .max { next = earliest(next, duesFrom + .milliseconds(Int64(first))) }
        return due
    }

    @inline(__always)
    private func next(_ position: Int, _ times: DirectoryEntry.Times) -> Instant {
        let life = entries[position].life
        return (life.isPlain ? life.next(times) : entries[position].next(times)) ?? Instant(nanoseconds: .max)
    }

    /// When the first of those needs something that are not due.
    private mutating func look(
        at block: Int, _ times: DirectoryEntry.Times, now: Instant, _ due: inout [Int]
    ) -> UInt32 {
        let (limit, start, before) = (milliseconds(to: now), block * Self.block, due.count)
        var first = UInt32.max
        for position in start..<min(start + Self.block, dues.count) {
            if dues[position] <= limit {
                let at = next(position, times)
                if at <= now {
                    due.append(position)
                    dues[position] = 0
                    continue
                }
                dues[position] = milliseconds(to: at)
            }
            first = min(first, dues[position])
        }
        blockDues[block] = due.count > before ? 0 : first
        return first
    }

    /// A suspect is meant to be asked for: that is the questions' business now. The answer: when it needs
    /// something else.
    mutating func asked(_ position: Int, _ times: DirectoryEntry.Times) -> Instant? {
        let end = entries[position].life.endsAt(times)
        changed(position)
        dues[position] = milliseconds(to: end ?? Instant(nanoseconds: .max))
        return end
    }

    /// When the first suspect is to be asked for.
    var firstProbe: Instant? {
        var first: Instant?
        for position in entries.indices where entries[position].life.state == .suspect {
            first = earliest(first, entries[position].life.probeAt)
        }
        return first
    }

    var suspects: [Int] {
        entries.indices.filter { entries[$0].life.state == .suspect }
    }

    /// Rounded down.
    private func milliseconds(to instant: Instant) -> UInt32 {
        UInt32(clamping: (instant.nanoseconds - duesFrom.nanoseconds) / 1_000_000)
    }

    private static func position(_ place: UInt64) -> Int { Int(place & positions) - 1 }

    private static func place(_ position: Int, _ digest: UInt64) -> UInt64 {
        digest & ~positions | UInt64(position + 1)
    }

    /// Where to begin looking, from the bits that the index keeps.
    private func home(of digest: UInt64) -> Int {
        Int(((digest & ~Self.positions) &* Self.secret) >> UInt64(64 - index.count.trailingZeroBitCount))
    }

    private mutating func append(_ entry: DirectoryEntry) {
        // By a quarter, not to twice the size: ten thousand entries are most of what a directory takes.
        if entries.count == entries.capacity {
            entries.reserveCapacity(max(8, entries.count * 5 / 4))
            dues.reserveCapacity(entries.capacity)
        }
        entries.append(entry)
        dues.append(0)
        if blockDues.count * Self.block < dues.count { blockDues.append(0) }
        changed(entries.count - 1)
        if entries.count * 4 > index.count * 3 {
            let old = index
            index = Array(repeating: 0, count: max(16, old.count * 2))
            for place in old where place != 0 { enter(place) }
        }
        enter(Self.place(entries.count - 1, entry.digest))
    }

    private mutating func enter(_ new: UInt64) {
        var place = home(of: new)
        while index[place] != 0 { place = (place + 1) & (index.count - 1) }
        index[place] = new
    }

    @discardableResult mutating func remove(_ name: String) -> DirectoryEntry? {
        guard let position = position(of: Beacon.digest(ofName: name), name) else { return nil }
        let last = entries.count - 1
        vacate(place(of: position))
        if position != last {
            index[place(of: last)] = Self.place(position, entries[last].digest)
            entries.swapAt(position, last)
            changed(position)
        }
        dues.removeLast()
        if (blockDues.count - 1) * Self.block >= dues.count { blockDues.removeLast() }
        return entries.removeLast()
    }

    private func place(of position: Int) -> Int {
        var place = home(of: entries[position].digest)
        while Self.position(index[place]) != position { place = (place + 1) & (index.count - 1) }
        return place
    }

    /// Moves up what had to go past the place, so that no look-up ends early.
    private mutating func vacate(_ place: Int) {
        let mask = index.count - 1
        var (hole, next) = (place, (place + 1) & mask)
        while index[next] != 0 {
            let home = home(of: index[next])
            if (next - home) & mask >= (next - hole) & mask {
                index[hole] = index[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        index[hole] = 0
    }
}
