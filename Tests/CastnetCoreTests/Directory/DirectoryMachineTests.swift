import CastnetCore
import Testing

@Suite struct DirectoryMachineTests {
    @Test(arguments: [0.0, 0.2])
    func `a new server is known to everybody, and knows everybody, within half a second`(_ loss: Double) {
        var late = 0
        let rounds = 40
        let seed = UInt64.random(in: 1...1 << 40)
        for round in 0..<rounds {
            let group = DirectoryGroup(seed: seed + UInt64(round))
            for number in 0..<10 { group.add("node-\(number)", services: ["work"]) }
            let isFormed = group.run(.seconds(10)) { group.isComplete("work") }
            #expect(isFormed, "seed \(group.seed)")
            group.loss = loss
            group.add("newcomer", services: ["work"])
            if !group.run(.milliseconds(500), until: { group.isComplete("work") }) { late += 1 }
        }
        // With a fifth of all datagrams lost, 20 one-way facts must all arrive: rarely one needs longer.
        #expect(late <= (loss == 0 ? 0 : 6), "first seed \(seed): \(late) of \(rounds) late")
    }

    @Test func `a service added later is known within half a second under loss`() {
        var late = 0
        let seed = UInt64.random(in: 1...1 << 40)
        for round in 0..<50 {
            let group = DirectoryGroup(seed: seed + UInt64(round))
            for number in 0..<8 { group.add("node-\(number)") }
            group.run(.seconds(2))
            group.loss = 0.2
            group.act(3) { machine, now in
                var record = machine.own
                record.services.append(.init(topic: Topic(unchecked: "late"), server: "node-3"))
                return machine.updateOwn(record, now: now)
            }
            let others = [0, 1, 2, 4, 5, 6, 7]
            if !group.run(
                .milliseconds(500),
                until: {
                    others.allSatisfy { group.serving("late", at: $0) == ["node-3"] }
                })
            {
                late += 1
            }
        }
        #expect(late <= 4, "first seed \(seed): \(late) of 50 late")
    }

    @Test func `a killed node is gone within three intervals and never before it was suspect`() throws {
        for round in 0..<20 {
            let group = DirectoryGroup()
            for number in 0..<5 { group.add("node-\(number)", services: ["work"]) }
            group.run(.seconds(3) + .milliseconds(77 * round))
            let killed = group.now
            group.kill(4)
            let gone = group.run(.seconds(3)) {
                (0..<4).allSatisfy { !group.serving("work", at: $0).contains("node-4") }
            }
            #expect(gone, "seed \(group.seed)")
            #expect(group.now - killed <= .seconds(3))
            for index in 0..<4 {
                let events = group.hosts[index].events.filter { $0.at >= killed }.map(\.event)
                let dead = NodeIdentity(name: "node-4", incarnation: Incarnation(1))
                #expect(events == [.suspected(dead, .silent), .died(dead)], "seed \(group.seed)")
                #expect(group.state(of: "node-4", at: index) == .dead)
            }
            group.run(.seconds(90))
            #expect(group.state(of: "node-4", at: 0) == nil)
        }
    }

    @Test func `under loss nobody alive is given up`() {
        let group = DirectoryGroup()
        group.loss = 0.2
        for number in 0..<10 { group.add("node-\(number)", services: ["work"]) }
        group.run(.seconds(60))
        let deaths = group.hosts.indices.map {
            group.count($0) { if case .died = $0 { true } else { false } }
        }
        // About 5,800 beacons are expected; less than once a run three in a row and all answers are lost.
        #expect(deaths.reduce(0, +) <= 6, "seed \(group.seed)")
    }

    @Test func `a restarted node supersedes itself at once`() {
        let group = DirectoryGroup()
        group.add("watcher")
        let old = group.add("server", incarnation: 5, services: ["work"], port: 1111)
        group.run(.seconds(2))
        group.kill(old)
        group.add("server", incarnation: 6, services: ["work"], port: 2222)
        let superseded = group.run(.milliseconds(100)) {
            group.hosts[0].machine.record(of: "server")?.addresses.first?.port == 2222
        }
        #expect(superseded, "seed \(group.seed)")
        #expect(group.serving("work", at: 0) == ["server"])
        group.run(.seconds(5))
        #expect(group.count(0) { if case .superseded = $0 { true } else { false } } == 1)
        #expect(group.count(0) { if case .nameConflict = $0 { true } else { false } } == 0)
        #expect(group.count(0) { if case .died = $0 { true } else { false } } == 0)
    }

    @Test func `a goodbye removes at once and late datagrams do not bring it back`() {
        let group = DirectoryGroup()
        group.add("watcher")
        let leaver = group.add("server", services: ["work"])
        group.run(.seconds(2))
        var late: [DirectoryAction] = []
        let beacon = Beacon(
            cluster: Beacon.digest(ofCluster: "default"),
            sender: group.hosts[leaver].machine.own.identity, recordVersion: 1, interval: .seconds(1),
            body: .record(group.hosts[leaver].machine.own))
        group.act(leaver) { $0.stop(now: $1) }
        let left = group.run(.milliseconds(50)) { group.serving("work", at: 0).isEmpty }
        #expect(left, "seed \(group.seed)")
        #expect(group.state(of: "server", at: 0) == .left)
        group.act(0) {
            late = $0.received(beacon, now: $1)
            return late
        }
        #expect(late.isEmpty)
        #expect(group.state(of: "server", at: 0) == .left)
        group.run(.milliseconds(50))
        #expect(!group.hosts[leaver].isUp, "stopped follows the last goodbye")
        #expect(group.count(0) { if case .left = $0 { true } else { false } } == 1)
    }

