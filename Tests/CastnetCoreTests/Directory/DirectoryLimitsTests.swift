import CastnetCore
import NIOCore
import Testing

/// Static entries, links, discovery sources, limits and large groups.
@Suite struct DirectoryLimitsTests {
    private func entry(_ name: String, _ topics: [String], port: UInt16 = 7400)
        -> DirectorySettings.StaticEntry
    {
        .init(
            node: name, address: HostPort(host: "10.9.9.9", port: port),
            topics: topics.map { Topic(unchecked: $0) })
    }

    @Test func `a static entry is a member at once, named by a hello and never expires`() {
        let group = DirectoryGroup()
        var rules = DirectoryMachine.Rules()
        rules.beacons = false
        let entries = [entry("server", ["work"]), entry("own", ["work"])]
        let own = group.add("own", staticEntries: entries, rules: rules)
        #expect(group.serving("work", at: own) == ["server"], "the entry with the own name is no peer")
        let identity = NodeIdentity(name: "server", incarnation: Incarnation(77))
        group.act(own) { $0.link(.opened(address: nil), peer: identity, now: $1) }
        let members = group.hosts[own].machine.members(serving: Topic(unchecked: "work"))
        #expect(members.map(\.identity) == [identity])
        #expect(members.first?.addresses == [HostPort(host: "10.9.9.9", port: 7400)])
        group.run(.seconds(600))
        #expect(group.serving("work", at: own) == ["server"])
        group.act(own) { $0.link(.lost, peer: identity, now: $1) }
        #expect(group.state(of: "server", at: own) == .suspect)
        #expect(group.serving("work", at: own) == ["server"], "nobody else serves it")
        group.run(.seconds(5))
        #expect(group.state(of: "server", at: own) == .alive, "given another try")
        #expect(group.packets == 0)
    }

    @Test func `calls avoid a server whose link broke while another one serves`() {
        let group = DirectoryGroup()
        group.add("caller")
        group.add("one", services: ["work"])
        let two = group.add("two", services: ["work"])
        group.run(.seconds(2))
        let identity = group.hosts[two].machine.own.identity
        group.kill(two)
        group.act(0) { $0.link(.opened(address: nil), peer: identity, now: $1) }
        group.act(0) { $0.link(.lost, peer: identity, now: $1) }
        #expect(group.serving("work", at: 0) == ["one"])
        #expect(group.hearing("work", at: 0) == ["one", "two"], "a fanout is owed until it is dead")
        group.run(.seconds(3))
        #expect(group.hearing("work", at: 0) == ["one"])
    }

    @Test func `a broken link to a living node is refuted by its answer`() {
        let group = DirectoryGroup()
        group.add("caller")
        group.add("one", services: ["work"])
        group.add("two", services: ["work"])
        group.run(.seconds(2))
        let identity = group.hosts[2].machine.own.identity
        group.act(0) { $0.dialFailed(identity, now: $1) }
        #expect(group.serving("work", at: 0) == ["one"])
        let back = group.run(.milliseconds(150)) { group.serving("work", at: 0) == ["one", "two"] }
        #expect(back, "seed \(group.seed)")
    }

    @Test func `a static entry that sends beacons is judged by them and remembered as last resort`() {
        let group = DirectoryGroup()
        group.add("caller", staticEntries: [entry("server", ["work", "old"])])
        let server = group.add("server", services: ["work"])
        group.run(.seconds(2))
        #expect(group.serving("old", at: 0).isEmpty, "its own word counts")
        group.kill(server)
        group.run(.seconds(3))
        #expect(group.state(of: "server", at: 0) == .dead)
        #expect(group.hearing("work", at: 0).isEmpty)
        #expect(group.serving("work", at: 0) == ["server"], "nobody else: it may be tried")
        group.add("server", incarnation: 2, services: ["work"])
        group.run(.milliseconds(200))
        #expect(group.state(of: "server", at: 0) == .alive)
    }

    @Test func `discovered nodes come and go with their source`() {
        let group = DirectoryGroup()
        let own = group.add("own")
        let record = NodeRecord(
            identity: NodeIdentity(name: "found", incarnation: Incarnation(3)),
            addresses: [HostPort(host: "10.1.1.1", port: 1)],
            services: [.init(topic: Topic(unchecked: "work"), server: "found")])
        group.act(own) { $0.discovered(record, source: 0, now: $1) }
        group.act(own) { $0.discovered(record, source: 1, now: $1) }
        #expect(group.serving("work", at: own) == ["found"])
        group.run(.seconds(100))
        group.act(own) { $0.withdrawn("found", source: 0, now: $1) }
        #expect(group.serving("work", at: own) == ["found"])
        group.act(own) { $0.withdrawn("found", source: 1, now: $1) }
        #expect(group.serving("work", at: own).isEmpty)
        #expect(group.state(of: "found", at: own) == .left)
    }

