/// How many hellos of persistent links are taken in a second; who comes beyond that is told when to come
/// back.
///
/// Persistent links are those that all come anew at once when a node has been away; ephemeral ones come and
/// go with the messages, whose rate bounds them.
///
/// A limit of N takes N at once after a calm second, and N a second in the long run. Those beyond it are
/// spread by chance over the time that is needed for all who were sent away, twice over, five seconds at
/// most: when they come back they are not the same crowd again. Memory: two instants, however many come.
package struct GreetingPace: Sendable {
    /// Nobody is sent away for longer, and nobody who is stays away for longer.
    package static let longest = Duration.seconds(5)
    private static let shortest = Duration.milliseconds(500)
    private static let burst = Duration.seconds(1)

    /// The time that each hello takes up.
    private let share: Duration
    /// Up to when the time is taken up by hellos that were taken in.
    private var takenUntil = Instant(nanoseconds: .min / 2)
    /// Up to when it would be by those that were sent away.
    private var owedUntil = Instant(nanoseconds: .min / 2)
    private var generator: SeededGenerator

    package init(perSecond: Int, seed: UInt64) {
        share = .nanoseconds(1_000_000_000 / Int64(max(1, perSecond)))
        generator = SeededGenerator(seed: seed)
    }

    /// A node has said hello. Nil: it is taken in; otherwise the time after which it may come back.
    package mutating func greeted(now: Instant) -> Duration? {
        let until = max(takenUntil, now) + share
        if until - now <= Self.burst {
            takenUntil = until
            return nil
        }
        owedUntil = max(owedUntil, now) + share
        let spread = min(max((owedUntil - now) * 2, Self.shortest), Self.longest)
        return .nanoseconds(Int64.random(in: 0...spread.nanoseconds, using: &generator))
    }
}
