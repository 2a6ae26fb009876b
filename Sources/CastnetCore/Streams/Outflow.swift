/// When a sender's next frame may leave: never past the smallest budget of the members it waits for, and
/// never faster than the rate.
package struct Outflow: Sendable {
    /// A member as its reports show it.
    package struct Reporter: Sendable {
        /// Everything below this has been received.
        package var position: UInt64
        /// Frames below this may be outstanding.
        package var limit: UInt64
        package var heardAt: Instant
        /// When outstanding frames last moved its position, or there were none.
        package var movedAt: Instant
        /// False: it stopped reporting and the group no longer waits for it.
        package var isWaitedFor = true
    }

    package enum Event: Sendable {
        case stalled(NodeIdentity)
        case back(NodeIdentity)
    }

    /// Frames that may leave before the first report: enough to start, too few to overrun anybody.
    private static let firstWindow: UInt64 = 64
    /// The automatic rate's floor, in bytes a second.
    private static let rateFloor = 1_000_000.0

    private let fixedRate: Double?
    private let frameCost: Double
    package private(set) var reporters: [NodeIdentity: Reporter] = [:]
    /// Members that were announced and have not reported yet: since when, and how far frames go without them.
    private var expected: [NodeIdentity: (since: Instant, end: UInt64)] = [:]
    /// The lowest position and the first forbidden number, kept so that a frame costs no walk over members.
    private var lowest = UInt64.max
    private var end = UInt64.max
    /// Since when frames are outstanding; before that nobody had to report.
    private var busySince: Instant
    private var tokens = 0.0
    private var filledAt: Instant
    /// Bytes a second the group has shown to take; nil: not measured yet, so only the window holds.
    private var groupRate: Double?
    private var sample: (at: Instant, position: UInt64)?

    /// `rate` in bytes a second; nil: the group's own pace.
    package init(rate: Int?, frameCost: Int, now: Instant) {
        fixedRate = rate.map(Double.init)
        self.frameCost = Double(frameCost)
        filledAt = now
        busySince = now
    }

    /// The members that are known to hear the channel; those that are not any more are forgotten.
    package mutating func membersChanged(_ members: [NodeIdentity], next: UInt64, now: Instant) {
        let known = Set(members)
        expected = expected.filter { known.contains($0.key) }
        reporters = reporters.filter { known.contains($0.key) || now < $0.value.heardAt + .seconds(10) }
        for member in members where reporters[member] == nil && expected[member] == nil {
            expected[member] = (now, next + Self.firstWindow)
        }
        recompute()
    }

    /// A member said goodbye to the stream.
    package mutating func forget(_ member: NodeIdentity) {
        reporters[member] = nil
        expected[member] = nil
        recompute()
    }

    private mutating func recompute() {
        (lowest, end) = (.max, .max)
        for reporter in reporters.values where reporter.isWaitedFor {
            lowest = min(lowest, reporter.position)
            end = min(end, reporter.limit)
        }
        for missing in expected.values { end = min(end, missing.end) }
    }

    package mutating func reported(
        _ member: NodeIdentity, position: UInt64, limit: UInt64, next: UInt64, now: Instant
    ) -> Event? {
        expected[member] = nil
        defer { recompute() }
        guard var reporter = reporters[member] else {
            let position = min(position, next)
            reporters[member] = Reporter(position: position, limit: limit, heardAt: now, movedAt: now)
            return nil
        }
        reporter.heardAt = now
        if position > reporter.position || position >= next { reporter.movedAt = now }
        // Reports are datagrams: an older one may come later, and nobody has what was not sent.
        reporter.position = max(reporter.position, min(position, next))
        reporter.limit = max(limit, reporter.position)
        let wasStalled = !reporter.isWaitedFor
        reporter.isWaitedFor = true
        reporters[member] = reporter
        return wasStalled ? .back(member) : nil
    }

    /// The lowest position of the members waited for; `next` when there is none.
    package func floor(next: UInt64) -> UInt64 { min(next, lowest) }

    /// The first number that must not leave yet.
    package var windowEnd: UInt64 { end }

    package enum Verdict: Sendable {
        case leave
        /// The window is closed: a report opens it, or the deadline of a silent member.
        case blocked
        /// The rate has it wait until then.
        case wait(Instant)
    }

    /// May frame `next` leave now? `leave` pays for it.
    package mutating func ask(next: UInt64, now: Instant) -> Verdict {
        if next >= end { return .blocked }
        if lowest >= next { busySince = now }
        guard let rate = currentRate else { return .leave }
        // Up to 1 ms of the rate, or a few frames, may leave in one burst.
        let burst = max(rate / 1000, 8 * frameCost)
        tokens = min(burst, tokens + rate * (now - filledAt).seconds)
        filledAt = now
        if tokens >= 0 {
            tokens -= frameCost
            return .leave
        }
        return .wait(now + .nanoseconds(Int64(-tokens / rate * 1e9) + 1000))
    }

    /// The rate in force, in bytes a second; nil: none but the window.
    package var currentRate: Double? { fixedRate ?? groupRate.map { max($0 * 1.5, Self.rateFloor) } }

    /// Follows the group while it is behind: half again what its slowest member took lately, so that a faster
    /// group is found out. `isBusy` is true when frames waited to leave since the last call.
    package mutating func measure(next: UInt64, isBusy: Bool, now: Instant) {
        guard fixedRate == nil, reporters.values.contains(where: \.isWaitedFor) else {
            return groupRate = nil
        }
        let floor = floor(next: next)
        guard let last = sample, isBusy else {
            sample = (now, floor)
            return
        }
        let elapsed = (now - last.at).seconds
        guard elapsed >= 0.05 else { return }
        sample = (now, floor)
        let shown = Double(floor - min(floor, last.position)) * frameCost / elapsed
        groupRate = groupRate.map { shown > $0 ? shown : max(shown, $0 * 0.9) } ?? shown
    }

    /// Frames were lost: the network takes less than the group does.
    package mutating func backOff() { groupRate = groupRate.map { $0 * 0.7 } }

    /// Stops waiting for members that were silent while frames were outstanding.
    package mutating func dropSilent(next: UInt64, patience: Duration, now: Instant) -> [Event] {
        var events: [Event] = []
        for (member, reporter) in reporters where reporter.isWaitedFor {
            guard reporter.position < next || reporter.limit <= next else { continue }
            if now >= max(reporter.heardAt, busySince) + patience {
                reporters[member]?.isWaitedFor = false
                events.append(.stalled(member))
            }
        }
        for (member, missing) in expected where next > 0 && now >= max(missing.since, busySince) + patience {
            expected[member] = nil
            reporters[member] = Reporter(
                position: 0, limit: 0, heardAt: missing.since, movedAt: missing.since, isWaitedFor: false)
            events.append(.stalled(member))
        }
        if !events.isEmpty { recompute() }
        return events
    }

    /// True while somebody may have to be given up on.
    package func awaitsReports(next: UInt64) -> Bool {
        !expected.isEmpty || reporters.values.contains { $0.isWaitedFor && $0.position < next }
    }
}
