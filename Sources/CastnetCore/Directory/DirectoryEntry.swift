/// What the directory keeps of one name: half a hundred bytes, and a box for what few of them ever need.
@dynamicMemberLookup
struct DirectoryEntry: Sendable {
    /// The record in force: the node's own word where it was heard, else what static sources say.
    var record: NodeRecord {
        didSet { life.stamp = Beacon.digest(of: record.identity, version: record.version) }
    }
    /// What is asked of thousands at a time.
    var life: Life
    /// When the name was first known.
    var known: Instant
    private var rare: Shared<Rare>? {
        didSet { life.isPlain = rare == nil }
    }

    /// Of the name.
    var digest: UInt64 { Beacon.digest(ofName: record.identity.name) }

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

    subscript<Value>(dynamicMember field: WritableKeyPath<Life, Value>) -> Value {
        @inline(__always) get { life[keyPath: field] }
        @inline(__always) set { life[keyPath: field] = newValue }
    }

    subscript<Value>(dynamicMember field: KeyPath<Life, Value>) -> Value {
        @inline(__always) get { life[keyPath: field] }
    }

    /// An older incarnation of the name that is still heard.
    struct Rival: Hashable, Sendable {
        var incarnation: Incarnation
        var address: HostPort?
        var firstHeard: Instant
        var reported = false
    }

    var identity: NodeIdentity { record.identity }

    /// When it needs something next. A link that lives may be quieter than beacons are, so it is trusted for
    /// longer.
    func next(_ times: Times) -> Instant? {
        let next = life.next(times)
        guard !life.isPlain, life.state == .alive, let silent = next, let linked = self.linkHeard else {
            return next
        }
        return max(silent, life.after(250, since: linked))
    }

    init(record: NodeRecord, sources: RecordSources, interval: Duration, now: Instant) {
        self.record = record
        life = Life(
            stamp: Beacon.digest(of: record.identity, version: record.version), sources: sources, since: now)
        known = now
        life.interval = interval
    }
}
