import CastnetCore
import NIOCore
import Testing

/// Tables compared over links, with and without multicast.
@Suite struct DirectoryExchangeTests {
    /// `count` hosts with the first two as seeds.
    private func group(_ count: Int, beacons: Bool) -> DirectoryGroup {
        let group = DirectoryGroup()
        var rules = DirectoryMachine.Rules()
        rules.beacons = beacons
        rules.seeds = [1, 2].map { HostPort(host: "10.0.0.\($0)", port: 7400) }
        for number in 0..<count { group.add("node-\(number)", services: ["work"], rules: rules) }
        return group
    }

    @Test func `twenty-four nodes without multicast find each other through two seeds`() {
        let group = group(24, beacons: false)
        #expect(group.run(.seconds(2)) { group.isComplete("work") }, "seed \(group.seed)")
        #expect(group.packets == 0)
        // Nobody is given up by word of mouth.
        group.run(.seconds(30))
        #expect(group.isComplete("work"), "seed \(group.seed)")
        for index in group.hosts.indices {
            let died = group.count(index) { if case .died = $0 { true } else { false } }
            #expect(died == 0, "seed \(group.seed)")
        }
        // Eight times in an interval of two seconds, a handful of datagrams each way.
        let before = group.exchanged
        group.run(.seconds(10))
        #expect(
            (group.exchanged - before) / 240 < 40, "\((group.exchanged - before) / 240) a node and second")
    }

    @Test func `a newcomer is seen by all within half a second, and gone within three intervals`() {
        let group = group(24, beacons: false)
        group.run(.seconds(5))
        var rules = DirectoryMachine.Rules()
        rules.beacons = false
        rules.seeds = [HostPort(host: "10.0.0.1", port: 7400)]
        let late = group.add("late", services: ["late"], rules: rules)
        let isSeen = group.run(.milliseconds(500)) {
            (0..<24).allSatisfy { group.serving("late", at: $0) == ["late"] }
        }
        #expect(isSeen, "seed \(group.seed)")
        group.run(.seconds(3))
        group.kill(late)
        let isGone = group.run(.seconds(6)) { (0..<24).allSatisfy { group.serving("late", at: $0) == [] } }
        #expect(isGone, "seed \(group.seed)")
    }

    @Test func `a goodbye is passed on`() {
        let group = group(24, beacons: false)
        group.run(.seconds(3))
        group.act(7) { $0.stop(now: $1) }
        let isGone = group.run(.seconds(1)) {
            group.hosts.indices.allSatisfy { $0 == 7 || group.state(of: "node-7", at: $0) == .left }
        }
        #expect(isGone, "seed \(group.seed)")
    }

    @Test func `seeds keep a group together whose multicast is blocked`() {
        let group = group(24, beacons: true)
        #expect(group.run(.seconds(2)) { group.isComplete("work") })
        // Own datagrams still come back: it is the network that drops them.
        group.reaches = { _, _ in false }
        for _ in 0..<60 {
            group.run(.milliseconds(500))
            #expect(group.isComplete("work"), "seed \(group.seed)")
        }
        let silent = group.count(0) { if case .othersSilent(_, let kept) = $0 { kept == 23 } else { false } }
        #expect(silent == 1)
        #expect(group.count(0) { $0 == .othersBack || $0 == .beaconsSilent } == 0)
        group.reaches = { _, _ in true }
        group.run(.seconds(5))
        #expect(group.isComplete("work"), "seed \(group.seed)")
        #expect(group.count(0) { $0 == .othersBack } == 1)
    }

    @Test func `silence of all partners is told once, and so is their return`() {
        let group = group(3, beacons: false)
        group.run(.seconds(3))
        group.areLinked = { _, _ in false }
        group.run(.seconds(20))
        let silent = group.count(0) { if case .seedsSilent = $0 { true } else { false } }
        #expect(silent == 1)
        group.areLinked = { _, _ in true }
        group.run(.seconds(3))
        #expect(group.count(0) { $0 == .seedsBack } == 1)
        #expect(group.run(.seconds(10)) { group.isComplete("work") }, "seed \(group.seed)")
    }

    @Test func `a table too large for one exchange is told in part, which is counted`() {
        let group = DirectoryGroup()
        var rules = DirectoryMachine.Rules()
        rules.beacons = false
        rules.seeds = [HostPort(host: "10.0.0.2", port: 7400)]
        group.add("large", rules: rules)
        let peer = NodeIdentity(name: "peer", incarnation: Incarnation(1))
        let table = (0..<5000).map {
            let name = NodeIdentity(name: "node-\($0)", incarnation: Incarnation(1))
            return Beacon.Told(record: NodeRecord(identity: name), interval: .seconds(1), age: .zero)
        }
        func say(_ body: Beacon.Body) -> [Beacon] {
            let word = Beacon(
                cluster: Beacon.digest(ofCluster: NodeRecord(identity: peer).cluster), sender: peer,
                recordVersion: 1, interval: .seconds(1), body: body)
            let answer = group.hosts[0].machine.exchanged(word, with: peer, now: group.now)
            return answer.flatMap { action -> [Beacon] in
                if case .tell(peer, let words) = action { words } else { [] }
            }
        }
        _ = say(.table(table))
        #expect(group.hosts[0].machine.presentNodes == 5001)
        var told: Set<String> = []
        for turn in 1...20 as ClosedRange<UInt64> {
            let words = say(.request(.table))
            #expect(words.count == 64)
            #expect(group.hosts[0].machine.counters[.directoryExchangesCut] == turn)
            for case .table(let part) in words.map(\.body) {
                told.formUnion(part.map(\.record.identity.name))
            }
        }
        // From a random place on each time: soon all of it.
        #expect(told.count > 4900)
    }
}
