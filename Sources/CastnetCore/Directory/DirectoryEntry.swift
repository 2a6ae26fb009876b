/// What the directory keeps of one name: half a hundred bytes, and a box for what few of them ever need.
///
/// What is asked of thousands at a time is inlined: a call copies the entry first, and counts who holds its
/// record.
@dynamicMemberLookup
struct DirectoryEntry: Sendable {
    /// The record in force: the node's own word where it was heard, else what static sources say.
    var record: NodeRecord {
        didSet { stamp = Beacon.digest(of: record.identity, version: record.version) }
    }
    /// Names the record's name, incarnation and version. Nearly all that is heard is compared with it alone:
    /// the record is somewhere else in memory.
    ///
    /// It and what follows up to `unreachable` are what a sign of life touches: they lie in one line of
    /// memory.
    private(set) var stamp: UInt64
    /// Of the name.
    var digest: UInt64 { Beacon.digest(ofName: record.identity.name) }
    /// The last sign of life of this incarnation.
    var heard: Instant? {
        get { heardAt == Self.never ? nil : heardAt }
        set { heardAt = newValue ?? Self.never }
    }
    private var heardAt = Self.never
    private static let never = Instant(nanoseconds: .min)
    /// How often it sends beacons, as it said itself; to the millisecond, as on the wire.
    var interval: Duration {
        get { .milliseconds(Int64(intervalMilliseconds)) }
        set { intervalMilliseconds = newValue.wireMilliseconds }
    }
    private var intervalMilliseconds: UInt32 = 0
    /// In nanoseconds; `pace` in milliseconds.
    @inline(__always)
    func interval(atLeast pace: UInt32) -> Int64 { Int64(max(intervalMilliseconds, pace)) * 1_000_000 }
    var state: NodeState = .alive
    var sources: RecordSources
    /// Set by a broken link or a failed dial, until it is heard.
    var unreachable = false
    /// When this node asks it for a sign of life, once it is suspect: not before what others have asked is
    /// answered.
    var probeAt: Instant? {
        get { askAt == Self.never ? nil : askAt }
        set { askAt = newValue ?? Self.never }
    }
    private var askAt = Self.never
    /// When the name was first known, and since when it is in its state.
    var known: Instant
    var since: Instant
    private var rare: Shared<Rare>?
    /// Its record is the one that the stamp names, and nothing is true of it that is true of few nodes only.
    @inline(__always)
    func isJust(_ stamp: UInt64) -> Bool { self.stamp == stamp && state != .left && rare == nil }

    /// What is true of a few nodes at a time.
    struct Rare: Hashable, Sendable {
        /// What a source without an incarnation (static entries) says of the name.
        var base: NodeRecord?
        /// The last sign of life that came over a link.
        var linkHeard: Instant?
        var links = 0
        var rival: Rival?
        /// The incarnation that said goodbye: nothing it sent before counts any more.
        var leftIncarnation: Incarnation?
        /// It left because its sources no longer told of it, not by its own word: they may tell of it again.
        var isWithdrawn = false
        /// The discovery sources that tell of it.
        var discoverers: Set<Int> = []
        /// Channel digests that were reported as different, by channel name.
        var reportedChannels: [String: UInt64] = [:]

        static let none = Rare()
    }

    subscript<Value>(dynamicMember field: WritableKeyPath<Rare, Value>) -> Value {
        get { (rare?.value ?? .none)[keyPath: field] }
        set {
            var next = rare?.value ?? .none
            next[keyPath: field] = newValue
            rare = next == .none ? nil : Shared(next)
        }
    }

    /// An older incarnation of the name that is still heard.
    struct Rival: Hashable, Sendable {
        var incarnation: Incarnation
        var address: HostPort?
        var firstHeard: Instant
        var reported = false
    }

    var identity: NodeIdentity { record.identity }

    /// True for nodes that messages may be sent to.
    @inline(__always) var isPresent: Bool { state == .alive || state == .suspect }

    /// True for nodes that no silence removes, because a source vouches for them.
    @inline(__always) var isVouched: Bool { !sources.isDisjoint(with: [.own, .fixed, .discovery]) }

