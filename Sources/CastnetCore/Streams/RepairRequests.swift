/// When a member asks a sender for what PGM left out of its stream.
///
/// After a hole shows it waits a random while, so that many members with the same hole do not ask at once and
/// holes that close meanwhile cost nothing. What was asked for is not asked again while answers come.
struct RepairRequests: Sendable {
    let isRepaired: Bool
    /// When to ask next; nil: nothing to ask.
    private(set) var askAt: Instant?
    /// What is below was asked for; an answer is due until `answerBy`.
    private var askedEnd: UInt64 = 0
    private var answerBy: Instant?
    /// The first frame that was missing when `answerBy` was set: answers to later requests prove nothing.
    private var waitsFor: UInt64 = 0
    private var failures = 0
    /// Since when something is missing without any progress.
    private var stuckSince: Instant?

    /// Ranges in one request.
    static let rangesMax = 64
    private static let spreadMin = Duration.milliseconds(20)
    private static let answerTime = Duration.seconds(1)
    private static let backoffMax = Duration.seconds(4)

    init(isRepaired: Bool) { self.isRepaired = isRepaired }

    var nextDeadline: Instant? { earliest(askAt, answerBy) }

    /// A hole has shown; `interval`: the sender's feedback interval, half a millisecond per member.
    mutating func noticed(now: Instant, interval: Duration, using generator: inout SeededGenerator) {
        stuckSince = stuckSince ?? now
        guard askAt == nil else { return }
        askAt = now + generator.jitter(max(Self.spreadMin, interval), in: 0...1)
    }

    /// A frame has come; what is missing still.
    mutating func progressed(_ missing: [ClosedRange<UInt64>], byRepair: Bool, now: Instant) {
        guard stuckSince != nil else { return }
        guard let first = missing.first else {
            self = RepairRequests(isRepaired: isRepaired)
            return
        }
        if byRepair {
            stuckSince = now
            failures = 0
            if answerBy != nil, first.lowerBound > waitsFor { awaitAnswer(for: first.lowerBound, now: now) }
        }
        if answerBy != nil, first.lowerBound >= askedEnd {
            answerBy = nil
            askAt = askAt ?? now
        }
    }

    /// True: nothing has come for `patience`, whatever was asked.
    func isHopeless(patience: Duration, now: Instant) -> Bool {
        stuckSince.map { now >= $0 + patience } ?? false
    }

    /// What to ask for now: at most ``rangesMax`` ranges with `framesMax` frames. Empty: nothing.
    mutating func due(_ missing: [ClosedRange<UInt64>], framesMax: Int, now: Instant) -> [ClosedRange<UInt64>]
    {
        if let at = answerBy, at <= now { failed(now: now, wait: .zero) }
        guard let at = askAt, at <= now else { return [] }
        askAt = nil
        var ranges: [ClosedRange<UInt64>] = []
        var left = UInt64(max(1, framesMax))
        for hole in missing where hole.upperBound >= askedEnd {
            // More than fits one request follows when these are here.
            if left == 0 || ranges.count == Self.rangesMax { break }
            let first = max(hole.lowerBound, askedEnd)
            let range = first...min(hole.upperBound, first + left - 1)
            left -= UInt64(range.count)
            ranges.append(range)
        }
        guard let last = ranges.last else { return [] }
        askedEnd = last.upperBound + 1
        if answerBy == nil { awaitAnswer(for: missing[0].lowerBound, now: now) }
        return ranges
    }

    private mutating func awaitAnswer(for first: UInt64, now: Instant) {
        waitsFor = first
        answerBy = now + Self.answerTime
    }

    /// What was to answer does not come here: everything is asked for at once.
    mutating func turned(now: Instant) {
        guard stuckSince != nil else { return }
        answerBy = nil
        askedEnd = 0
        askAt = now
    }

    /// The request did not get through, or its answer stopped coming: everything is asked for again, later
    /// each time.
    mutating func failed(now: Instant, wait: Duration) {
        guard stuckSince != nil else { return }
        if PlantedBug.asksOnce.isPlanted { return answerBy = nil }
        answerBy = nil
        askedEnd = 0
        failures = min(failures + 1, 16)
        let backoff = min(Self.backoffMax, .milliseconds(50) * (1 << min(failures, 8)))
        askAt = now + max(wait, failures > 1 ? backoff : .zero)
    }
}
