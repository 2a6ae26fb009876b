/// What the directory keeps of one name.
struct DirectoryEntry: Sendable {
    /// The record in force: the node's own word where it was heard, else what static sources say.
    var record: NodeRecord
    /// What a source without an incarnation (static entries) says of the name.
    var base: NodeRecord?
    var state: NodeState = .alive
    var sources: RecordSources
    /// When the name was first known, and since when it is in its state.
    var known: Instant
    var since: Instant
    /// The last sign of life of this incarnation, and the last that came over a link.
    var heard: Instant?
    var linkHeard: Instant?
    /// How often it sends beacons, as it said itself.
    var interval: Duration
    var links = 0
    /// Set by a broken link or a failed dial, until it is heard.
    var unreachable = false
    /// When a suspect is asked for a sign of life next.
    var probeAt: Instant?
    var rival: Rival?
    /// The incarnation that said goodbye: nothing it sent before counts any more.
    var leftIncarnation: Incarnation?
    /// The discovery sources that tell of it.
    var discoverers: Set<Int> = []
    /// Channel digests that were reported as different, by channel name.
    var reportedChannels: [String: UInt64] = [:]

    /// An older incarnation of the name that is still heard.
    struct Rival: Sendable {
        var incarnation: Incarnation
        var address: HostPort?
        var firstHeard: Instant
        var reported = false
    }

    var identity: NodeIdentity { record.identity }

    /// True for nodes that messages may be sent to.
    var isPresent: Bool { state == .alive || state == .suspect }

    /// True for nodes that no silence removes, because a source vouches for them.
    var isVouched: Bool { !sources.isDisjoint(with: [.own, .fixed, .discovery]) }

    /// From this silence on the node is suspect: one beacon is certainly missing. A link that lives may be
    /// quieter than beacons are, so it is trusted for longer.
    func suspicionAt(notBefore floor: Instant) -> Instant? {
        guard state == .alive, sources.contains(.beacon), let heard else { return nil }
        let silent = max(heard, floor) + interval * 3 / 2
        return linkHeard.map { max(silent, $0 + interval * 5 / 2) } ?? silent
    }

    /// From here on the suspect is dead. Just under three intervals after the last sign of life, so that a
    /// node killed right behind a beacon is gone within three. A node that never sent a beacon and that a
    /// source vouches for does not die of silence.
    func deathAt(notBefore floor: Instant) -> Instant? {
        guard state == .suspect, sources.contains(.beacon) || !isVouched else { return nil }
        return max(heard ?? since, floor) + interval * 29 / 10
    }

    /// When a vouched node that never sent a beacon is given another try: nothing else would refute.
    var retryAt: Instant? {
        guard state == .suspect, isVouched, !sources.contains(.beacon) else { return nil }
        return since + max(.seconds(2), interval * 2)
    }

    /// When a node that is gone is forgotten.
    func forgottenAt(after kept: Duration) -> Instant? {
        !isPresent && !isVouched ? since + kept : nil
    }

    /// The way of nearly all beacons: nothing is new but that the node lives. False: look closer.
    mutating func refresh(_ beacon: Beacon, now: Instant) -> Bool {
        guard state == .alive, !unreachable, sources.contains(.beacon),
            record.identity.incarnation == beacon.sender.incarnation, record.version == beacon.recordVersion
        else { return false }
        heard = now
        interval = beacon.interval
        return true
    }

    init(record: NodeRecord, sources: RecordSources, interval: Duration, now: Instant) {
        self.record = record
        self.sources = sources
        self.interval = interval
        known = now
        since = now
    }
}
