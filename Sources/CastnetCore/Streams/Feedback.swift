/// When a member reports about one stream, and what it told last.
struct Feedback: Sendable {
    /// Where the stream's sender takes reports; nil: it named no usable address.
    private(set) var reportTo: DatagramAddress?
    /// The feedback interval T that the sender announced.
    private(set) var interval: Duration = .milliseconds(1)
    /// When the next report is due; nil: nothing to say.
    var dueAt: Instant?
    /// The limit last told.
    private(set) var toldLimit: UInt64 = 0
    /// The window last told.
    private(set) var toldWindow: UInt64 = 0
    private(set) var reportedAt: Instant?
    /// True: the sender was told less than half of what the member takes at best.
    private(set) var isPinched = false

    /// A sender that was told little hears at least this often that it is not forgotten.
    static let reminder = Duration.milliseconds(100)
    private static let briefInterval = Duration.milliseconds(1)

    /// What a frame's header says about reports.
    mutating func heard(_ header: FrameHeader) {
        let address = header.reportAddress
        let isUnicast = address.port != 0 && address.address >> 24 != 0 && address.address >> 28 < 14
        reportTo = isUnicast ? address : nil
        interval = .microseconds(100 * Int64(max(10, header.feedbackInterval)))
    }

    /// Data came: a report follows at T × 0.5…1.5; the first of a stream sooner.
    mutating func dataArrived(now: Instant, using generator: inout SeededGenerator) {
        guard dueAt == nil else { return }
        if reportedAt == nil {
            dueAt = spaced(now, using: &generator)
        } else {
            dueAt = spaced(now + generator.jitter(interval, in: 0.5...1.5), using: &generator)
        }
    }

    /// The sender asks, or has less than half of what it was told left: in small groups a report is due now,
    /// in large ones not sooner than one interval after the last.
    mutating func hurry(now: Instant, using generator: inout SeededGenerator) {
        // Of several chances in a large group the first is taken, or the earliest would be each time.
        if dueAt != nil, interval > Self.briefInterval { return }
        let at = spaced(now, using: &generator)
        dueAt = min(dueAt ?? at, at)
    }

    /// In a large group a member says nothing for one interval after each report, so that no more reports
    /// come in a second than the sender meant.
    private func spaced(_ at: Instant, using generator: inout SeededGenerator) -> Instant {
        guard interval > Self.briefInterval else { return at }
        guard let reportedAt else { return max(at, at + generator.jitter(interval, in: 0...1)) }
        return max(at, reportedAt + generator.jitter(interval, in: 1...1.5))
    }

    /// How many frames beyond `next` the sender was told it may send.
    func outstanding(next: UInt64) -> UInt64 { toldLimit > next ? toldLimit - next : 0 }

    /// The limit to tell: what was told is never taken back, frames may be under way.
    func limit(next: UInt64, window: UInt64) -> UInt64 { max(toldLimit, next + window) }

    mutating func reported(next: UInt64, limit: UInt64, best: UInt64, now: Instant) {
        toldLimit = limit
        toldWindow = limit - next
        isPinched = toldWindow < best / 2
        reportedAt = now
        dueAt = nil
    }
}