    @Test func `a node whose source lost sight of it comes back, one that said goodbye does not`() {
        let group = DirectoryGroup()
        let own = group.add("own")
        var record = NodeRecord(
            identity: NodeIdentity(name: "found", incarnation: Incarnation(3)),
            services: [.init(topic: Topic(unchecked: "work"), server: "found")])
        group.act(own) { $0.discovered(record, source: 0, now: $1) }
        for _ in 0..<3 {
            group.act(own) { $0.withdrawn("found", source: 0, now: $1) }
            #expect(group.serving("work", at: own).isEmpty)
            record.version += 1
            group.act(own) { $0.discovered(record, source: 0, now: $1) }
            #expect(group.serving("work", at: own) == ["found"])
            #expect(group.state(of: "found", at: own) == .alive)
            #expect(group.hosts[own].machine.record(of: "found")?.version == record.version)
        }
        // An earlier start does not.
        group.act(own) { $0.withdrawn("found", source: 0, now: $1) }
        record.identity = NodeIdentity(name: "found", incarnation: Incarnation(2))
        group.act(own) { $0.discovered(record, source: 0, now: $1) }
        #expect(group.state(of: "found", at: own) == .left)

        let server = group.add("server", incarnation: 5, services: ["work"])
        group.run(.seconds(1))
        #expect(group.serving("work", at: own) == ["server"])
        let told = group.hosts[server].machine.own
        group.act(own) { $0.discovered(told, source: 0, now: $1) }
        group.act(server) { machine, now in machine.stop(now: now) }
        group.run(.seconds(1))
        #expect(group.state(of: "server", at: own) == .left)
        group.act(own) { $0.discovered(told, source: 0, now: $1) }
        group.act(own) { $0.withdrawn("server", source: 0, now: $1) }
        group.act(own) { $0.discovered(told, source: 0, now: $1) }
        #expect(group.state(of: "server", at: own) == .left, "it has stopped, whatever a source still has")
    }

    @Test func `limits.members holds, is counted and told once`() {
        let group = DirectoryGroup()
        var rules = DirectoryMachine.Rules()
        rules.membersMax = 4
        let own = group.add("own", rules: rules)
        for number in 0..<10 { group.add("node-\(number)") }
        group.run(.seconds(2))
        #expect(group.hosts[own].machine.nodes(now: group.now).count == 4)
        #expect(group.hosts[own].machine.counters[.limitMembersHit] > 0)
        #expect(group.count(own) { $0 == .membersLimit(4) } == 1)
        let known = group.hosts[own].machine.nodes(now: group.now).map(\.record.identity.name)
        for index in 1...10 where known.contains(group.hosts[index].machine.own.identity.name) {
            group.act(index) { $0.stop(now: $1) }
        }
        group.run(.seconds(5))
        let alive = group.hosts[own].machine.nodes(now: group.now).filter { $0.state == .alive }
        #expect(alive.count == 4, "who left makes room")
    }

    @Test func `a flood of hostile beacons costs bounded memory and answers`() {
        let group = DirectoryGroup()
        let own = group.add("own")
        group.run(.seconds(1))
        var generator = SeededGenerator(seed: group.seed)
        let before = group.packets
        for number in 0..<50_000 {
            let sender = NodeIdentity(
                name: "n\(UInt16.random(in: 0...9999, using: &generator))",
                incarnation: Incarnation(UInt64.random(in: 0...UInt64.max, using: &generator)))
            let body: Beacon.Body =
                switch number % 5 {
                case 0: .digest([])
                case 1: .request(.everyone(except: []))
                case 2: .request(.life([Beacon.digest(ofName: "own")]))
                case 3: .part(index: number % 7, count: 7, bytes: ByteBuffer(repeating: 0, count: 900))
                default: .goodbye
                }
            let beacon = Beacon(
                cluster: Beacon.digest(ofCluster: "default"), sender: sender,
                recordVersion: UInt64.random(in: 0...UInt64.max, using: &generator),
                interval: .milliseconds(10), body: body)
            group.act(own) { $0.received(beacon, now: $1) }
            group.run(.microseconds(20))
        }
        // One virtual second.
        #expect(group.packets - before < 200, "\(group.packets - before) datagrams, seed \(group.seed)")
        #expect(group.hosts[own].machine.counters[.limitBeaconRequestsHit] > 0)
    }

