/// When a stream says where it ends: 20, 50, 100, 200 and 500 ms after its last frame, and while members lack
/// frames every 500 ms beyond.
struct HeadSchedule: Sendable {
    private static let delays: [Duration] = [20, 50, 100, 200, 500].map { .milliseconds($0) }
    private static let repeated = Duration.milliseconds(500)

    private var frameAt: Instant?
    private var step = 0
    private var headAt: Instant?

    /// A numbered frame left: the schedule starts again.
    mutating func frameLeft(now: Instant) {
        frameAt = now
        step = 0
        headAt = nil
    }

    /// When the next head is due; `isOwed`: some member waited for lacks frames.
    func nextAt(isOwed: Bool) -> Instant? {
        guard let frameAt else { return nil }
        if step < Self.delays.count { return frameAt + Self.delays[step] }
        return isOwed ? headAt.map { $0 + Self.repeated } : nil
    }

    /// True when a head is due; it is counted as sent.
    mutating func take(isOwed: Bool, now: Instant) -> Bool {
        guard let at = nextAt(isOwed: isOwed), at <= now, let frameAt else { return false }
        while step < Self.delays.count, frameAt + Self.delays[step] <= now { step += 1 }
        headAt = now
        return true
    }
}
