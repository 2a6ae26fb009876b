/// When a member asks a stream's sender for its place, and which answer it believes.
///
/// It says how long ago it began to listen, and the way there takes time: what left meanwhile would be
/// missed. So it says a little more, and asks again with more when the answer took longer than that.
struct Joining: Sendable {
    private(set) var nextAt: Instant
    private let until: Instant
    private var askedAt: Instant?
    private var margin = Duration.milliseconds(5)

    private static let marginOnce = Duration.milliseconds(20)
    private static let pause = Duration.milliseconds(300)
    private static let patience = Duration.seconds(2)

    init(now: Instant) {
        nextAt = now
        until = now + Self.patience
    }

    func isOver(_ now: Instant) -> Bool { now >= until }

    /// The time to add to what the member says, when the sender is to be asked now; nil: it is not.
    mutating func asks(now: Instant) -> Duration? {
        guard now >= nextAt else { return nil }
        nextAt = min(now + Self.pause, until)
        askedAt = now
        return margin
    }

    /// True when an answer that comes now can be believed.
    mutating func answered(now: Instant) -> Bool {
        guard let askedAt else { return false }
        let took = now - askedAt
        if took <= margin { return true }
        // Once it may have been chance.
        margin = max(Self.marginOnce, margin < Self.marginOnce ? .zero : took)
        self.askedAt = nil
        nextAt = now
        return false
    }
}
