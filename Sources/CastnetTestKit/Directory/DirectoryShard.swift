import CastnetCore

/// The simulated nodes of one processor.
///
/// Between two steps it belongs to the simulation's thread, during a step to one worker thread, which makes
/// it sendable.
final class DirectoryShard: @unchecked Sendable {
    private final class Node {
        let number: Int
        let address: HostPort
        var machine: DirectoryMachine
        init(_ number: Int, _ address: HostPort, _ machine: consuming DirectoryMachine) {
            (self.number, self.address) = (number, address)
            self.machine = machine
        }
    }

    private struct Arrival {
        var datagram: DirectorySimulation.Datagram
        /// Among those of the same tick.
        var order: Int
        var at: Instant
        var repetition: Beacon.Repetition?
    }

    /// What reaches a node, and what of that only repeats; as positions in the backlog.
    private struct Reading {
        var reaching: [Int] = []
        var repeating: [Int] = []
        var repetitions: [Beacon.Repetition] = []
        /// Of what repeats, what is to be looked at closer.
        var rest: [Int] = []
        var scratch = BatchScratch()

        mutating func clear() {
            reaching.removeAll(keepingCapacity: true)
            repeating.removeAll(keepingCapacity: true)
            repetitions.removeAll(keepingCapacity: true)
            rest.removeAll(keepingCapacity: true)
        }
    }

    private let settings: DirectorySimulation.Settings
    private let index: Int
    private let stride: Int
    /// By number, those of this shard only; nil: it is gone.
    private var nodes: [Node?] = []
    private var deadlines: [Instant] = []
    /// By the digest of the name.
    private var slots: [UInt64: Int] = [:]
    /// What has arrived and has not been read by every node, and how much of it each has read.
    private var backlog: [Arrival] = []
    private var read: [Int] = []
    /// Memory for one node at a time.
    private var reading = Reading()
    private var outbox: [DirectorySimulation.Datagram] = []
    private var watched: Set<String> = []
    private(set) var seen: [Instant] = []
    var cut: Int?
    /// Nobody hears any other.
    var isApart = false
    private static let never = Instant(nanoseconds: .max)

    init(_ settings: DirectorySimulation.Settings, index: Int, of stride: Int) {
        (self.settings, self.index, self.stride) = (settings, index, stride)
    }

    // MARK: Nodes

    /// So many nodes share a topic.
    private static let sharing = 10

    static func name(_ number: Int) -> String { "node-\(number)" }

    private func topics(_ number: Int) -> [Topic] {
        (0..<settings.topics).map { Topic(unchecked: "work.\(number / Self.sharing).\($0)") }
    }

    /// What a node calls: topics of others far away.
    private func used(by number: Int) -> [Topic] {
        (1...max(1, settings.used)).map { step in
            let other = (number + step * settings.nodes / (settings.used + 1)) % settings.nodes
            return Topic(unchecked: "work.\(other / Self.sharing).0")
        }
    }

    func record(of number: Int) -> NodeRecord {
        let name = Self.name(number)
        let address = HostPort(host: "10.\(number >> 16).\(number >> 8 & 255).\(number & 255)", port: 7400)
        return NodeRecord(
            identity: NodeIdentity(name: name, incarnation: Incarnation(1)), addresses: [address],
            services: topics(number).map { .init(topic: $0, server: name) })
    }

    /// Starts those of these nodes that are of this shard; each is told the table.
    func start(_ numbers: Range<Int>, told table: [Beacon.Told], now: Instant) {
        for number in numbers where number % stride == index {
            start(number, now: now)
            tell(nodes.count - 1, table, now: now)
        }
    }

    func tell(_ table: [Beacon.Told], now: Instant) {
        for slot in nodes.indices { tell(slot, table, now: now) }
    }

    /// Another node tells it the table over a link.
    private func tell(_ slot: Int, _ table: [Beacon.Told], now: Instant) {
        guard let node = nodes[slot] else { return }
        let teller = table[node.number == 0 ? table.count - 1 : 0]
        let word = Beacon(
            cluster: Beacon.digest(ofCluster: teller.record.cluster), sender: teller.record.identity,
            recordVersion: teller.record.version, interval: teller.interval, body: .table(table))
        let actions = node.machine.exchanged(word, with: teller.record.identity, now: now)
        perform(slot, node, actions, now: now)
    }

    func start(_ number: Int, now: Instant) {
        let record = record(of: number)
        let address = record.addresses[0]
        var rules = DirectoryMachine.Rules()
        rules.goneKept = settings.goneKept
        rules.membersMax = settings.nodes * 2
        let node = Node(
            number, address,
            DirectoryMachine(
                own: record, rules: rules, seed: settings.seed &* 1_000_003 &+ UInt64(number), now: now))
        for topic in used(by: number) { _ = node.machine.members(serving: topic) }
        nodes.append(node)
        slots[Beacon.digest(ofName: record.identity.name)] = nodes.count - 1
        deadlines.append(Self.never)
        read.append(backlog.count)
        perform(nodes.count - 1, node, node.machine.start(now: now), now: now)
    }

    func crash(_ number: Int) {
        nodes[number / stride] = nil
        deadlines[number / stride] = Self.never
    }

    func stop(_ number: Int, now: Instant) {
        guard let node = nodes[number / stride] else { return }
        perform(number / stride, node, node.machine.stop(now: now), now: now)
    }

    func watch(_ number: Int) { watched.insert(Self.name(number)) }

    func watch() { (watched, seen) = ([], []) }

    // MARK: Steps

    func isQuiet(at now: Instant) -> Bool { outbox.isEmpty && deadlines.allSatisfy { $0 > now } }

