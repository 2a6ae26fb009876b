import CastnetCore
import NIOCore
import Testing

/// What nodes tell of others.
@Suite struct DirectoryTableTests {
    private let start = Instant(nanoseconds: 1_000_000_000_000)

    private func machine(beacons: Bool = true) -> DirectoryMachine {
        var rules = DirectoryMachine.Rules()
        rules.beacons = beacons
        var machine = DirectoryMachine(
            own: NodeRecord(identity: NodeIdentity(name: "own", incarnation: Incarnation(1))), rules: rules,
            seed: 1, now: start)
        _ = machine.start(now: start)
        return machine
    }

    private func record(_ name: String, _ incarnation: UInt64 = 1, version: UInt64 = 1) -> NodeRecord {
        NodeRecord(
            identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation)), version: version,
            services: [.init(topic: Topic(unchecked: "work"), server: name)])
    }

    private func beacon(_ sender: String, _ body: Beacon.Body, incarnation: UInt64 = 1) -> Beacon {
        Beacon(
            cluster: Beacon.digest(ofCluster: "default"),
            sender: NodeIdentity(name: sender, incarnation: Incarnation(incarnation)), recordVersion: 1,
            interval: .seconds(1), body: body)
    }

    private func told(_ record: NodeRecord, age: Duration) -> Beacon.Body {
        .table([.init(record: record, interval: .seconds(1), age: age)])
    }

    private func state(_ machine: borrowing DirectoryMachine, _ name: String, _ now: Instant) -> NodeState? {
        machine.nodes(now: now).first { $0.record.identity.name == name }?.state
    }

    @Test func `a node is known by hearsay, and dies of the age it was told with`() {
        // Own beacons do not come back here, and then nobody would be given up.
        var machine = machine(beacons: false)
        _ = machine.received(beacon("teller", told(record("far"), age: .seconds(2))), now: start)
        #expect(machine.members(serving: Topic(unchecked: "work")).map(\.server) == ["far"])
        var now = start
        while now < start + .milliseconds(1100) {
            now = now + .milliseconds(20)
            _ = machine.tick(now: now)
        }
        #expect(
            state(machine, "far", now) == .dead, "2.9 intervals after it was heard, not after it was told of")
    }

    /// A machine that hears 1,200 nodes every second, of which `quiet` is silent after the start.
    private func crowd(
        quiet: [String], until end: Duration, each body: (inout DirectoryMachine, Instant) -> Void
    )
        -> DirectoryMachine
    {
        var machine = machine()
        let names = (0..<1200).map { "node-\($0)" }
        var now = start
        while now < start + end {
            for name in names where now == start || !quiet.contains(name) {
                let body: Beacon.Body = now == start ? .record(record(name)) : .digest([])
                _ = machine.received(beacon(name, body), now: now)
            }
            for _ in 0..<50 {
                now = now + .milliseconds(20)
                for case .send(let own) in machine.tick(now: now) { _ = machine.received(own, now: now) }
                body(&machine, now)
            }
        }
        return machine
    }

    @Test func `in a large group a silence is measured by the group's interval`() {
        // It named one second, and would be dead after 2.9; the group's interval is three.
        let machine = crowd(quiet: ["node-7"], until: .seconds(8)) { _, _ in }
        #expect(state(machine, "node-7", start + .seconds(8)) == .alive)
        let later = crowd(quiet: ["node-7"], until: .seconds(10)) { _, _ in }
        #expect(state(later, "node-7", start + .seconds(10)) == .dead)
    }

    @Test func `a question about one suspect comes in time however much others ask`() {
        var asked: Instant?
        let seven = Beacon.digest(ofName: "node-7")
        var machine = crowd(quiet: ["node-7"], until: .seconds(8)) { _, _ in }
        var now = start + .seconds(8)
        while asked == nil, now < start + .seconds(9) {
            now = now + .milliseconds(20)
            if (now - start).nanoseconds % 100_000_000 == 0 {
                let others = Beacon.Body.request(.life([Beacon.digest(ofName: "node-8")]))
                _ = machine.received(beacon("node-9", others), now: now)
            }
            for case .send(let own) in machine.tick(now: now) {
                if case .request(.life(let names)) = own.body, names.contains(seven) { asked = now }
                _ = machine.received(own, now: now)
            }
        }
        #expect(asked != nil, "before it is given up")
    }

    @Test func `what is too old is not news`() {
        var machine = machine()
        _ = machine.received(beacon("teller", told(record("far"), age: .seconds(3))), now: start)
        #expect(state(machine, "far", start) == nil)
    }

    @Test func `nobody comes back by hearsay after a goodbye, but a newer incarnation does`() {
        var machine = machine()
        _ = machine.received(beacon("far", .record(record("far"))), now: start)
        _ = machine.received(beacon("far", .goodbye), now: start)
        _ = machine.received(beacon("teller", told(record("far"), age: .zero)), now: start)
        #expect(state(machine, "far", start) == .left)
        _ = machine.received(beacon("teller", told(record("far", 2), age: .zero)), now: start)
        #expect(state(machine, "far", start) == .alive)
        // An older one that is still told of changes nothing.
        _ = machine.received(beacon("teller", told(record("far"), age: .zero)), now: start)
        #expect(machine.record(of: "far")?.identity.incarnation == Incarnation(2))
    }

    @Test func `who cannot be reached from here stays suspect however well others hear it`() {
        var machine = machine()
        let far = record("far")
        _ = machine.received(beacon("far", .record(far)), now: start)
        _ = machine.dialFailed(far.identity, now: start)
        let later = start + .milliseconds(300)
        _ = machine.received(beacon("teller", told(far, age: .zero)), now: later)
        #expect(state(machine, "far", later) == .suspect)
        _ = machine.received(beacon("far", .digest([])), now: later)
        #expect(state(machine, "far", later) == .alive)
    }

    @Test func `nobody tells a node about itself`() {
        var machine = machine()
        _ = machine.received(beacon("teller", told(record("own", 9), age: .zero)), now: start)
        #expect(machine.own.identity.incarnation == Incarnation(1))
    }

    @Test func `a record too large for company is asked for`() {
        var machine = machine()
        let told = Beacon.Told(record: record("far"), isWhole: false, interval: .seconds(1), age: .zero)
        _ = machine.received(beacon("teller", .table([told])), now: start)
        #expect(state(machine, "far", start) == nil)
        var requests: [UInt64] = []
        for step in 1...20 {
            for action in machine.tick(now: start + .milliseconds(5 * Int64(step))) {
                if case .send(let sent) = action, case .request(.records(let names)) = sent.body {
                    requests += names
                }
            }
        }
        #expect(requests.contains(Beacon.digest(ofName: "far")))
    }

    @Test func `a hostile table is refused or harmless`() throws {
        var generator = SeededGenerator(seed: 11)
        var good = ByteBuffer()
        beacon("teller", told(record("far"), age: .zero)).encode(into: &good)
        var machine = machine()
        for _ in 0..<5000 {
            var bytes = Array(good.readableBytesView)
            for _ in 0...Int.random(in: 0..<4, using: &generator) {
                bytes[Int.random(in: 61..<bytes.count, using: &generator)] = .random(
                    in: 0...255, using: &generator)
            }
            let cut = Int.random(in: 61...bytes.count, using: &generator)
            if let beacon = try? Beacon(decoding: ByteBuffer(bytes: bytes.prefix(cut))) {
                _ = machine.received(beacon, now: start)
            }
        }
        #expect(machine.presentNodes < 5000)
    }
}
