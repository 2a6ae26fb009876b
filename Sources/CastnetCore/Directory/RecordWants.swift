/// Records of other nodes this node must ask for: a digest named a version it does not have.
///
/// Every node of a group may miss the same record at once. So each waits a random time, and whoever sees
/// the question asked by another waits for that answer first.
struct RecordWants: Sendable {
    static let wantsMax = 1024
    static let attemptsMax = 4

    private struct Want: Sendable {
        var name: String
        var incarnation: Incarnation
        var version: UInt64
        var dueAt: Instant
        var attempts = 0
    }
    /// By the digest of the name, as requests carry it.
    private var wants: [UInt64: Want] = [:]
    /// Not later than the first want's time; exact after every ``due(now:pause:)``.
    private var firstDue: Instant?
    /// Questions are gathered: two requests are at least this far apart, whatever is heard meanwhile.
    static let requestPause: Duration = .milliseconds(20)
    private var notBefore = Instant(nanoseconds: .min)

    var nextDeadline: Instant? { firstDue.map { max($0, notBefore) } }

    var isEmpty: Bool { wants.isEmpty }

    /// False when there is no room for another want.
    mutating func add(_ identity: NodeIdentity, version: UInt64, at due: Instant) -> Bool {
        let key = Beacon.digest(ofName: identity.name)
        if let want = wants[key], (want.incarnation, want.version) >= (identity.incarnation, version) {
            return true
        }
        guard wants[key] != nil || wants.count < Self.wantsMax else { return false }
        wants[key] = Want(
            name: identity.name, incarnation: identity.incarnation, version: version, dueAt: due)
        firstDue = earliest(firstDue, due)
        return true
    }

    /// The record came, in this version.
    mutating func satisfied(_ identity: NodeIdentity, version: UInt64) {
        guard !wants.isEmpty else { return }
        let key = Beacon.digest(ofName: identity.name)
        guard let want = wants[key], (want.incarnation, want.version) <= (identity.incarnation, version)
        else {
            return
        }
        wants[key] = nil
    }

    mutating func forget(_ name: String) { wants[Beacon.digest(ofName: name)] = nil }

    /// Somebody else asks for these: their answers serve this node too.
    mutating func postpone(_ keys: [UInt64], to instant: Instant) {
        for key in keys where (wants[key]?.dueAt ?? instant) < instant { wants[key]?.dueAt = instant }
    }

    /// What to ask for now, and what is due within `gather`: one question does for all; each is asked again
    /// after `pause` until its attempts are used up.
    mutating func due(now: Instant, gather: Duration, pause: Duration) -> [UInt64] {
        guard let next = nextDeadline, next <= now else { return [] }
        var keys: [UInt64] = []
        for (key, want) in wants
        where want.dueAt <= now + gather && keys.count < BeaconFormat.requestEntriesMax {
            if want.attempts >= Self.attemptsMax {
                wants[key] = nil
                continue
            }
            keys.append(key)
            wants[key]?.attempts += 1
            wants[key]?.dueAt = now + pause * (want.attempts + 1)
        }
        firstDue = wants.values.lazy.map(\.dueAt).min()
        if !keys.isEmpty { notBefore = now + Self.requestPause }
        return keys.sorted()
    }
}
