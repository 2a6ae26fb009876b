/// When a member reports about one stream, and what it grants.
package struct Feedback: Sendable {
    /// Where the stream's sender takes reports.
    package private(set) var reportTo: DatagramAddress
    private var interval: Duration
    /// When the next report is due; nil: nothing to report.
    package private(set) var dueAt: Instant?
    /// The limit last told; 0: none yet.
    private var toldLimit: UInt64 = 0
    /// The share last told was less than half of what the member takes at best.
    package private(set) var isPinched = false
    /// When the stream was heard last.
    package private(set) var heardAt: Instant

    package init(_ header: FrameHeader, now: Instant) {
        reportTo = header.reportTo
        interval = Self.interval(header)
        heardAt = now
    }

    private static func interval(_ header: FrameHeader) -> Duration {
        .microseconds(Int64(max(10, header.intervalUnits)) * 100)
    }

    /// A frame came. Reports follow the data at T × 0.5…1.5, at once when less than half of what was granted
    /// is left.
    package mutating func heard(
        _ header: FrameHeader, next: UInt64, share: UInt64, now: Instant,
        using generator: inout SeededGenerator
    ) {
        heardAt = now
        reportTo = header.reportTo
        interval = Self.interval(header)
        if dueAt == nil { dueAt = now + generator.jitter(interval, in: 0.5...1.5) }
        if toldLimit < next + share / 2 { dueAt = now }
    }

    /// The room has changed: a sender that was told too little hears at once that there is more.
    package mutating func roomChanged(share: UInt64, best: UInt64, now: Instant) {
        if isPinched, share >= best / 2 { dueAt = now }
    }

    /// A report about the stream is being written now.
    package mutating func reported(limit: UInt64, share: UInt64, best: UInt64) {
        toldLimit = limit
        isPinched = share < best / 2
        dueAt = nil
    }

    /// When the room must be looked at again although nothing arrives.
    package func lookAgainAt(now: Instant) -> Instant? { isPinched ? now + interval : nil }
}
