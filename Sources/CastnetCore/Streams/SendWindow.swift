/// The members of a channel as its sender knows them: who is waited for, how far each is and can take.
///
/// Nobody may be sent more than it said it can take, so the slowest member that is waited for bounds the
/// sender. A member that says nothing while frames are outstanding is given up until it speaks again. Whoever
/// is gone without a goodbye may come back and want what it missed, so its place is remembered for a while.
/// Memory: one entry per member, at most `limits.members`.
struct SendWindow: Sendable {
    struct Member: Sendable {
        var identity: NodeIdentity
        /// Below this it has, or gave up, everything.
        var received: UInt64
        /// It can take the frames below this.
        var limit: UInt64
        var heardAt: Instant
        var isStalled = false
        /// False: the directory does not name it, its reports do.
        var isListed: Bool
        var hasReported = false
        var processed: UInt64 = 0
        var lost: UInt32 = 0
        var refused: UInt32 = 0
        /// It does not hear the group: nobody waits for what it can take.
        var isDeaf = false
        /// When it was last told over a link how far the stream is.
        var toldAt: Instant?
        var pace: DeliveryRate
    }

    /// What a report changed.
    struct Change: Sendable {
        var isNew = false
        var isBack = false
        var hasLost = false
        var hasRefused = false
        /// It does not hear the group any more, or does again.
        var isDeaf: Bool?
        /// How far the member was before, and how far with everything handled.
        var before: UInt64 = 0
        var processedBefore: UInt64 = 0
    }

    /// Frames a member that has not reported yet, or not for a while, is trusted to take.
    private let trust: UInt64
    private let membersMax: Int
    /// How long a silent member's place is remembered.
    private let memory: Duration
    private var members: [String: Member] = [:]
    /// The cached end and floor are never too high; `isStale`: they may be too low.
    private var end = UInt64.max
    private var floor = UInt64.max
    /// The floor with the members that are not waited for.
    private var lowest = UInt64.max
    /// The floor of what was handled, of those that are.
    private var processed = UInt64.max
    private var isStale = false

    /// After so long without a frame, old limits are not trusted: others may use the memory by now.
    static let trustTime = Duration.milliseconds(100)

    private static let deafPause = Duration.milliseconds(50)
    private static let silentPause = Duration.milliseconds(400)
    /// So many are told at a time.
    private static let unheardMax = 64

    init(trust: UInt64, membersMax: Int, memory: Duration) {
        self.trust = trust
        self.memory = memory
        self.membersMax = membersMax
    }

    var count: Int { members.count }

    // MARK: Questions

    /// False also for a member that was thought gone.
    func expects(_ identity: NodeIdentity) -> Bool {
        members[identity.name].map { $0.identity == identity && $0.isListed } ?? false
    }

    func isDeaf(_ identity: NodeIdentity) -> Bool {
        members[identity.name].map { $0.identity == identity && $0.isDeaf } ?? false
    }

    /// The first frame that must not leave; `.max` when nobody is waited for.
    mutating func windowEnd(next: UInt64) -> UInt64 {
        if next >= end { refresh() }
        return end
    }

    /// The first frame that some member waited for does not have; `next` when there is none.
    mutating func floor(next: UInt64) -> UInt64 {
        if floor < next { refresh() }
        return min(next, floor)
    }

    /// True when a member lacks frames, whether it is waited for or not.
    mutating func isOwed(next: UInt64) -> Bool { owedFrom(next: next) < next }

    /// The first frame that some member does not have, waited for or not; `next` when there is none.
    mutating func owedFrom(next: UInt64) -> UInt64 {
        if lowest < next { refresh() }
        return min(next, lowest)
    }

    /// True when a member that is waited for has not handled everything up to `frame`.
    mutating func isHandling(_ frame: UInt64) -> Bool {
        if processed <= frame { refresh() }
        return processed <= frame
    }

    private mutating func refresh() {
        guard isStale else { return }
        isStale = false
        processed = .max
        end = .max
        floor = .max
        lowest = .max
        for member in members.values {
            lowest = min(lowest, member.received)
            guard !member.isStalled else { continue }
            if !member.isDeaf { end = min(end, member.limit) }
            floor = min(floor, member.received)
            processed = min(processed, member.processed)
        }
    }

    private mutating func lower(_ member: Member) {
        end = min(end, member.limit)
        floor = min(floor, member.received)
        lowest = min(lowest, member.received)
        processed = min(processed, member.processed)
        isStale = true
    }

    // MARK: Events

    /// The directory's list of members, this node left out; false: it is longer than may be tracked.
    mutating func membersChanged(_ list: [NodeIdentity], next: UInt64, now: Instant) -> Bool {
        var listed: Set<String> = []
        var isComplete = true
        for identity in list {
            listed.insert(identity.name)
            if let known = members[identity.name], known.identity.incarnation >= identity.incarnation {
                members[identity.name]?.isListed = true
            } else {
                isComplete = add(identity, received: next, isListed: true, next: next, now: now) && isComplete
            }
        }
        for (name, member) in members where member.isListed && !listed.contains(name) {
            members[name]?.isListed = false
            members[name]?.isStalled = true
        }
        isStale = true
        refresh()
        return isComplete
    }