    @Test func `a name in use twice is reported with both addresses`() {
        let group = DirectoryGroup()
        group.add("watcher")
        group.add("twin", incarnation: 5, port: 1111)
        group.run(.seconds(2))
        group.add("twin", incarnation: 6, port: 2222)
        group.run(.seconds(5))
        for index in 0..<3 {
            let conflicts = group.hosts[index].events.compactMap {
                if case .nameConflict(let conflict) = $0.event { conflict } else { nil }
            }
            #expect(conflicts.count == 1, "host \(index), seed \(group.seed)")
            let addresses = [conflicts.first?.firstAddress, conflicts.first?.secondAddress].compactMap(\.self)
            #expect(addresses.count == 2 && Set(addresses).count == 2, "host \(index): \(addresses)")
        }
    }

    @Test func `a channel that differs is named once per change, with both nodes`() {
        let group = DirectoryGroup()
        func channel(_ digest: UInt64) -> NodeRecord.Channel {
            .init(name: "agents", digest: digest, streamID: 1, mtu: 1500, joined: true)
        }
        group.add("one", channels: [channel(1)])
        group.add("two", channels: [channel(2)])
        group.run(.seconds(5))
        func differences(_ index: Int) -> Int {
            group.count(index) { if case .channelDiffers(_, _, "agents") = $0 { true } else { false } }
        }
        #expect(differences(0) == 1 && differences(1) == 1)
        let expected = DirectoryEvent.channelDiffers(
            own: NodeIdentity(name: "one", incarnation: Incarnation(1)),
            peer: NodeIdentity(name: "two", incarnation: Incarnation(1)), channel: "agents")
        #expect(group.hosts[0].events.contains { $0.event == expected })
        for digest: UInt64 in [1, 3] {
            group.act(1) { machine, now in
                var record = machine.own
                record.channels = [channel(digest)]
                return machine.updateOwn(record, now: now)
            }
            group.run(.seconds(1))
        }
        #expect(differences(0) == 2 && differences(1) == 2, "equal again, then different again")
    }

    @Test func `patterns, own node and server names shape the views`() {
        let group = DirectoryGroup()
        group.add("a", services: ["agents.l2"], subscriptions: ["agents.*"])
        group.add("b", subscriptions: ["agents.**"])
        group.add("c", subscriptions: ["agents.l2"])
        group.add("d", subscriptions: ["other"])
        group.run(.seconds(1))
        #expect(group.hearing("agents.l2", at: 0) == ["a", "b", "c"])
        #expect(group.hearing("agents.l2", at: 0, includingOwn: false) == ["b", "c"])
        #expect(group.hearing("agents.l3", at: 3) == ["a", "b"])
        #expect(group.serving("agents.l2", at: 1) == ["a"])
        #expect(group.serving("agents.l2", at: 0, includingOwn: true) == ["a"])
        let members = group.hosts[1].machine.members(hearing: Topic(unchecked: "agents.l2"))
        #expect(members.map(\.serves) == [true, false, false])
        let version = group.hosts[1].machine.viewVersion
        group.run(.seconds(3))
        #expect(group.hosts[1].machine.viewVersion == version, "an idle group changes no view")
    }

    @Test func `bursts of changes are coalesced and bounded`() {
        let group = DirectoryGroup()
        let quiet = group.add("watcher")
        let busy = group.add("busy")
        group.run(.seconds(2))
        let before = group.packets
        for number in 0..<500 {
            group.act(busy) { machine, now in
                var record = machine.own
                record.services = [.init(topic: Topic(unchecked: "short-\(number)"), server: "busy")]
                return machine.updateOwn(record, now: now)
            }
            group.run(.milliseconds(2))
        }
        #expect(group.packets - before <= 40, "\(group.packets - before) datagrams in a second")
        let known = group.run(.milliseconds(500)) { group.serving("short-499", at: quiet) == ["busy"] }
        #expect(known)
        #expect(group.serving("short-498", at: quiet).isEmpty)
    }

    @Test func `silence of the own source gives nobody up`() {
        let group = DirectoryGroup()
        for number in 0..<4 { group.add("node-\(number)", services: ["work"]) }
        group.run(.seconds(2))
        group.echoes = false
        group.reaches = { _, _ in false }
        group.run(.seconds(30))
        #expect(group.isComplete("work"))
        #expect(group.count(0) { $0 == .beaconsSilent } == 1)
        group.echoes = true
        group.reaches = { _, _ in true }
        group.run(.seconds(10))
        #expect(group.isComplete("work"))
        #expect(group.count(0) { $0 == .beaconsBack } == 1)
        #expect(group.count(0) { if case .died = $0 { true } else { false } } == 0, "seed \(group.seed)")
    }

    @Test func `records of thousands of topics reach everybody under loss`() {
        let group = DirectoryGroup()
        group.loss = 0.2
        group.add("watcher")
        group.add("many", services: (0..<2000).map { "topic.number-\($0).of-many" })
        let known = group.run(.seconds(5)) { group.serving("topic.number-1999.of-many", at: 0) == ["many"] }
        #expect(known, "seed \(group.seed)")
    }
}
