/// The members of a channel as its sender knows them: who is waited for, how far each is and can take.
///
/// Nobody may be sent more than it said it can take, so the slowest member that is waited for bounds the
/// sender. A member that says nothing while frames are outstanding is not waited for until it speaks again,
/// and one that alone holds up the others for long not until it has what it missed: what becomes of it
/// meanwhile is said by `slow`. Whoever is gone without a goodbye may come back and want what it missed, so
/// its place is remembered for a while. Memory: one entry per member, at most `limits.members`.
struct SendWindow: Sendable {
    /// How the sender stands to a member.
    enum Standing: Sendable {
        /// It is waited for.
        case current
        /// It takes much less than the others, and is not waited for.
        case slow
        /// It says nothing, and is not waited for.
        case silent
    }

    struct Member: Sendable {
        var identity: NodeIdentity
        /// The stream begins with this frame for it, as far as it has said.
        var first: UInt64 = 0
        /// Below this it has, or gave up, everything.
        var received: UInt64
        /// It can take the frames below this.
        var limit: UInt64
        var heardAt: Instant
        /// Frames have been outstanding to it since then, or it has none to wait for.
        var owedSince: Instant
        var standing = Standing.current
        /// What it has no claim to: it was evicted when this was the next frame.
        var evictedEnd: UInt64 = 0
        /// How long it held up the others, less how long it did not, and what it could take when that began.
        var heldUp = Duration.zero
        var heldLimit: UInt64 = 0
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
        /// Nothing leaves that it cannot take.
        var boundsWindow: Bool { standing == .current && !isDeaf }
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
    /// Frames that a member which takes everything may be behind.
    private let reach: UInt64
    private let slow: ChannelSettings.SlowMember
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
    /// When it was looked last who holds up the others.
    private var holdupsAt: Instant

    /// After so long without a frame, old limits are not trusted: others may use the memory by now.
    static let trustTime = Duration.milliseconds(100)

    private static let deafPause = Duration.milliseconds(50)
    /// How long the group waits for a silent or nearly still member where `slow` is `pace`.
    private static let pacePatience = Duration.seconds(5)
    /// Time between two looks that counts at most.
    private static let lookMax = Duration.milliseconds(100)
    private static let silentPause = Duration.milliseconds(400)
    /// So many are told at a time.
    private static let unheardMax = 64

    init(
        trust: UInt64, reach: UInt64, slow: ChannelSettings.SlowMember, membersMax: Int, memory: Duration,
        now: Instant
    ) {
        self.trust = trust
        self.reach = reach
        self.slow = slow
        holdupsAt = now
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

    /// Below this the member has no claim to anything.
    func evictedEnd(of identity: NodeIdentity) -> UInt64 {
        members[identity.name].map { $0.identity == identity ? $0.evictedEnd : 0 } ?? 0
    }

    /// True when a member that is given up loses what it missed.
    var evicts: Bool { slow == .evict }

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
            lowest = min(lowest, max(member.received, member.evictedEnd))
            guard member.standing != .silent else { continue }
            if member.boundsWindow { end = min(end, member.limit) }
            floor = min(floor, max(member.received, member.evictedEnd))
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
            members[name]?.standing = .silent
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
            identity: identity, received: received, limit: next + trust, heardAt: now, owedSince: now,
            isListed: isListed, pace: DeliveryRate(received: received, now: now))
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
        let isBound = holdsMinimum(member)
        change.isNew = !member.hasReported
        change.before = member.hasReported ? member.received : 0
        member.heardAt = now
        if position.first < member.first {
            // It has joined, and learnt since that the stream began earlier for it than it thought.
            member.received = min(member.received, position.received)
            member.processed = min(member.processed, position.processed)
            change.before = min(change.before, position.first)
        }
        if position.first > member.first {
            // It follows the stream anew, and counts from there.
            member.lost = 0
            member.refused = 0
        }
        member.first = position.first
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
        change.isBack = stands(&member, position, next: next)
        member.pace.sample(
            received: member.received, bytesPerFrame: bytesPerFrame, isBusy: isBusy, now: now)
        members[identity.name] = member
        // A limit below what is known can only come from a member that is new or back.
        if member.boundsWindow { end = min(end, member.limit) }
        floor = min(floor, member.received)
        lowest = min(lowest, member.received)
        processed = min(processed, member.processed)
        isStale = isStale || isBound
        return change
    }

    /// Only what such a member says can raise what is cached.
    private func holdsMinimum(_ member: Member) -> Bool {
        member.limit <= end || member.received <= max(floor, lowest) || member.processed <= processed
    }

    /// What a report makes of a member that was not waited for; true: it is again.
    private func stands(_ member: inout Member, _ position: Report.StreamPosition, next: UInt64) -> Bool {
        guard member.standing != .current else { return false }
        let isBehind = position.limit <= next || position.received + reach < next
        if isBehind, member.standing == .slow || slow != .pace {
            member.standing = .slow
            return false
        }
        member.standing = .current
        return true
    }

    mutating func left(_ identity: NodeIdentity) {
        guard members[identity.name]?.identity == identity else { return }
        members[identity.name] = nil
        isStale = true
        refresh()
    }

