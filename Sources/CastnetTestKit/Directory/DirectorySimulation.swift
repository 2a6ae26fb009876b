package import CastnetCore

/// Thousands of directory machines on one multicast group, in virtual time.
///
/// Time goes in ticks: what was sent in one arrives in the next, at every node on the same side of a cut, but
/// for what is lost; a sender hears itself. Everything follows from the seed, whatever the processors do: who
/// loses what is computed from the datagram and the node, and what was sent is put in the senders' order.
package final class DirectorySimulation {
    package struct Settings: Sendable {
        package var nodes = 1000
        package var topics = 3
        /// Topics of others that each node calls.
        package var used = 2
        package var loss = 0.01
        /// The time between two ticks: what is sent takes one to two of them.
        package var tick: Duration = .milliseconds(5)
        package var seed: UInt64 = 1
        /// A node that is gone is forgotten after so long, or four intervals.
        package var goneKept: Duration = .seconds(60)
        package init() {}
    }

    /// A datagram on its way, and from whom.
    struct Datagram: Sendable {
        var from: Int
        var beacon: Beacon
        var source: HostPort
    }

    package let settings: Settings
    package private(set) var now = Instant(nanoseconds: 1_000_000_000)
    /// All that was sent, and by second of virtual time.
    package private(set) var packets = 0
    package private(set) var packetsByKind: [String: Int] = [:]
    package private(set) var packetsBySecond: [Int: [String: Int]] = [:]
    private let shards: [DirectoryShard]
    private var count = 0
    private var flying: [Datagram] = []
    /// Until then a digest may be news to somebody.
    private var unsettledUntil = Instant(nanoseconds: .min)

    /// Runs so many pieces of work, each once, at the same time if it can.
    private let concurrently: (Int, @Sendable (Int) -> Void) -> Void

    package init(
        _ settings: Settings, processors: Int = 1,
        concurrently: @escaping (Int, @Sendable (Int) -> Void) -> Void = { count, work in
            for index in 0..<count { work(index) }
        }
    ) {
        self.settings = settings
        self.concurrently = concurrently
        shards = (0..<max(1, processors)).map { DirectoryShard(settings, index: $0, of: processors) }
    }

    // MARK: What happens

    /// Starts one more node; the answer is its number.
    @discardableResult package func start() -> Int {
        let number = count
        count += 1
        unsettle()
        shard(of: number).start(number, now: now)
        return number
    }

    /// Starts so many nodes, the first ones, over one interval. Each is told a table of all, as by a seed,
    /// when it starts and when all run; until then it hears none of the others.
    package func startAcquainted(_ number: Int) {
        let pace = Duration.seconds(1) * number / DirectoryMachine.Rules().packetsPerSecond
        let interval = max(.seconds(1), pace)
        let table = (0..<number).map {
            Beacon.Told(record: shards[0].record(of: $0), interval: interval, age: .zero)
        }
        for shard in shards { shard.isApart = true }
        let began = now
        while count < number {
            let due = Int((now - began) / interval * Double(number)) + 1
            let (shards, instant, some) = (shards, now, count..<min(due, number))
            concurrently(shards.count) { shards[$0].start(some, told: table, now: instant) }
            count = some.upperBound
            run(settings.tick * 10)
        }
        let (all, instant) = (shards, now)
        concurrently(all.count) { all[$0].tell(table, now: instant) }
        for shard in shards { shard.isApart = false }
        unsettle()
    }

    /// The node vanishes without a word.
    package func crash(_ number: Int) { shard(of: number).crash(number) }

    /// The node says goodbye.
    package func stop(_ number: Int) { shard(of: number).stop(number, now: now) }

    /// Nodes with smaller numbers and the others no longer hear each other; nil: all do.
    package func cut(below number: Int?) {
        readAll()
        unsettle()
        for shard in shards { shard.cut = number }
    }

    /// Events about this node are noted, too.
    package func watch(_ number: Int) { for shard in shards { shard.watch(number) } }

    /// No node's events are noted any more, and what was noted is forgotten.
    package func watch() { for shard in shards { shard.watch() } }

    // MARK: Time

    /// Lets virtual time pass.
    package func run(_ duration: Duration) {
        let end = now + duration
        while now < end {
            now = now + settings.tick
            tick()
        }
        readAll()
    }

    /// Lets virtual time pass until `condition` holds, looked at every so often; true when it held.
    @discardableResult package func run(
        _ duration: Duration, lookingEvery pause: Duration = .milliseconds(100), until condition: () -> Bool
    ) -> Bool {
        let end = now + duration
        while !condition() {
            if now >= end { return false }
            run(min(pause, end - now))
        }
        return true
    }

    private func unsettle() { unsettledUntil = now + .seconds(10) }

    private func readAll() {
        let (shards, instant) = (shards, now)
        concurrently(shards.count) { shards[$0].readAll(now: instant) }
    }

    private func tick() {
        let arrived = flying
        let instant = now
        if arrived.isEmpty, shards.allSatisfy({ $0.isQuiet(at: instant) }) { return }
        let shards = shards
        let isRoutine = arrived.allSatisfy(\.beacon.body.isRoutine)
        let patience: Duration = unsettledUntil <= now ? .seconds(1) : .milliseconds(50)
        concurrently(shards.count) {
            shards[$0].step(arrived, isRoutine: isRoutine, patience: patience, now: instant)
        }
        flying = shards.flatMap { $0.takeOutbox() }.sorted { $0.from < $1.from }
        packets += flying.count
        let second = Int(now.nanoseconds / 1_000_000_000)
        for datagram in flying {
            packetsByKind[datagram.beacon.body.label, default: 0] += 1
            packetsBySecond[second, default: [:]][datagram.beacon.body.label, default: 0] += 1
        }
    }

    // MARK: What is seen

    /// After how long the other nodes saw the watched one's event, in order; one figure a node.
    package func delays(since: Instant) -> [Duration] {
        shards.flatMap(\.seen).map { $0 - since }.sorted()
    }

    /// How many nodes run and know exactly `present` nodes.
    package func agreeing(on present: Int) -> Int {
        shards.reduce(0) { $0 + $1.agreeing(on: present) }
    }

    package var running: Int { shards.reduce(0) { $0 + $1.running } }

    /// Of all nodes together.
    package func count(_ counter: Counter) -> UInt64 {
        shards.reduce(0) { $0 + $1.count(counter) }
    }

    /// The interval the first running node announces.
    package var interval: Duration { shards.compactMap(\.interval).first ?? .zero }

    /// Nodes that use the topic of `number`, without it in their view.
    package func callersWithout(_ number: Int) -> Int {
        shards.reduce(0) { $0 + $1.callersWithout(number) }
    }

    private func shard(of number: Int) -> DirectoryShard { shards[number % shards.count] }
}

extension Beacon.Body {
    /// True for what changes nothing that others would notice, but at those whom a question names.
    fileprivate var isRoutine: Bool {
        switch self {
        case .digest, .request(.life): true
        case .record, .part, .request, .table, .goodbye: false
        }
    }

    fileprivate var label: String {
        switch self {
        case .digest: "digests"
        case .record, .part: "records"
        case .request(.everyone): "questions for all"
        case .request(.records), .request(.table): "questions for records"
        case .request(.life): "questions for life"
        case .goodbye: "goodbyes"
        case .table: "tables"
        }
    }
}
