package import CastnetCore

/// A clock that moves only when told to.
package struct VirtualClock: Sendable {
    package private(set) var now: Instant

    package init(now: Instant = Instant(nanoseconds: 1_000_000_000)) { self.now = now }

    /// Moves on to `instant`; time never goes back.
    package mutating func advance(to instant: Instant) { now = max(now, instant) }
    package mutating func advance(by duration: Duration) { advance(to: now + duration) }
}

/// Things that will happen, earliest first; of two at the same time the one scheduled first.
package struct Agenda<Event> {
    private struct Entry {
        var at: Instant
        var serial: UInt64
        var event: Event

        func isBefore(_ other: Entry) -> Bool { at == other.at ? serial < other.serial : at < other.at }
    }

    private var heap: [Entry] = []
    private var serial: UInt64 = 0

    package init() {}

    package var isEmpty: Bool { heap.isEmpty }
    package var nextAt: Instant? { heap.first?.at }

    package mutating func add(_ event: Event, at: Instant) {
        serial += 1
        heap.append(Entry(at: at, serial: serial, event: event))
        var child = heap.count - 1
        while child > 0, heap[child].isBefore(heap[(child - 1) / 2]) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    package mutating func popFirst() -> (at: Instant, event: Event)? {
        guard let first = heap.first else { return nil }
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && heap[child].isBefore(heap[least]) { least = child }
            if least == parent { break }
            heap.swapAt(parent, least)
            parent = least
        }
        return (first.at, first.event)
    }
}