    /// Frames leave again after a pause: limits told before it are trusted only so far, and who has
    /// everything so far owes no report of it.
    mutating func restarted(next: UInt64, now: Instant) {
        for (name, member) in members where now >= member.heardAt + Self.trustTime {
            members[name]?.limit = min(member.limit, member.received + trust)
            if member.received >= next { members[name]?.owedSince = now }
        }
        isStale = true
        end = 0
        refresh()
    }

    /// Members that lack frames and either say that they do not hear the group or say nothing; each is named
    /// again after a while.
    mutating func unheard(next: UInt64, now: Instant) -> [NodeIdentity] {
        var unheard: [(identity: NodeIdentity, at: Instant)] = []
        for member in members.values where member.received < next && member.isListed {
            let pause = member.isDeaf ? Self.deafPause : Self.silentPause
            let quietSince = member.isDeaf ? member.owedSince : max(member.heardAt, member.owedSince)
            let at = max(quietSince, member.toldAt ?? quietSince)
            if now >= at + pause { unheard.append((member.identity, at)) }
        }
        // Who waits for longest comes first: nobody is passed over for ever.
        if unheard.count > Self.unheardMax { unheard.sort { $0.at < $1.at } }
        let told = unheard.prefix(Self.unheardMax).map(\.identity)
        for identity in told { members[identity.name]?.toldAt = now }
        return told
    }

    /// Gives up members that were silent for `patience` while frames were outstanding to them.
    mutating func stall(next: UInt64, patience: Duration, now: Instant) -> [NodeIdentity] {
        var stalled: [NodeIdentity] = []
        for (name, member) in members where member.standing != .silent {
            let isOwing = member.received < next || member.limit <= next
            guard isOwing, now >= max(member.heardAt, member.owedSince) + patience else { continue }
            giveUp(name, .silent, next: next)
            stalled.append(member.identity)
        }
        for (name, member) in members
        where member.standing == .silent && !member.isListed && now >= member.heardAt + memory {
            members[name] = nil
            isStale = true
        }
        if !stalled.isEmpty { recount() }
        return stalled
    }

    /// How long a member may be silent while frames are outstanding to it.
    var silencePatience: Duration { slow == .pace ? Self.pacePatience : .seconds(1) }

    /// Looks who holds up the others, and gives up members that did so for long: those that alone, or with
    /// fewer than half, can take no more. Nobody does where the sender itself, or all of them, are slow.
    mutating func holdups(
        next: UInt64, isBlocked: Bool, bytesPerFrame: Double, now: Instant
    ) -> [NodeIdentity] {
        let elapsed = now - holdupsAt
        holdupsAt = now
        let (waited, full) = members.values.reduce(into: (0, 0)) { count, member in
            guard member.boundsWindow else { return }
            count.0 += 1
            if member.limit <= next { count.1 += 1 }
        }
        let areFew = isBlocked && 2 * full <= waited
        var found: [NodeIdentity] = []
        for (name, member) in members where member.boundsWindow {
            let isFull = areFew && member.limit <= next
            guard isFull || member.heldUp > .zero else { continue }
            if isFull, member.heldUp == .zero { members[name]?.heldLimit = member.limit }
            let heldUp = isFull ? member.heldUp + min(elapsed, Self.lookMax) : member.heldUp - elapsed
            members[name]?.heldUp = max(.zero, heldUp)
            guard heldUp >= holdupPatience(with: member, now: now) else { continue }
            let taken = Double(member.limit - min(member.limit, member.heldLimit)) * bytesPerFrame
            if slow == .pace, taken >= GroupPace.floor * holdupPatience.seconds {
                members[name]?.heldUp = .zero
                continue
            }
            giveUp(name, .slow, next: next)
            found.append(member.identity)
        }
        if !found.isEmpty { recount() }
        return found
    }

    /// Where members catch up by themselves the others need not wait long for one that does not even report.
    private func holdupPatience(with member: Member, now: Instant) -> Duration {
        let isSilent = slow == .catchUp && now >= member.heardAt + holdupPatience * 0.5
        return isSilent ? holdupPatience * 0.5 : holdupPatience
    }

    private var holdupPatience: Duration {
        switch slow {
        case .catchUp: .milliseconds(400)
        case .evict: .seconds(1)
        case .pace: Self.pacePatience
        }
    }

    private mutating func giveUp(_ name: String, _ standing: Standing, next: UInt64) {
        let heldUp = holdupPatience * 0.5
        members[name]?.standing = standing
        // Who is slow again soon is found out sooner.
        members[name]?.heldUp = heldUp
        if slow == .evict { members[name]?.evictedEnd = next }
    }

    private mutating func recount() {
        isStale = true
        end = 0
        floor = 0
        refresh()
    }

    /// The rate in bytes a second that the members waited for have shown: where the group paces itself, that
    /// of the slowest, otherwise the median, as a slow one is found out by what it cannot take. Nil: some
    /// showed none yet.
    mutating func shownRate(isBusy: Bool, now: Instant) -> Double? {
        var rates: [Double] = []
        for name in members.keys {
            guard members[name]?.boundsWindow == true else { continue }
            guard let rate = members[name]?.pace.maximum(isBusy: isBusy, now: now) else { return nil }
            rates.append(rate)
        }
        if slow == .pace { return rates.min() }
        rates.sort()
        return rates.isEmpty ? nil : rates[rates.count / 2]
    }
}
