import CastnetCore
import NIOCore

/// Directory machines on one simulated multicast group: virtual time, seeded loss, a sender always hears
/// itself as it does through a kernel's loopback.
final class DirectoryGroup {
    final class Host {
        var machine: DirectoryMachine
        var isUp = true
        var events: [(at: Instant, event: DirectoryEvent)] = []
        init(_ machine: consuming DirectoryMachine) { self.machine = machine }
    }
    private struct Datagram {
        var at: Instant
        var from: Int
        var beacon: Beacon
        /// Over a link, and from whom.
        var to: Int?
        var peer: NodeIdentity?
    }

    let seed: UInt64
    var now = Instant(nanoseconds: 1_000_000_000)
    var hosts: [Host] = []
    var loss = 0.0
    var packets = 0
    var largest = 0
    /// Datagrams pass between hosts for which this holds (by index).
    var reaches: (Int, Int) -> Bool = { _, _ in true }
    /// Links can be had between hosts for which this holds.
    var areLinked: (Int, Int) -> Bool = { _, _ in true }
    /// Beacons said over links.
    var exchanged = 0
    var echoes = true
    private var generator: SeededGenerator
    private var flying: [Datagram] = []
    private var deadlines: [Instant?] = []

    init(seed: UInt64 = .random(in: 1...UInt64.max)) {
        self.seed = seed
        generator = SeededGenerator(seed: seed)
    }

    @discardableResult func add(
        _ name: String, incarnation: UInt64 = 1, services: [String] = [], subscriptions: [String] = [],
        channels: [NodeRecord.Channel] = [], port: UInt16 = 7400,
        staticEntries: [DirectorySettings.StaticEntry] = [], rules: DirectoryMachine.Rules = .init(),
        start: Bool = true
    ) -> Int {
        let record = NodeRecord(
            identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation)),
            addresses: [HostPort(host: "10.0.0.\(hosts.count % 250 + 1)", port: port)],
            services: services.map { .init(topic: Topic(unchecked: $0), server: name) },
            subscriptions: subscriptions.map { TopicPattern(unchecked: $0) }, channels: channels)
        hosts.append(
            Host(
                DirectoryMachine(
                    own: record, staticEntries: staticEntries, rules: rules, seed: generator.next(), now: now)
            ))
        deadlines.append(nil)
        let index = hosts.count - 1
        if start { act(index) { $0.start(now: $1) } }
        return index
    }

    /// Runs one input of a host's machine and carries out what it answers.
    func act(_ index: Int, _ body: (inout DirectoryMachine, Instant) -> [DirectoryAction]) {
        let host = hosts[index]
        guard host.isUp else { return }
        for action in body(&host.machine, now) {
            switch action {
            case .send(let beacon): send(beacon, from: index)
            case .exchange(.seed(let address), let words):
                if let to = hosts.firstIndex(where: { $0.isUp && $0.machine.own.addresses.contains(address) })
                {
                    say(words, from: index, to: to)
                }
            case .exchange(.node(let peer), let words), .tell(let peer, let words):
                if let to = hosts.firstIndex(where: { $0.isUp && $0.machine.own.identity == peer }) {
                    say(words, from: index, to: to)
                }
            case .changed(let event): host.events.append((now, event))
            case .stopped: host.isUp = false
            }
        }
        deadlines[index] = host.isUp ? host.machine.nextDeadline : nil
    }

    private func send(_ beacon: Beacon, from index: Int) {
        packets += 1
        flying.append(Datagram(at: now + .microseconds(200), from: index, beacon: beacon))
    }

    private func say(_ words: [Beacon], from index: Int, to: Int) {
        guard areLinked(index, to) else { return }
        exchanged += words.count
        let identity = hosts[index].machine.own.identity
        for word in words {
            flying.append(
                Datagram(at: now + .microseconds(200), from: index, beacon: word, to: to, peer: identity))
        }
    }

    func kill(_ index: Int) {
        hosts[index].isUp = false
        deadlines[index] = nil
    }

    /// Lets virtual time pass until `condition` holds or `duration` is over; true when it held.
    @discardableResult func run(_ duration: Duration, until condition: () -> Bool = { false }) -> Bool {
        let end = now + duration
        while true {
            if condition() { return true }
            let timer = deadlines.lazy.compactMap { $0 }.min()
            guard let next = earliest(timer, flying.first?.at), next <= end else {
                now = end
                return condition()
            }
            now = max(now, next)
            deliver()
            for index in hosts.indices where deadlines[index].map({ $0 <= now }) == true {
                act(index) { $0.tick(now: $1) }
            }
        }
    }

    private func deliver() {
        guard let count = flying.firstIndex(where: { $0.at > now }) ?? Optional(flying.count), count > 0
        else { return }
        let arrived = Array(flying.prefix(count))
        flying.removeFirst(count)
        for datagram in arrived {
            if let to = datagram.to, let peer = datagram.peer {
                act(to) { $0.exchanged(datagram.beacon, with: peer, now: $1) }
                continue
            }
            for index in hosts.indices where hosts[index].isUp {
                if index == datagram.from {
                    guard echoes else { continue }
                } else {
                    guard reaches(datagram.from, index) else { continue }
                    if loss > 0, Double.random(in: 0..<1, using: &generator) < loss { continue }
                }
                let source = HostPort(host: "10.0.0.\(datagram.from % 250 + 1)", port: 7401)
                act(index) { $0.received(datagram.beacon, from: source, now: $1) }
            }
        }
    }

    func serving(_ topic: String, at index: Int, includingOwn: Bool = false) -> [String] {
        hosts[index].machine.members(serving: Topic(unchecked: topic), includingOwn: includingOwn)
            .map(\.server)
    }

    func hearing(_ topic: String, at index: Int, includingOwn: Bool = true) -> [String] {
        hosts[index].machine.members(hearing: Topic(unchecked: topic), includingOwn: includingOwn)
            .map(\.identity.name)
    }

    func state(of name: String, at index: Int) -> NodeState? {
        hosts[index].machine.nodes(now: now).first { $0.record.identity.name == name }?.state
    }

    /// True when every running host serves-sees every other running one on `topic`.
    func isComplete(_ topic: String) -> Bool {
        let up = hosts.indices.filter { hosts[$0].isUp }
        return up.allSatisfy { serving(topic, at: $0).count == up.count - 1 }
    }

    func count(_ index: Int, _ matching: (DirectoryEvent) -> Bool) -> Int {
        hosts[index].events.count { matching($0.event) }
    }
}
