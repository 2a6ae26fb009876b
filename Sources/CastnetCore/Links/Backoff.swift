/// The wait before the next dial to a peer: decorrelated jitter between 50 ms and 5 s.
package struct Backoff: Sendable {
    private static let shortest = Duration.milliseconds(50)
    private static let longest = Duration.seconds(5)
    private var last = Backoff.shortest
    /// Dials to the peer before this are refused.
    package private(set) var until: Instant?

    package init() {}

    /// A dial failed.
    package mutating func failed(now: Instant, using generator: inout SeededGenerator) {
        let high = min(Self.longest.nanoseconds, last.nanoseconds * 3)
        last = .nanoseconds(Int64.random(in: Self.shortest.nanoseconds...high, using: &generator))
        until = now + last
    }

    /// A link to the peer opened.
    package mutating func succeeded() { self = Backoff() }
}
