/// The wait before the next dial to a peer: decorrelated jitter between 50 ms and 5 s after a failure, and
/// what the peer itself has asked for.
package struct Backoff: Sendable {
    private static let shortest = Duration.milliseconds(50)
    private static let longest = Duration.seconds(5)
    private var last = Backoff.shortest
    private var failedUntil: Instant?
    private var pacedUntil: Instant?
    /// `last` as it was when the newest link opened.
    private var lastAtOpening = Backoff.shortest
    /// Dials to the peer before this are refused.
    package var until: Instant? {
        guard let failedUntil, let pacedUntil else { return failedUntil ?? pacedUntil }
        return max(failedUntil, pacedUntil)
    }

    package init() {}

    /// A dial failed, or a link broke. Many links of one peer that break together are one failure. Where the
    /// peer refused a link (`isRefused`) the waits go on growing, although its hello came first.
    package mutating func failed(
        now: Instant, isRefused: Bool = false, using generator: inout SeededGenerator
    ) {
        if let failedUntil, failedUntil > now { return }
        if isRefused { last = max(last, lastAtOpening) }
        let high = min(Self.longest.nanoseconds, last.nanoseconds * 3)
        last = .nanoseconds(Int64.random(in: Self.shortest.nanoseconds...high, using: &generator))
        failedUntil = now + last
    }

    /// The peer is there, and has asked to be left alone for so long.
    package mutating func paced(for time: Duration, now: Instant) {
        let until = now + min(max(time, .zero), Self.longest)
        pacedUntil = pacedUntil.map { max($0, until) } ?? until
    }

    /// A link to the peer opened. What it asked for on another stays as it is.
    package mutating func opened(now: Instant) {
        lastAtOpening = last
        last = Self.shortest
        failedUntil = nil
        if let pacedUntil, pacedUntil <= now { self.pacedUntil = nil }
    }

    /// The peer is gone: nothing is remembered against it.
    package mutating func forget() { self = Backoff() }
}