    @Test func `random events in any order never trap`() {
        let seed = UInt64.random(in: 1...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        let group = DirectoryGroup(seed: seed)
        let own = group.add("n0", staticEntries: [entry("n1", ["t"]), entry("n2", ["t"])])
        for _ in 0..<30_000 {
            let name = "n\(Int.random(in: 0..<5, using: &generator))"
            let identity = NodeIdentity(
                name: name, incarnation: Incarnation(UInt64.random(in: 0...3, using: &generator)))
            let record = NodeRecord(
                identity: identity, version: UInt64.random(in: 0...3, using: &generator),
                services: [.init(topic: Topic(unchecked: "t"), server: name)])
            let kind = Int.random(in: 0..<12, using: &generator)
            group.act(own) { machine, now in
                switch kind {
                case 0: return machine.link(.opened(address: nil), peer: identity, now: now)
                case 1: return machine.link(.lost, peer: identity, now: now)
                case 2: return machine.link(.closed, peer: identity, now: now)
                case 3: return machine.link(.heard, peer: identity, now: now)
                case 4: return machine.dialFailed(identity, now: now)
                case 5: return machine.discovered(record, source: 1, now: now)
                case 6: return machine.withdrawn(name, source: 1, now: now)
                default:
                    let body: Beacon.Body =
                        [
                            .digest([]), .record(record), .goodbye, .request(.records([1])),
                            .part(index: 0, count: 2, bytes: ByteBuffer()),
                        ][kind - 7]
                    return machine.received(
                        Beacon(
                            cluster: Beacon.digest(ofCluster: "default"), sender: identity,
                            recordVersion: record.version, interval: .milliseconds(50), body: body), now: now)
                }
            }
            group.run(.milliseconds(Int64.random(in: 0...40, using: &generator)))
            let present = group.hosts[own].machine.nodes(now: group.now).filter {
                $0.state == .alive || $0.state == .suspect
            }
            #expect(group.hosts[own].machine.presentNodes == present.count, "seed \(seed)")
        }
    }

    @Test func `five hundred nodes find each other and stay under the packet budget`() {
        let group = DirectoryGroup()
        for number in 0..<500 { group.add("node-\(number)", services: ["work"]) }
        let started = group.now
        var isFormed = false
        while !isFormed, group.now - started < .seconds(10) {
            group.run(.milliseconds(250))
            isFormed = group.hosts.allSatisfy { $0.machine.presentNodes == 500 }
        }
        #expect(isFormed, "seed \(group.seed)")
        #expect(group.serving("work", at: 250).count == 499)
        #expect(group.packets < 500 * 12, "\(group.packets) datagrams to form")
        // The newest nodes still announce themselves for a moment, longer where so many do.
        group.run(.seconds(8))
        let before = group.packets
        group.run(.seconds(5))
        #expect(Double(group.packets - before) / 5 < 500, "seed \(group.seed)")
        let joined = group.now
        group.add("newcomer", services: ["late"])
        let isSeen = group.run(.milliseconds(500)) {
            (0..<500).allSatisfy { group.serving("late", at: $0) == ["newcomer"] }
        }
        #expect(isSeen, "seed \(group.seed)")
        print("500 nodes: newcomer seen by all after \(group.now - joined), datagrams to form: \(before)")
    }

    @Test func `ten thousand nodes slow their beacons down to the budget`() {
        let now = Instant(nanoseconds: 0)
        var own = DirectoryMachine(
            own: NodeRecord(identity: NodeIdentity(name: "own", incarnation: Incarnation(1))), seed: 1,
            now: now)
        _ = own.start(now: now)
        for number in 0..<10_000 {
            let identity = NodeIdentity(name: "peer-\(number)", incarnation: Incarnation(1))
            _ = own.received(
                Beacon(
                    cluster: Beacon.digest(ofCluster: "default"), sender: identity, recordVersion: 1,
                    interval: .seconds(25), body: .record(NodeRecord(identity: identity))), now: now)
        }
        let interval = own.interval
        #expect(interval >= .seconds(25) && interval < .seconds(26), "400 digests a second in all")
    }
}
