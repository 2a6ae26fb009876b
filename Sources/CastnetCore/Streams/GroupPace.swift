/// How fast one member takes frames: the largest rate of the last half to one second in which the sender was
/// busy. A sender with little to say learns nothing from how little was taken.
struct DeliveryRate: Sendable {
    private var sampleAt: Instant
    private var sampleReceived: UInt64
    private var wasBusy = false
    private var current: Double?
    private var previous: Double?
    private var turnAt: Instant

    private static let span = Duration.milliseconds(500)
    private static let sampleMin = Duration.milliseconds(1)

    init(received: UInt64, now: Instant) {
        sampleAt = now
        sampleReceived = received
        turnAt = now + Self.span
    }

    mutating func sample(received: UInt64, bytesPerFrame: Double, isBusy: Bool, now: Instant) {
        defer { wasBusy = isBusy }
        let elapsed = now - sampleAt
        guard elapsed >= Self.sampleMin else { return }
        let frames = received > sampleReceived ? received - sampleReceived : 0
        let rate = Double(frames) * bytesPerFrame / elapsed.seconds
        (sampleAt, sampleReceived) = (now, received)
        guard isBusy || wasBusy else { return }
        current = max(current ?? 0, rate)
    }

    /// The largest rate seen lately; nil: none.
    mutating func maximum(isBusy: Bool, now: Instant) -> Double? {
        if now >= turnAt {
            turnAt = now + Self.span
            if isBusy, current != nil { (previous, current) = (current, nil) }
        }
        guard let current else { return previous }
        return max(current, previous ?? 0)
    }
}

/// `rate: auto`: follows the group. Faster than its members have shown to be while they speed up, a little
/// faster when they do not, slower after losses; never below a floor.
struct GroupPace: Sendable {
    /// Bytes a second that no group is slowed below.
    static let floor = 1_000_000.0
    private static let round = Duration.milliseconds(5)
    /// A look at a thousand members costs a tenth of a millisecond, and they report the more seldom.
    private static let roundPerMember = Duration.microseconds(5)
    private static let calm = Duration.milliseconds(100)

    /// Bytes a second; nil: nothing is known, the members' budgets alone hold.
    private(set) var rate: Double?
    private var best = 0.0
    private var flatRounds = 0
    private var cap: Double?
    private var capAt: Instant
    private var roundAt: Instant

    init(now: Instant) {
        capAt = now
        roundAt = now
    }

    /// True when a new look at the members is due.
    func isDue(_ now: Instant) -> Bool { now >= roundAt }

    mutating func update(shown: Double?, members: Int, now: Instant) {
        roundAt = now + max(Self.round, Self.roundPerMember * members)
        guard let shown else { return rate = cap }
        if shown > best * 1.25 {
            flatRounds = 0
            best = shown
        } else {
            flatRounds += 1
            best = min(best, max(shown, best * 0.9))
        }
        if let limit = cap, now >= capAt + Self.calm {
            capAt = now
            cap = limit > shown * 4 ? nil : limit * 1.1
        }
        let wanted = max(Self.floor, shown * (flatRounds < 3 ? 2 : 1.25))
        rate = min(wanted, cap ?? wanted)
    }

    /// Members lost frames: the network takes less than is sent.
    mutating func backOff(now: Instant) {
        guard let rate, now >= capAt + Self.calm || cap == nil else { return }
        cap = max(Self.floor, min(cap ?? rate, rate) * 0.7)
        capAt = now
        self.rate = cap
    }
}
