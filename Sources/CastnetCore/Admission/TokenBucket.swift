/// A budget that fills up at a steady rate.
package struct TokenBucket: Hashable, Sendable {
    package let capacity: Int
    package let perSecond: Int
    private var tokens: Int
    private var filledAt: Instant?

    package init(capacity: Int, perSecond: Int) {
        self.capacity = capacity
        self.perSecond = perSecond
        tokens = capacity
    }

    package mutating func refill(_ now: Instant) {
        guard let filledAt else { return filledAt = now }
        // A whole bucket takes no longer than this to fill: no product below can overflow.
        let elapsed = min(max(0, (now - filledAt).nanoseconds), 10_000_000_000)
        let more = Int(elapsed) * (perSecond / 1000) / 1_000_000
        guard more > 0 else { return }
        tokens = min(capacity, tokens + more)
        self.filledAt = now
    }

    /// Takes `count` tokens, or none.
    package mutating func take(_ count: Int) -> Bool {
        guard count <= tokens else { return false }
        tokens -= count
        return true
    }
}