    /// From this silence on a node is suspect: so many beacons are certainly missing, of which one comes
    /// after at most 90 % of the interval.
    @inline(__always)
    private func suspicion(of heard: Instant, _ times: Times) -> Instant {
        after(times.patience == 1 ? 150 : times.patience == 2 ? 200 : 272, pace: times.pace, since: heard)
    }

    /// So many hundredths of its interval after an instant. In integers: this is asked of every entry.
    @inline(__always)
    private func after(_ hundredths: Int64, pace: UInt32 = 0, since instant: Instant) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(
            interval(atLeast: pace) / 100 * hundredths)
        return Instant(nanoseconds: overflow ? .max : sum)
    }

    /// A link that lives may be quieter than beacons are, so it is trusted for longer.
    @inline(__always)
    func suspicionAt(_ times: Times) -> Instant? {
        guard state == .alive, sources.contains(.beacon), heardAt != Self.never else { return nil }
        let silent = suspicion(of: max(heardAt, times.notBefore), times)
        return rare == nil ? silent : self.linkHeard.map { max(silent, after(250, since: $0)) } ?? silent
    }

    /// From here on the suspect is dead. Just under three intervals after the last sign of life, so that a
    /// node killed right behind a beacon is gone within three. A node that never sent a beacon and that a
    /// source vouches for does not die of silence.
    @inline(__always)
    func deathAt(_ times: Times) -> Instant? {
        guard times.mayDie, state == .suspect, sources.contains(.beacon) || !isVouched else { return nil }
        return after(290, pace: times.pace, since: max(heard ?? since, times.notBefore))
    }

    /// When a vouched node that never sent a beacon is given another try: nothing else would refute.
    var retryAt: Instant? {
        guard state == .suspect, isVouched, !sources.contains(.beacon) else { return nil }
        return since + max(.seconds(2), interval * 2)
    }

    /// What the times of all entries depend on.
    struct Times: Hashable {
        /// So many beacons in a row may be missing.
        var patience: Int
        /// In milliseconds: the time between two beacons of a node in a group as large as this one, which it
        /// may keep although its word of it was missed.
        var pace: UInt32
        /// No silence before this counts.
        var notBefore: Instant
        var mayDie: Bool
        var goneKept: Duration

        /// True where an entry may need something well before what was computed with `others`.
        func mayComeSooner(than others: Times) -> Bool {
            patience != others.patience || notBefore != others.notBefore || mayDie != others.mayDie
                || Int(pace) * 8 < Int(others.pace) * 7
        }
    }

    /// When it needs something next.
    @inline(__always)
    func next(_ times: Times) -> Instant? {
        switch state {
        case .alive: return suspicionAt(times)
        case .suspect:
            return earliest(endsAt(times), probeAt)
        case .left, .dead: return forgottenAt(after: times.goneKept)
        }
    }

    /// When a suspect is dead, or alive for want of proof.
    func endsAt(_ times: Times) -> Instant? {
        earliest(deathAt(times), retryAt)
    }

    /// When a node that is gone is forgotten.
    func forgottenAt(after kept: Duration) -> Instant? {
        !isPresent && !isVouched ? since + kept : nil
    }

    /// What a sign of life comes to.
    enum Refresh {
        /// It may tell more: look closer.
        case nothing
        /// It puts off what the entry needs next.
        case later
        /// The node is heard more often from now on: the entry may need something sooner than it was to.
        case sooner
    }

    /// The way of nearly all that is heard: nothing is new but that the node lives.
    mutating func refresh(_ stamp: UInt64, interval: UInt32, now: Instant) -> Refresh {
        guard self.stamp == stamp, state == .alive, !unreachable, sources.contains(.beacon) else {
            return .nothing
        }
        let isSooner = interval < intervalMilliseconds
        heardAt = now
        intervalMilliseconds = interval
        return isSooner ? .sooner : .later
    }

    /// True where another's word that the node lived at `instant` tells nothing: it was heard here as late.
    /// The same beacon seems a little later there, for the word took its time.
    @inline(__always)
    func knows(_ stamp: UInt64, at instant: Instant) -> Bool {
        self.stamp == stamp && state == .alive && instant <= after(6, since: heardAt)
    }

    init(record: NodeRecord, sources: RecordSources, interval: Duration, now: Instant) {
        self.record = record
        stamp = Beacon.digest(of: record.identity, version: record.version)
        self.sources = sources
        known = now
        since = now
        self.interval = interval
    }
}