    private mutating func add(
        _ identity: NodeIdentity, received: UInt64, isListed: Bool, next: UInt64, now: Instant
    ) -> Bool {
        guard members[identity.name] != nil || members.count < membersMax else { return false }
        let member = Member(
            identity: identity, received: received, limit: next + trust, heardAt: now, isListed: isListed,
            pace: DeliveryRate(received: received, now: now))
        members[identity.name] = member
        lower(member)
        return true
    }

    /// A report; nil: it is of an older incarnation, or of one member too many.
    mutating func reported(
        _ identity: NodeIdentity, _ position: Report.StreamPosition, next: UInt64, bytesPerFrame: Double,
        isBusy: Bool, now: Instant
    ) -> Change? {
        var change = Change()
        let known = members[identity.name]
        if known == nil || known.map({ $0.identity.incarnation < identity.incarnation }) == true {
            let isListed = known?.isListed ?? false
            guard add(identity, received: position.received, isListed: isListed, next: next, now: now) else {
                return nil
            }
        }
        guard var member = members[identity.name], member.identity == identity else { return nil }
        change.isNew = !member.hasReported
        change.before = member.hasReported ? member.received : 0
        member.heardAt = now
        change.isBack = member.isStalled
        change.hasLost = position.gaps > member.lost
        member.lost = max(member.lost, position.gaps)
        if position.isDeaf != member.isDeaf { change.isDeaf = position.isDeaf }
        member.isDeaf = position.isDeaf
        change.hasRefused = position.refused > member.refused
        member.refused = max(member.refused, position.refused)
        change.processedBefore = min(member.processed, change.before)
        member.processed = max(member.processed, position.processed)
        // Reports are datagrams: an older one may come later, and takes nothing back.
        if !member.hasReported || position.received >= member.received {
            let isSame = member.hasReported && position.received == member.received
            member.limit = isSame ? max(member.limit, position.limit) : position.limit
            member.received = position.received
        }
        member.hasReported = true
        member.isStalled = false
        member.pace.sample(
            received: member.received, bytesPerFrame: bytesPerFrame, isBusy: isBusy, now: now)
        members[identity.name] = member
        // A limit below what is known can only come from a member that is new or back.
        end = min(end, member.limit)
        floor = min(floor, member.received)
        lowest = min(lowest, member.received)
        processed = min(processed, member.processed)
        isStale = true
        return change
    }

    mutating func left(_ identity: NodeIdentity) {
        guard members[identity.name]?.identity == identity else { return }
        members[identity.name] = nil
        isStale = true
        refresh()
    }

    /// Frames leave again after a pause: limits told before it are trusted only so far.
    mutating func restarted(now: Instant) {
        for (name, member) in members where now >= member.heardAt + Self.trustTime {
            members[name]?.limit = min(member.limit, member.received + trust)
        }
        isStale = true
        end = 0
        refresh()
    }

    /// Members that lack frames and either say that they do not hear the group or say nothing; each is named
    /// again after a while.
    mutating func unheard(next: UInt64, since restartAt: Instant, now: Instant) -> [NodeIdentity] {
        var unheard: [NodeIdentity] = []
        for (name, member) in members where member.received < next && member.isListed {
            let pause = member.isDeaf ? Self.deafPause : Self.silentPause
            let quietSince = member.isDeaf ? restartAt : max(member.heardAt, restartAt)
            guard now >= max(quietSince, member.toldAt ?? restartAt) + pause else { continue }
            members[name]?.toldAt = now
            unheard.append(member.identity)
            if unheard.count >= Self.unheardMax { break }
        }
        return unheard
    }

    /// Gives up members that were silent for `patience` while frames were outstanding to them.
    mutating func stall(
        next: UInt64, since restartAt: Instant, patience: Duration, now: Instant
    ) -> [NodeIdentity] {
        var stalled: [NodeIdentity] = []
        for (name, member) in members where !member.isStalled {
            let isOwing = member.received < next || member.limit <= next
            guard isOwing, now >= max(member.heardAt, restartAt) + patience else { continue }
            members[name]?.isStalled = true
            stalled.append(member.identity)
        }
        for (name, member) in members
        where member.isStalled && !member.isListed && now >= member.heardAt + memory {
            members[name] = nil
            isStale = true
        }
        if !stalled.isEmpty {
            isStale = true
            end = 0
            floor = 0
            refresh()
        }
        return stalled
    }

    /// The rate in bytes a second that the slowest member waited for has shown; nil: some showed none yet.
    mutating func slowestRate(isBusy: Bool, now: Instant) -> Double? {
        var slowest: Double?
        for name in members.keys {
            guard members[name]?.isStalled == false, members[name]?.isDeaf == false else { continue }
            guard let rate = members[name]?.pace.maximum(isBusy: isBusy, now: now) else { return nil }
            slowest = min(slowest ?? rate, rate)
        }
        return slowest
    }
}