    /// Nodes whose time has come, or whom a question names, read all that has arrived before they act. The
    /// others, while there are only signs of life and questions for them, read some dozens at once, each as
    /// of the time when it came: their memory is looked up once for all of them. Until `patience` has passed,
    /// that is: a sign of life may be news.
    func step(
        _ arrived: [DirectorySimulation.Datagram], isRoutine: Bool, patience: Duration, now: Instant
    ) {
        for (order, datagram) in arrived.enumerated() {
            backlog.append(
                .init(
                    datagram: datagram, order: order, at: now, repetition: datagram.beacon.repetition(at: now)
                ))
        }
        guard isRoutine, backlog.count < Self.backlogMax,
            backlog.first.map({ now - $0.at < patience }) ?? true
        else {
            return readAll(now: now)
        }
        for datagram in arrived {
            guard case .request(.life(let names)) = datagram.beacon.body else { continue }
            for name in names { if let slot = slots[name] { step(slot, now: now) } }
        }
        for slot in nodes.indices where deadlines[slot] <= now { step(slot, now: now) }
    }

    private static let backlogMax = 128

    func readAll(now: Instant) {
        for slot in nodes.indices { step(slot, now: now) }
        backlog.removeAll(keepingCapacity: true)
        for slot in read.indices { read[slot] = 0 }
    }

    private func step(_ slot: Int, now: Instant) {
        guard let node = nodes[slot] else { return }
        read(slot, node, now: now)
        if let deadline = node.machine.nextDeadline, deadline <= now {
            perform(slot, node, node.machine.tick(now: now), now: now)
        }
        deadlines[slot] = node.machine.nextDeadline ?? Self.never
    }

    /// First all that only repeats, then what is more, each in the order in which it came.
    private func read(_ slot: Int, _ node: Node, now: Instant) {
        guard read[slot] < backlog.count else { return }
        // In local variables: nothing need be checked for each datagram.
        var reading = Reading()
        swap(&reading, &self.reading)
        reading.clear()
        let (backlog, way) = (backlog, way)
        for position in read[slot]..<backlog.count where way.reaches(backlog[position], node.number) {
            if let repetition = backlog[position].repetition {
                reading.repetitions.append(repetition)
                reading.repeating.append(position)
            } else {
                reading.reaching.append(position)
            }
        }
        read[slot] = backlog.count
        node.machine.received(reading.repetitions, &reading.scratch, rest: &reading.rest)
        if !reading.rest.isEmpty {
            for position in reading.rest { reading.reaching.append(reading.repeating[position]) }
            reading.reaching.sort()
        }
        for position in reading.reaching {
            let arrival = backlog[position]
            let actions = node.machine.received(
                arrival.datagram.beacon, from: arrival.datagram.source, now: arrival.at)
            if !actions.isEmpty { perform(slot, node, actions, now: now) }
        }
        swap(&reading, &self.reading)
    }

    private var way: Way {
        Way(
            seed: settings.seed &* 0x9E37_79B9_7F4A_7C15, lost: UInt64(settings.loss * 0x1p53), cut: cut,
            isApart: isApart)
    }

    /// Whom a datagram reaches.
    private struct Way {
        let seed: UInt64
        /// Of 2⁵³.
        let lost: UInt64
        let cut: Int?
        let isApart: Bool

        func reaches(_ arrival: Arrival, _ to: Int) -> Bool {
            let from = arrival.datagram.from
            if from == to { return true }
            if isApart { return false }
            if let cut, (from < cut) != (to < cut) { return false }
            guard lost > 0 else { return true }
            // SplitMix64 of the three: no state that another processor might have changed first.
            var mixed = UInt64(truncatingIfNeeded: arrival.at.nanoseconds) ^ seed
            mixed =
                (mixed ^ UInt64(arrival.order) << 48 ^ UInt64(from) << 24 ^ UInt64(to))
                &+ 0x9E37_79B9_7F4A_7C15
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return (mixed ^ (mixed >> 31)) >> 11 >= lost
        }
    }

    private func perform(_ slot: Int, _ node: Node, _ actions: [DirectoryAction], now: Instant) {
        for action in actions {
            switch action {
            case .send(let beacon):
                outbox.append(.init(from: node.number, beacon: beacon, source: node.address))
            case .changed(let event): note(event, now: now)
            case .exchange, .tell: break  // There are no links in this group.
            case .stopped: nodes[slot] = nil
            }
        }
        deadlines[slot] = nodes[slot]?.machine.nextDeadline ?? Self.never
    }

    private func note(_ event: DirectoryEvent, now: Instant) {
        guard !watched.isEmpty else { return }
        switch event {
        case .joined(let node) where watched.contains(node.name): seen.append(now)
        case .died(let node) where watched.contains(node.name): seen.append(now)
        case .left(let node) where watched.contains(node.name): seen.append(now)
        default: break
        }
    }

    func takeOutbox() -> [DirectorySimulation.Datagram] {
        defer { outbox.removeAll(keepingCapacity: true) }
        return outbox
    }

    // MARK: What is seen

    func agreeing(on present: Int) -> Int {
        nodes.count { $0.map { $0.machine.presentNodes == present } ?? false }
    }

    var running: Int { nodes.count { $0 != nil } }

    func count(_ counter: Counter) -> UInt64 {
        nodes.reduce(0) { $0 + ($1?.machine.counters[counter] ?? 0) }
    }

    var interval: Duration? { nodes.lazy.compactMap { $0?.machine.interval }.first }

    func callersWithout(_ number: Int) -> Int {
        let (topic, name) = (topics(number)[0], Self.name(number))
        return nodes.count { node in
            guard let node, node.number != number, used(by: node.number).contains(topic) else { return false }
            return !node.machine.members(serving: topic).contains { $0.identity.name == name }
        }
    }
}
