/// How busy the group's address is, from what was heard in the last quarter of a second.
struct Traffic: Sendable {
    /// From so many datagrams a second on, repetitions wait longer.
    static let calm = 1000.0
    /// In nanoseconds.
    private static let window: Int64 = 250_000_000

    private var since = Instant(nanoseconds: .min)
    private var count = 0
    private var lastCount = 0

    mutating func note(now: Instant) {
        let (passed, overflow) = now.nanoseconds.subtractingReportingOverflow(since.nanoseconds)
        if overflow || passed >= Self.window {
            lastCount = overflow || passed >= Self.window * 2 ? 0 : count
            (since, count) = (now, 0)
        }
        count += 1
    }

    /// How many times as long something that can wait is put off; 1 while the group is calm.
    func stretch(now: Instant) -> Double {
        max(1, Double(perSecond(now: now)) / Self.calm)
    }

    func perSecond(now: Instant) -> Int {
        now - since < .nanoseconds(Self.window * 2) ? max(count, lastCount) * 4 : 0
    }

    func stretched(_ duration: Duration, now: Instant) -> Duration {
        DirectoryMachine.scaled(duration, stretch(now: now))
    }
}
