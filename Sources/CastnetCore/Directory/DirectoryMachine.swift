/// Who serves what, where: one machine judging what every source tells.
///
/// It is fed with the own record, beacons, static entries, records of discovery sources and facts from
/// links; it answers with datagrams to send and with changes to act on. Confined to its driver; it holds at
/// most `membersMax` records, 64 half-assembled ones and 1,024 wants.
package struct DirectoryMachine: ~Copyable {
    package struct Rules: Hashable, Sendable {
        /// False: nothing is ever sent.
        package var beacons = true
        /// The time between two beacons of one node in a small group.
        package var interval: Duration = .seconds(1)
        /// Where tables are compared over links; empty: they are not.
        package var seeds: [HostPort] = []
        package var membersMax = 16_384
        /// What all nodes' digests together may come to; a larger group has a longer interval.
        package var packetsPerSecond = 400
        /// How long a node that is gone is still shown.
        package var goneKept: Duration = .seconds(60)

        package init() {}
    }

    enum Phase: Hashable {
        /// Only the own record changes. May become running.
        case created
        /// May become stopping, or stopped where there are no beacons.
        case running
        /// The first goodbye is sent, so many are due. May become stopped.
        case stopping(next: Instant, left: Int)
        /// Nothing happens any more.
        case stopped
    }

    /// Whether own beacons come back: if they do not, silence of the others proves nothing.
    struct Echo {
        /// Sends, at least ``pause`` apart, since the last echo.
        var missing = 0
        var counted: Instant?
        var isSilent = false
        /// When the source came back: nobody is measured by a silence before it.
        var backAt = Instant(nanoseconds: .min)
        static let pause: Duration = .milliseconds(100)
    }

    /// Whether any other node's beacons come, while other nodes are known to live.
    struct Hearing {
        var heardAt: Instant?
        var isSilent = false
    }

    let rules: Rules
    let cluster: UInt64
    /// The own record, as announced.
    package internal(set) var own: NodeRecord
    var entries = NodeTable()
    /// Entries in state alive or suspect.
    var presentCount = 0
    /// Entries in state suspect.
    var suspectCount = 0
    var index = MemberIndex()
    var schedule = BeaconSchedule()
    var wants = RecordWants()
    var assembler = BeaconAssembler()
    var telling = TableTelling()
    var exchange = TableExchange()
    var traffic = Traffic()
    /// Of digests only.
    var digests = Traffic()
    var heads: [Beacon.Head] = []
    var echo = Echo()
    var hearing = Hearing()
    var phase = Phase.created
    var startedAt = Instant(nanoseconds: .max)
    var ownRival: DirectoryEntry.Rival?
    /// When an entry or a half-assembled record may need something; not later than that.
    var lookAt: Instant?
    var questions = LifeQuestions()
    var isLimitTold = false
    var generator: SeededGenerator
    package internal(set) var counters = CounterSet()

    package init(
        own: NodeRecord, staticEntries: [DirectorySettings.StaticEntry] = [], rules: Rules = Rules(),
        seed: UInt64, now: Instant
    ) {
        self.rules = rules
        self.own = own
        cluster = Beacon.digest(ofCluster: own.cluster)
        generator = SeededGenerator(seed: seed)
        insert(DirectoryEntry(record: own, sources: .own, interval: rules.interval, now: now))
        // One file serves a fleet: the entry that names this node is not a peer.
        for entry in staticEntries where entry.node != own.identity.name {
            let services = entry.topics.map { NodeRecord.Service(topic: $0, server: entry.node) }
            addBase(entry.node, entry.address, services, now: now)
        }
    }

    private mutating func addBase(
        _ name: String, _ address: HostPort, _ services: [NodeRecord.Service], now: Instant
    ) {
        var record =
            entries[name]?.base
            ?? NodeRecord(
                identity: NodeIdentity(name: name, incarnation: Incarnation(0)), version: 0,
                cluster: own.cluster)
        if let known = entries[name] { index.remove(known.record) }
        if !record.addresses.contains(address) { record.addresses.append(address) }
        record.services += services.filter { !record.services.contains($0) }
        var entry =
            entries[name]
            ?? DirectoryEntry(record: record, sources: .fixed, interval: rules.interval, now: now)
        if entries[name] == nil { presentCount += 1 }
        (entry.base, entry.record) = (record, record)
        entries[name] = entry
        index.insert(record)
    }

    // MARK: Views

    /// Members that calls and casts on `topic` may go to, ordered by node and server name.
    package mutating func members(serving topic: Topic, includingOwn: Bool = true) -> [Member] {
        let view = index.serving(topic, entries: entries, own: own.identity.name)
        return includingOwn ? view.all : view.others
    }

    /// Members a fanout on `topic` goes to, each once, ordered by node name.
    package mutating func members(hearing topic: Topic, includingOwn: Bool = true) -> [Member] {
        let view = index.hearing(topic, entries: entries, own: own.identity.name)
        return includingOwn ? view.all : view.others
    }

    /// True while own beacons do not come back.
    package var isSilent: Bool { echo.isSilent }

    /// Grows whenever a view may have changed: receipts name it, callers cache by it.
    package var viewVersion: UInt64 { index.version }

    /// The record in force of the node called `name`, unless it is gone.
    package func record(of name: String) -> NodeRecord? {
        guard let entry = entries[name], entry.isPresent else { return nil }
        return entry.record
    }

    /// How many nodes, the own one included, are alive or suspect: what the pace follows.
    package var presentNodes: Int { presentCount }

    /// Every known node, the own one included, ordered by name.
    package func nodes(now: Instant) -> [DirectoryNode] {
        entries.entries.map { entry in
            DirectoryNode(
                record: entry.record, state: entry.state, age: now - entry.known,
                heard: entry.heard.map { now - $0 }, sources: entry.sources,
                discoverers: entry.discoverers,
                unreachable: entry.unreachable, links: entry.links)
        }.sorted { $0.record.identity.name < $1.record.identity.name }
    }

    // MARK: The own node

    /// Begins to announce and to ask.
    package mutating func start(now: Instant) -> [DirectoryAction] {
        guard phase == .created else { return [] }
        (phase, startedAt) = (.running, now)
        exchangeSoon(now: now)
        guard rules.beacons else { return [] }
        schedule.replace(own.beaconBodies())
        announce(from: now, within: .milliseconds(10))
        schedule.digestAt = now + nextPause()
        schedule.joinRounds = [
            .zero, .milliseconds(90), .milliseconds(190), .milliseconds(310), .milliseconds(440),
        ]
        .map { now + $0 + jitter(.milliseconds(10)) }
        return tick(now: now)
    }

    /// Takes over what the node now says of itself (identity and version are the machine's); the group hears
    /// of it within 10 ms, of a burst of changes at most 20 times a second.
    package mutating func updateOwn(_ record: NodeRecord, now: Instant) -> [DirectoryAction] {
        var next = record
        (next.identity, next.version, next.cluster) = (own.identity, own.version, own.cluster)
        guard next != own else { return [] }
        if let fault = next.beaconFault { return [.changed(.ownRecordUnfit(fault))] }
        next.version = own.version &+ 1
        let haveChannelsChanged = next.channels != own.channels
        index.remove(own)
        index.insert(next)
        own = next
        entries[own.identity.name]?.record = next
        var actions: [DirectoryAction] = []
        if haveChannelsChanged {
            for entry in entries.entries { compareChannels(entry.identity.name, &actions) }
        }
        if phase == .running { exchangeSoon(now: now) }
        guard phase == .running, rules.beacons else { return actions }
        schedule.replace(own.beaconBodies())
        let gap = schedule.lastFull.map { $0 + traffic.stretched(.milliseconds(50), now: now) } ?? now
        announce(from: max(now, gap), within: .milliseconds(5))
        return actions
    }

    /// Where the own streams stand: the next digests say it.
    package mutating func setHeads(_ heads: [Beacon.Head]) { self.heads = heads }

    private static let goodbyePause = Duration.milliseconds(20)

    /// Says goodbye, three times, because datagrams get lost. ``DirectoryAction/stopped`` follows.
    package mutating func stop(now: Instant) -> [DirectoryAction] {
        switch phase {
        case .created:
            phase = .stopped
            return [.stopped]
        case .running where rules.beacons:
            let told = tellOfLeaving()
            phase = .stopping(next: now + Self.goodbyePause, left: 2)
            schedule.clear()
            return told + [.send(beacon(.goodbye))]
        case .running:
            let told = tellOfLeaving()
            phase = .stopped
            return told + [.stopped]
        case .stopping, .stopped:
            return []
        }
    }

    // MARK: Time

    package var nextDeadline: Instant? {
        switch phase {
        case .created, .stopped: nil
        case .stopping(let next, _): next
        case .running:
            earliest(
                earliest(
                    earliest(schedule.nextDeadline, lookAt), earliest(exchange.at, questions.nextDeadline)),
                earliest(wants.nextDeadline.map { max($0, telling.episode?.end ?? $0) }, telling.nextDeadline)
            )
        }
    }

    /// Does what is due; called at ``nextDeadline`` or at any other time.
    package mutating func tick(now: Instant) -> [DirectoryAction] {
        var actions: [DirectoryAction] = []
        if case .stopping(let next, let left) = phase, next <= now {
            phase = left > 1 ? .stopping(next: now + Self.goodbyePause, left: left - 1) : .stopped
            return [.send(beacon(.goodbye))] + (left > 1 ? [] : [.stopped])
        }
        guard phase == .running else { return [] }
        expire(now: now, &actions)
        exchange(now: now, &actions)
        guard rules.beacons else { return actions }
        let (parts, answered) = schedule.dueParts(now: now, stretch: traffic.stretch(now: now))
        if answered { counters.add(.beaconAnswers) }
        for part in parts { send(part, now: now, &actions) }
        if schedule.lifeAt.map({ $0 <= now }) == true || schedule.digestAt.map({ $0 <= now }) == true {
            (schedule.lifeAt, schedule.lastDigest) = (nil, now)
            send(.digest(heads), now: now, &actions)
        }
        if schedule.joinRoundDue(now: now) { askEveryone(now: now, &actions) }
        if telling.quietUntil(now: now) == nil {
            let wanted = wants.due(now: now, gather: wantsWindow, pause: wantsWindow * 8)
            if !wanted.isEmpty { ask(.records(wanted), now: now, &actions) }
        }
        let suspects = dueQuestions(now: now)
        if !suspects.isEmpty { ask(.life(suspects), now: now, &actions) }
        tell(now: now, &actions)
        return actions
    }

    /// Asks for every record this node does not have. Once it knows more nodes than one request can name, it
    /// asks for the table of all, if it still hears many strangers.
    private mutating func askEveryone(now: Instant, _ actions: inout [DirectoryAction]) {
        let known = entries.entries.lazy.filter {
            $0.sources.contains(.beacon) && $0.isPresent && $0.record.version > 0
        }
        guard known.prefix(BeaconFormat.requestEntriesMax + 1).count <= BeaconFormat.requestEntriesMax else {
            schedule.joinRounds = []
            if telling.isWanted { ask(.everyone(except: []), now: now, &actions) }
            telling.isWanted = false
            return
        }
        telling.isWanted = false
        let digests = known.map { Beacon.digest(of: $0.identity, version: $0.record.version) }
        ask(.everyone(except: digests.sorted()), now: now, &actions)
    }

    private mutating func ask(
        _ request: Beacon.Request, now: Instant, _ actions: inout [DirectoryAction]
    ) {
        counters.add(.beaconRequests)
        send(.request(request), now: now, &actions)
    }

    /// Every datagram is also a sign of life, so it moves the next digest.
    mutating func send(_ body: Beacon.Body, now: Instant, _ actions: inout [DirectoryAction]) {
        schedule.digestAt = now + nextPause()
        schedule.told = interval
        actions.append(.send(beacon(body)))
        guard echo.counted.map({ now - $0 >= Echo.pause }) ?? true else { return }
        echo.counted = now
        echo.missing += 1
        if echo.missing > 1, !echo.isSilent {
            echo.isSilent = true
            actions.append(.changed(.beaconsSilent))
        }
    }

    func beacon(_ body: Beacon.Body) -> Beacon {
        Beacon(
            cluster: cluster, sender: own.identity, recordVersion: own.version, interval: interval, body: body
        )
    }

    // MARK: Pace

    /// How much more slowly a large group does everything: 1 up to 400 nodes.
    var crowd: Double { max(1, Double(presentCount) / Double(max(1, rules.packetsPerSecond))) }

    /// The own interval, scaled to the group.
    package var interval: Duration {
        let scaled = Double(presentCount) / Double(max(1, rules.packetsPerSecond)) * 1e9
        // Word of mouth takes its time.
        let least = exchanges && !rules.beacons ? rules.interval * 2 : rules.interval
        return max(least, Duration(nanoseconds: Int64(min(scaled, 1e18))))
    }

    /// The time in which all nodes of the group answer one question.
    var answerWindow: Duration {
        max(
            .milliseconds(10),
            Self.scaled(.seconds(1), Double(presentCount) / Double(max(1, rules.packetsPerSecond))))
    }

    static func scaled(_ duration: Duration, _ factor: Double) -> Duration {
        Duration(nanoseconds: Int64(min(Double(duration.nanoseconds) * factor, 1e18)))
    }

    func stretched(_ duration: Duration) -> Duration { Self.scaled(duration, crowd) }

    /// In which somebody asks for a record that was missed; in a large group long against a datagram's way.
    var wantsWindow: Duration { isCrowd ? .seconds(1) : .milliseconds(15) }

    /// A random time up to `window` for something that all nodes mean to do and one has to: few times are
    /// early, so that whoever comes first is heard before the next.
    mutating func turn(in window: Duration) -> Duration {
        Duration(nanoseconds: turn(in: window.nanoseconds))
    }

    /// So many slots has every turn's window: the first is for one node or two, each for twice as many.
    var turnSlots: Int64 { Int64(Int.bitWidth - max(2, presentCount).leadingZeroBitCount + 1) }

    /// The same, in nanoseconds.
    mutating func turn(in window: Int64) -> Int64 {
        let slots = turnSlots
        let slot = max(0, slots - 1 - Int64(generator.next().trailingZeroBitCount))
        let width = window / slots
        return width * slot + Int64(generator.next() % UInt64(max(1, width)))
    }

    /// A random time up to `duration`.
    mutating func jitter(_ duration: Duration) -> Duration { generator.jitter(duration, in: 0...1) }

    /// Until the next digest: never more than the announced interval. While a group shrinks or grows all
    /// change their paces at once, which would bring many together: they are scattered anew.
    private mutating func nextPause() -> Duration {
        let isNew = schedule.told.map { abs($0 / interval - 1) > 0.05 } ?? false
        return generator.jitter(interval, in: isNew ? 0.45...0.90 : 0.86...0.90)
    }

    private mutating func announce(from start: Instant, within: Duration) {
        let first = start + jitter(within)
        let pauses: [(Duration, Duration)] = [
            (.milliseconds(50), .milliseconds(30)), (.milliseconds(130), .milliseconds(50)),
            (.milliseconds(280), .milliseconds(60)),
        ]
        let repeats = pauses.map { first + $0.0 + jitter($0.1) }
        schedule.announce(at: first, repeats: repeats)
    }
}
