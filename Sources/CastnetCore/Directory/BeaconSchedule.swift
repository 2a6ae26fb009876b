/// When this node sends which beacon of its own.
///
/// Records that need many datagrams leave in bursts, so that they do not overrun the receivers' socket
/// buffers; a record that changes while it leaves starts anew.
struct BeaconSchedule: Sendable {
    static let burstMax = 16
    static let burstPause: Duration = .milliseconds(4)

    var digestAt: Instant?
    /// Announcements of the record still to come, in order.
    var announcements: [Instant] = []
    /// When the record is sent because somebody asked.
    var answerAt: Instant?
    /// When a digest is sent because somebody asked for a sign of life.
    var lifeAt: Instant?
    /// Times to ask who is there, after the start.
    var joinRounds: [Instant] = []
    private(set) var lastFull: Instant?
    var lastDigest: Instant?
    /// The interval that the last beacon named.
    var told: Duration?

    /// True from a change until its first announcement.
    private var isFresh = false
    private var bodies: [Beacon.Body] = []
    private var nextPart = 0
    private var burstAt: Instant?

    var nextDeadline: Instant? {
        var next = earliest(digestAt, announcements.first)
        next = earliest(next, answerAt)
        next = earliest(next, lifeAt)
        next = earliest(next, joinRounds.first)
        return earliest(next, burstAt)
    }

    /// Another version of the record: what is left of the old one is not sent any more.
    mutating func replace(_ bodies: [Beacon.Body]) {
        self.bodies = bodies
        (nextPart, burstAt) = (0, nil)
    }

    /// Plans the record's announcement at `first` and its repetitions after it.
    /// A change behind another that was not sent yet travels with it.
    mutating func announce(at first: Instant, repeats: [Instant]) {
        let pending = isFresh ? announcements.first : nil
        announcements = [pending.map { min($0, first) } ?? first] + repeats
        isFresh = true
    }

    /// The record's datagrams that leave now; true in `answered` when an answer was due. What is still to be
    /// repeated waits `stretch` times as long.
    mutating func dueParts(
        now: Instant, stretch: Double
    ) -> (parts: ArraySlice<Beacon.Body>, answered: Bool) {
        var answered = false
        if announcements.first.map({ $0 <= now }) == true || answerAt.map({ $0 <= now }) == true {
            answered = answerAt.map { $0 <= now } ?? false
            announcements.removeAll { $0 <= now }
            if stretch > 1 {
                announcements = announcements.map { now + DirectoryMachine.scaled($0 - now, stretch) }
            }
            answerAt = nil
            (lastFull, isFresh) = (now, false)
            // A record still leaving is not started twice: its receivers keep the parts they have.
            if burstAt == nil { (nextPart, burstAt) = (0, now) }
        }
        guard let burst = burstAt, burst <= now else { return ([], answered) }
        let end = min(bodies.count, nextPart + Self.burstMax)
        let parts = bodies[min(nextPart, end)..<end]
        nextPart = end
        burstAt = end < bodies.count ? now + Self.burstPause : nil
        return (parts, answered)
    }

    /// True when it is time to ask who is there.
    mutating func joinRoundDue(now: Instant) -> Bool {
        guard let round = joinRounds.first, round <= now else { return false }
        joinRounds.removeAll { $0 <= now }
        return true
    }

    /// Nothing is sent any more.
    mutating func clear() { self = BeaconSchedule() }
}
