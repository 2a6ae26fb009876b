/// Spreads frames in time: a rate in bytes a second, with bursts of at most 2 ms of it. Who has used that
/// waits until it may send for a while again: frames that leave one by one wake everybody for each.
struct Pacer: Sendable {
    /// Everything sent so far has been paid for at this instant.
    private var paidAt: Instant
    private var resumesAt: Instant

    private static let burst = Duration.milliseconds(2)
    private static let rest = Duration.microseconds(500)

    init(now: Instant) {
        paidAt = now
        resumesAt = now
    }

    /// When the next frame may leave; nil: now.
    func waitsUntil(_ now: Instant) -> Instant? { resumesAt > now ? resumesAt : nil }

    mutating func pay(bytes: Int, rate: Double, now: Instant) {
        paidAt = max(paidAt, now) + .nanoseconds(Int64(min(Double(bytes) / rate, 60) * 1e9))
        if paidAt > now + Self.burst { resumesAt = paidAt - Self.burst + Self.rest }
    }
}
