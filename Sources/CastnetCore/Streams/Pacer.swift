/// Spreads frames in time: a rate in bytes a second, with bursts of at most 2 ms of it.
struct Pacer: Sendable {
    /// Everything sent so far has been paid for at this instant.
    private var paidAt: Instant

    private static let burst = Duration.milliseconds(2)

    init(now: Instant) { paidAt = now }

    /// When the next frame may leave at `rate`; nil: now.
    func waitsUntil(_ now: Instant) -> Instant? { paidAt > now + Self.burst ? paidAt - Self.burst : nil }

    mutating func pay(bytes: Int, rate: Double, now: Instant) {
        paidAt = max(paidAt, now) + .nanoseconds(Int64(min(Double(bytes) / rate, 60) * 1e9))
    }
}
