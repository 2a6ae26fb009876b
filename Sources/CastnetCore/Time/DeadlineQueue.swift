import HeapModule

/// Ids by deadline. Ids that ended early stay in until they are due; whoever owns them ignores those.
package struct DeadlineQueue: Sendable {
    private struct Entry: Comparable {
        var at: Instant
        var id: UInt64
        static func < (left: Entry, right: Entry) -> Bool { (left.at, left.id) < (right.at, right.id) }
    }
    private var heap = Heap<Entry>()

    package init() {}

    package mutating func insert(_ id: UInt64, at deadline: Instant) {
        heap.insert(Entry(at: deadline, id: id))
    }

    package var next: Instant? { heap.min?.at }

    package var count: Int { heap.count }

    /// Forgets the ids that ended early; call it when they are the most.
    package mutating func compact(keeping isAlive: (UInt64) -> Bool) {
        heap = Heap(heap.unordered.filter { isAlive($0.id) })
    }

    /// Removes and returns every id that is due.
    package mutating func takeDue(now: Instant) -> [UInt64] {
        var due: [UInt64] = []
        while let entry = heap.min, entry.at <= now { due.append(heap.removeMin().id) }
        return due
    }
}
