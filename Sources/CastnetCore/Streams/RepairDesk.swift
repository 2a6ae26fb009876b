/// Who asked a sender for which frames, and what is sent to whom next.
///
/// It holds a few sessions at a time, serves them in turns and slower than the channel sends, and makes
/// others wait. What several members lost alike goes once to the whole group. It knows numbers only, no
/// frames.
/// Memory: `sessionsMax` sessions and `asksMax` recent requests, each of at most `RepairRequests.rangesMax`.
struct RepairDesk: Sendable {
    /// What to do for a request.
    enum Step: Hashable, Sendable {
        /// Send the frame to the group under its old number.
        case again(UInt64)
        /// Send frames from this one on to the member, as many as make a packet, at most so many.
        case serve(NodeIdentity, first: UInt64, countMax: Int)
    }

    private struct Session: Sendable {
        var member: NodeIdentity
        var ranges: [ClosedRange<UInt64>]
        /// Bytes handed to the link that it has not written yet.
        var unwritten = 0
        var movedAt: Instant

        /// What is asked for again is sent once. False: the member asks for too much, only the newest request
        /// is kept, and it will ask for the rest again.
        mutating func add(_ asked: [ClosedRange<UInt64>]) -> Bool {
            let isKept = ranges.count <= Self.rangesMax
            if !isKept { ranges = [] }
            for range in asked { ranges.subtract(range) }
            ranges += asked
            ranges.sort { $0.lowerBound < $1.lowerBound }
            return isKept
        }

        private static let rangesMax = 4 * RepairRequests.rangesMax
    }
    private struct Ask: Sendable {
        var member: NodeIdentity
        var ranges: [ClosedRange<UInt64>]
        var at: Instant
    }

    private var sessions: [Session] = []
    private var turn = 0
    private var asks: [Ask] = []
    private var group: [ClosedRange<UInt64>] = []
    private var pacer: Pacer
    /// Requests that were left out of a comparison, or of a session, because there were too many.
    private(set) var limitHits: UInt64 = 0

    static let sessionsMax = 16
    private static let asksMax = 1024
    /// So many members that ask within ``commonTime`` have lost a frame alike.
    private static let commonCount = 3
    static let commonTime = Duration.milliseconds(50)
    private static let unwrittenMax = 256 << 10
    /// A session that takes nothing for so long makes room for others.
    private static let sessionTime = Duration.seconds(5)
    /// The share of the channel's rate that repairs may have, and the rate it is a share of where there is
    /// none.
    private static let share = 0.2
    private static let assumedRate = 125e6
    static let rateMin = 25e6

    init(now: Instant) { pacer = Pacer(now: now) }

    var isIdle: Bool { sessions.isEmpty && group.isEmpty && asks.isEmpty }
    var sessionCount: Int { sessions.count }

    /// A member asks. Nil: it is being served; otherwise when it should ask again.
    mutating func asked(
        _ member: NodeIdentity, _ ranges: [ClosedRange<UInt64>], groupSize: Int, now: Instant
    ) -> Duration? {
        var ranges = ranges
        if groupSize >= Self.commonCount {
            // What the whole group is about to get comes that way to this member, too.
            for range in group { ranges.subtract(range) }
            if ranges.isEmpty { return nil }
            if asks.count == Self.asksMax {
                asks.removeFirst()
                limitHits += 1
            }
            asks.append(Ask(member: member, ranges: ranges, at: now))
        }
        if let index = sessions.firstIndex(where: { $0.member.name == member.name }) {
            sessions[index].member = member
            if !sessions[index].add(ranges) { limitHits += 1 }
            sessions[index].movedAt = now
            return nil
        }
        sessions.removeAll { $0.ranges.isEmpty && $0.unwritten == 0 || now >= $0.movedAt + Self.sessionTime }
        guard sessions.count < Self.sessionsMax else { return .milliseconds(200) }
        sessions.append(Session(member: member, ranges: ranges, movedAt: now))
        return nil
    }

    /// Bytes for a member have left, or never will.
    mutating func written(_ bytes: Int, to member: NodeIdentity, now: Instant) {
        guard let index = sessions.firstIndex(where: { $0.member == member }) else { return }
        sessions[index].unwritten = max(0, sessions[index].unwritten - bytes)
        sessions[index].movedAt = now
    }

    /// A member is gone, or its link is.
    mutating func left(_ member: NodeIdentity) {
        sessions.removeAll { $0.member == member }
        asks.removeAll { $0.member == member }
    }

