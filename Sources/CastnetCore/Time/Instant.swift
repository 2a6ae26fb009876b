/// A point on the monotonic clock, in nanoseconds since an arbitrary start.
///
/// Machines never read a clock: a driver reads it once per wake-up and passes the value down as `now:`.
public struct Instant: Hashable, Comparable, Sendable {
    /// Nanoseconds since the clock's arbitrary start.
    public var nanoseconds: Int64

    /// Makes an instant from nanoseconds since the clock's arbitrary start.
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    /// Orders by time.
    public static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }

    /// The instant `duration` later; saturates at the ends of time instead of trapping.
    public static func + (instant: Instant, duration: Duration) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(duration.nanoseconds)
        return Instant(nanoseconds: overflow ? (duration.nanoseconds < 0 ? .min : .max) : sum)
    }

    /// The instant `duration` earlier; saturates at the ends of time instead of trapping.
    public static func - (instant: Instant, duration: Duration) -> Instant {
        let (difference, overflow) = instant.nanoseconds.subtractingReportingOverflow(duration.nanoseconds)
        return Instant(nanoseconds: overflow ? (duration.nanoseconds < 0 ? .max : .min) : difference)
    }

    /// The time from `right` to `left`; saturates at the ends of time instead of trapping.
    public static func - (left: Instant, right: Instant) -> Duration {
        let (difference, overflow) = left.nanoseconds.subtractingReportingOverflow(right.nanoseconds)
        return Duration(nanoseconds: overflow ? (left < right ? .min : .max) : difference)
    }
}

extension Duration {
    /// The whole duration in nanoseconds, saturating beyond ±292 years.
    public var nanoseconds: Int64 {
        // Under nine seconds a division of 64 bits does, which is what most timers on hot paths are.
        let attoseconds = attoseconds
        if let small = Int64(exactly: attoseconds) { return small / 1_000_000_000 }
        // One division of 128 by 64 bits, which takes the processor no longer.
        let magnitude = attoseconds.magnitude
        let high = UInt64(truncatingIfNeeded: magnitude >> 64)
        guard high < 500_000_000 else { return attoseconds < 0 ? .min : .max }
        let low = UInt64(truncatingIfNeeded: magnitude)
        let quotient = Int64((1_000_000_000 as UInt64).dividingFullWidth((high, low)).quotient)
        return attoseconds < 0 ? -quotient : quotient
    }

    /// The same as `.nanoseconds(_:)`, which takes any integer and is slow for it.
    package init(nanoseconds: Int64) { self.init(attoseconds: Int128(nanoseconds) * 1_000_000_000) }

    /// The whole duration in seconds.
    public var seconds: Double { Double(nanoseconds) / 1e9 }
}

/// The earlier of two optional deadlines.
package func earliest(_ left: Instant?, _ right: Instant?) -> Instant? {
    switch (left, right) {
    case (let left?, let right?): min(left, right)
    case (let left?, nil): left
    case (nil, let right): right
    }
}
