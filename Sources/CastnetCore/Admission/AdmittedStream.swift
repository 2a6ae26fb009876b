/// Streams by identifier; the one that was used last is found without hashing, since packets come in bursts.
struct StreamTable {
    private var slots: [UInt64: Int] = [:]
    private var entries: [(tsi: UInt64, stream: AdmittedStream)] = []
    private var last = 0

    var count: Int { entries.count }
    var all: [(tsi: UInt64, stream: AdmittedStream)] { entries }

    subscript(tsi: UInt64) -> AdmittedStream? {
        mutating get {
            if last < entries.count, entries[last].tsi == tsi { return entries[last].stream }
            guard let slot = slots[tsi] else { return nil }
            last = slot
            return entries[slot].stream
        }
        set {
            if last >= entries.count || entries[last].tsi != tsi { last = slots[tsi] ?? entries.count }
            switch (newValue, last < entries.count) {
            case (let stream?, true): entries[last].stream = stream
            case (let stream?, false):
                slots[tsi] = last
                entries.append((tsi, stream))
            case (nil, true): remove(last)
            case (nil, false): break
            }
        }
    }

    private mutating func remove(_ slot: Int) {
        slots[entries[slot].tsi] = nil
        entries.swapAt(slot, entries.count - 1)
        entries.removeLast()
        if slot < entries.count { slots[entries[slot].tsi] = slot }
    }
}

/// What is known of one stream of the group.
struct AdmittedStream {
    /// After an outage libpgm is moved on step by step.
    struct Resync {
        /// What the stream goes on with.
        var sequence: UInt32
        var since: Instant
        /// libpgm knows that all it waits for is lost.
        var isEmptied = false
    }

    let source: UInt32
    /// The port the stream's packets really come from: where its NAKs go.
    var port: UInt16
    /// The highest number libpgm has been shown.
    var lead: UInt32
    var trail: UInt32
    /// The last SPM number libpgm has seen: a lower one is ignored by it.
    var spmSequence: UInt32 = 0
    /// When libpgm last saw an SPM of the stream: it forgets those without one.
    var spmAt: Instant
    var heardAt: Instant
    /// Numbers past the window that were seen in a row, near each other.
    var far: (count: Int, sequence: UInt32) = (0, 0)
    var resync: Resync?
    /// libpgm has delivered, or can deliver at once, all that it has been shown.
    var isWhole = false
}