    /// A member does not hear the group: what it has asked for goes to it alone.
    mutating func turnedDeaf(_ member: NodeIdentity) { asks.removeAll { $0.member == member } }

    /// What to do now; nil: nothing, or not yet.
    mutating func next(now: Instant) -> Step? {
        guard !isIdle else { return nil }
        findCommon(now: now)
        guard pacer.waitsUntil(now) == nil else { return nil }
        if let first = group.first { return .again(first.lowerBound) }
        for _ in sessions.indices {
            turn = (turn + 1) % sessions.count
            let session = sessions[turn]
            guard let range = session.ranges.first, session.unwritten < Self.unwrittenMax,
                !isWaiting(session.member)
            else { continue }
            return .serve(session.member, first: range.lowerBound, countMax: Int(clamping: range.count))
        }
        return nil
    }

    /// `count` frames from the first of the step were taken care of, `bytes` of them sent.
    mutating func did(_ step: Step, count: Int, bytes: Int, rate: Double?, now: Instant) {
        if bytes > 0 { pacer.pay(bytes: bytes, rate: Self.share * (rate ?? Self.assumedRate), now: now) }
        if case .again(let sequence) = step { return group.subtract(sequence...sequence) }
        guard case .serve(let member, let first, _) = step,
            let index = sessions.firstIndex(where: { $0.member == member })
        else { return }
        sessions[index].unwritten += bytes
        sessions[index].movedAt = now
        sessions[index].ranges.subtract(first...first + UInt64(max(1, count)) - 1)
    }

    /// When something can be done that no event announces; nil: nothing can.
    func nextDeadline(now: Instant) -> Instant? {
        guard !isIdle else { return nil }
        let common = asks.first.map { $0.at + Self.commonTime }
        let hasWork =
            !group.isEmpty
            || sessions.contains {
                !$0.ranges.isEmpty && $0.unwritten < Self.unwrittenMax && !isWaiting($0.member)
            }
        return earliest(common, hasWork ? pacer.waitsUntil(now) ?? now : nil)
    }

    // MARK: What is common

    /// What the group was to get of the frames before `oldest` it does not get.
    mutating func dropCommon(before oldest: UInt64) {
        guard let first = group.first, first.lowerBound < oldest else { return }
        group.subtract(first.lowerBound...oldest - 1)
    }

    /// A request is served by itself only once it is clear that not enough others lost the same.
    private func isWaiting(_ member: NodeIdentity) -> Bool { asks.contains { $0.member == member } }

    /// When the oldest request has waited long enough: frames that enough members ask for go to the group.
    private mutating func findCommon(now: Instant) {
        guard let oldest = asks.first, now >= oldest.at + Self.commonTime else { return }
        let common = Self.common(asks.map { ($0.member, $0.ranges) }, count: Self.commonCount)
        for range in common {
            group.subtract(range)
            group.append(range)
            for index in sessions.indices { sessions[index].ranges.subtract(range) }
        }
        group.sort { $0.lowerBound < $1.lowerBound }
        asks = []
    }

    /// The numbers that at least `count` different members name.
    static func common(
        _ asks: [(member: NodeIdentity, ranges: [ClosedRange<UInt64>])], count: Int
    ) -> [ClosedRange<UInt64>] {
        var edges: [(at: UInt64, change: Int)] = []
        for (_, ranges) in Dictionary(asks, uniquingKeysWith: { $1 }) {
            for range in ranges {
                edges.append((range.lowerBound, 1))
                edges.append((range.upperBound + 1, -1))
            }
        }
        edges.sort { ($0.at, $0.change) < ($1.at, $1.change) }
        var (result, depth, start): ([ClosedRange<UInt64>], Int, UInt64?) = ([], 0, nil)
        for edge in edges {
            depth += edge.change
            if depth >= count {
                start = start ?? edge.at
            } else if let first = start {
                if edge.at > first { result.append(first...edge.at - 1) }
                start = nil
            }
        }
        return result
    }
}

extension [ClosedRange<UInt64>] {
    /// Takes `range` out of each.
    mutating func subtract(_ range: ClosedRange<UInt64>) {
        guard contains(where: { $0.overlaps(range) }) else { return }
        self = flatMap { own -> [ClosedRange<UInt64>] in
            guard own.overlaps(range) else { return [own] }
            var rest: [ClosedRange<UInt64>] = []
            if own.lowerBound < range.lowerBound { rest.append(own.lowerBound...range.lowerBound - 1) }
            if own.upperBound > range.upperBound { rest.append(range.upperBound + 1...own.upperBound) }
            return rest
        }
    }
}
