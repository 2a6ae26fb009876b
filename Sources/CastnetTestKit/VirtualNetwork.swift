package import CastnetCore
package import NIOCore

/// Hosts, and what happens between them: datagrams to one host or to a group, and byte streams; with seeded
/// loss, duplication, reordering, delay, cuts and pauses. Values only: the same seed gives the same run.
///
/// A driver sends, then takes arrivals in the order of time with ``popArrival(until:)``.
package struct VirtualNetwork {
    package typealias Host = Int

    /// What happens to datagrams on their way.
    package struct Faults: Sendable {
        /// Shares of datagrams, 0…1.
        package var drop = 0.0
        package var duplicate = 0.0
        package var reorder = 0.0
        package var delay: ClosedRange<Duration> = .microseconds(50) ... .microseconds(150)
        package init() {}
    }

    package enum Arrival: Sendable {
        case datagram(ByteBuffer, from: Host, group: Int?)
        /// A frame of a sender's PGM stream: in order, usually there.
        case frame(ByteBuffer, from: Host)
        case opened(connection: Int, from: Host)
        case bytes(ByteBuffer, connection: Int)
        case closed(connection: Int)
    }

    private struct Connection {
        var ends: (Host, Host)
        var isOpen = true
        /// Bytes never overtake one another, per direction.
        var lastAt: [Instant]
        /// Bytes wait until then: the way was cut.
        var stalledUntil: [Instant]
    }

    package var faults = Faults()
    /// Faults of PGM streams: `drop` is what PGM gave up on.
    package var frameFaults = Faults()
    private var generator: SeededGenerator
    private var agenda = Agenda<(to: Host, arrival: Arrival)>()
    private var groups: [Int: Set<Host>] = [:]
    private var cuts: Set<[Host]> = []
    private var pausedUntil: [Host: Instant] = [:]
    private var lastFrameAt: [[Host]: Instant] = [:]
    private var connections: [Connection] = []
    /// Datagrams and frames that were dropped.
    package private(set) var dropped = 0

    package init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

    package var nextAt: Instant? { agenda.nextAt }

    // MARK: Topology

    package mutating func join(_ group: Int, _ host: Host) { groups[group, default: []].insert(host) }
    package mutating func leave(_ group: Int, _ host: Host) { groups[group]?.remove(host) }
    /// Nothing passes from one host to the other, this way only.
    package mutating func cut(from: Host, to: Host) { cuts.insert([from, to]) }
    package mutating func heal(from: Host, to: Host) { cuts.remove([from, to]) }
    package mutating func healAll() { cuts = [] }
    /// What arrives at `host` waits until then, as in a stopped process.
    package mutating func pause(_ host: Host, until: Instant) { pausedUntil[host] = until }

    // MARK: Datagrams

    package mutating func send(_ datagram: ByteBuffer, from: Host, to: Host, now: Instant) {
        pass(.datagram(datagram, from: from, group: nil), from: from, to: to, now: now)
    }

    /// To every host of the group but the sender.
    package mutating func multicast(_ datagram: ByteBuffer, from: Host, group: Int, now: Instant) {
        for host in (groups[group] ?? []).sorted() where host != from {
            pass(.datagram(datagram, from: from, group: group), from: from, to: host, now: now)
        }
    }

    private mutating func pass(_ arrival: Arrival, from: Host, to: Host, now: Instant) {
        guard !cuts.contains([from, to]), !chance(faults.drop) else { return dropped += 1 }
        let copies = chance(faults.duplicate) ? 2 : 1
        for _ in 0..<copies {
            var delay = delay(faults.delay)
            if chance(faults.reorder) { delay += self.delay(faults.delay) * 3 }
            agenda.add((to, arrival), at: now + delay)
        }
    }

    /// A frame of `from`'s PGM stream to every other host of the group, in order for each; tells who will
    /// never get it.
    package mutating func frame(
        _ frame: ByteBuffer, from: Host, group: Int, now: Instant
    ) -> [Host] {
        var missing: [Host] = []
        for host in (groups[group] ?? []).sorted() where host != from {
            guard !cuts.contains([from, host]), !chance(frameFaults.drop) else {
                missing.append(host)
                dropped += 1
                continue
            }
            let at = max(now + delay(frameFaults.delay), lastFrameAt[[from, host]] ?? now)
            lastFrameAt[[from, host]] = at
            for _ in 0..<(chance(frameFaults.duplicate) ? 2 : 1) {
                agenda.add((host, .frame(frame, from: from)), at: at)
            }
        }
        return missing
    }

    // MARK: Byte streams

    /// Opens a connection; the other side hears `.opened`.
    package mutating func connect(from: Host, to: Host, now: Instant) -> Int {
        connections.append(Connection(ends: (from, to), lastAt: [now, now], stalledUntil: [now, now]))
        let id = connections.count - 1
        deliver(.opened(connection: id, from: from), on: id, from: from, now: now)
        return id
    }

    /// Bytes arrive complete and in order, cut anywhere; while the way is cut they wait.
    package mutating func write(_ bytes: ByteBuffer, on connection: Int, from: Host, now: Instant) {
        var rest = bytes
        while rest.readableBytes > 0 {
            let length = Int.random(in: 1...rest.readableBytes, using: &generator)
            guard let part = rest.readSlice(length: length) else { return }
            deliver(.bytes(part, connection: connection), on: connection, from: from, now: now)
        }
    }

    package mutating func close(_ connection: Int, from: Host, now: Instant) {
        deliver(.closed(connection: connection), on: connection, from: from, now: now)
        connections[connection].isOpen = false
    }

    private mutating func deliver(_ arrival: Arrival, on id: Int, from: Host, now: Instant) {
        guard connections.indices.contains(id), connections[id].isOpen else { return }
        let ends = connections[id].ends
        let direction = from == ends.0 ? 0 : 1
        let at = max(now + delay(faults.delay), connections[id].lastAt[direction])
        connections[id].lastAt[direction] = at
        agenda.add((direction == 0 ? ends.1 : ends.0, arrival), at: at)
    }

    // MARK: Arrivals

    /// The next arrival not later than `instant`.
    package mutating func popArrival(until instant: Instant) -> (at: Instant, to: Host, Arrival)? {
        while let at = agenda.nextAt, at <= instant, let (at, event) = agenda.popFirst() {
            if let until = pausedUntil[event.to], at < until {
                agenda.add(event, at: until)
                continue
            }
            if case .bytes(_, let id) = event.arrival, let until = stall(id, to: event.to, at) {
                agenda.add(event, at: until)
                continue
            }
            return (at, event.to, event.arrival)
        }
        return nil
    }

    /// Until when bytes to `host` must wait: while the way is cut, and behind others that wait.
    private mutating func stall(_ id: Int, to host: Host, _ now: Instant) -> Instant? {
        let ends = connections[id].ends
        let direction = host == ends.1 ? 0 : 1
        if now < connections[id].stalledUntil[direction] { return connections[id].stalledUntil[direction] }
        guard cuts.contains(direction == 0 ? [ends.0, ends.1] : [ends.1, ends.0]) else { return nil }
        connections[id].stalledUntil[direction] = now + .milliseconds(50)
        return connections[id].stalledUntil[direction]
    }

    private mutating func chance(_ share: Double) -> Bool {
        share > 0 && Double.random(in: 0..<1, using: &generator) < share
    }

    private mutating func delay(_ range: ClosedRange<Duration>) -> Duration {
        .nanoseconds(
            Int64.random(in: range.lowerBound.nanoseconds...range.upperBound.nanoseconds, using: &generator))
    }
}
