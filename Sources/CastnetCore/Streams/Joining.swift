/// When a member asks a stream's sender for its place, and which answer it believes.
///
/// It says how long ago it began to listen, and the way there takes time: what left meanwhile would be
/// missed. So it says a little more, and asks again with more when the answer took longer than that.
struct Joining: Sendable {
    private(set) var nextAt: Instant
    private let until: Instant
    /// The question whose answer may be believed: what was said in it, and when.
    private var asked: (milliseconds: UInt32, at: Instant)?
    private var margin = Duration.milliseconds(5)

    private static let marginOnce = Duration.milliseconds(20)
    private static let pause = Duration.milliseconds(300)
    private static let patience = Duration.seconds(2)

    init(now: Instant) {
        nextAt = now
        until = now + Self.patience
    }

    func isOver(_ now: Instant) -> Bool { now >= until }

    /// How long ago a member that listens since `since` says it began, when the sender is to be asked now;
    /// nil: it is not.
    mutating func asks(since: Instant, now: Instant) -> UInt32? {
        guard now >= nextAt else { return nil }
        nextAt = min(now + Self.pause, until)
        let milliseconds = UInt32(clamping: (now - since + margin).nanoseconds / 1_000_000)
        asked = (milliseconds, now)
        return milliseconds
    }

    /// True when an answer that comes now can be believed.
    mutating func answered(_ milliseconds: UInt32, now: Instant) -> Bool {
        guard let asked, asked.milliseconds == milliseconds else { return false }
        let took = now - asked.at
        if took <= margin { return true }
        // Once it may have been chance.
        margin = max(Self.marginOnce, margin < Self.marginOnce ? .zero : took)
        self.asked = nil
        nextAt = now
        return false
    }
}
