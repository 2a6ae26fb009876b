/// When a receiver may sleep on although packets have come: while they come densely, a wake-up for each few
/// of them costs more than they do. Never while they are sparse.
package struct ReceiveRest: Hashable, Sendable {
    /// How long a rest is.
    package static let pause = Duration.microseconds(500)
    /// A turn that took this many was worth its wake-up.
    private static let batchWorth = 256
    /// Packets in a stretch of time that make traffic dense: 16,000 a second.
    private static let denseCount = 64
    private static let stretch = Duration.milliseconds(4)

    private var stretchFrom: Instant
    private var count = 0
    private var isDense = false
    /// Nothing is received before this; nil: no rest.
    package private(set) var until: Instant?

    package init(now: Instant) { stretchFrom = now }

    /// A turn took `packets`.
    package mutating func took(_ packets: Int, now: Instant) {
        let elapsed = now - stretchFrom
        if elapsed >= Self.stretch {
            // A long stretch was mostly silence.
            isDense = count >= Self.denseCount && elapsed < Self.stretch * 2
            (stretchFrom, count) = (now, 0)
        }
        count += packets
        until = isDense && packets > 0 && packets < Self.batchWorth ? now + Self.pause : nil
    }
}
