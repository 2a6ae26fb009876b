internal import CastnetCore

/// What happens to nodes of a ``ChannelSimulation`` besides loss.
package enum Trouble: Sendable {
    /// Which way nothing passes.
    package enum Way: Sendable, CaseIterable {
        case inward
        case outward
        case both
    }

    /// The process stops, and goes on where it was.
    case pause(Int, Range<Duration>)
    /// Neither frames nor reports nor links pass between the node and the others; links go on afterwards.
    case cutOff(Int, Range<Duration>, Way)
    /// The process is killed; the others notice after some seconds, or when it starts anew.
    case crash(Int, at: Duration, back: Duration?)
    /// PGM gives up on most of what is sent.
    case burst(Range<Duration>)

    var begin: Duration {
        switch self {
        case .pause(_, let time), .cutOff(_, let time, _), .burst(let time): time.lowerBound
        case .crash(_, let at, _): at
        }
    }
}

extension ChannelSimulation.Scenario {
    /// A scenario of everything at once that the seed decides on: nodes, traffic, loss and troubles.
    package static func random(seed: UInt64) -> Self {
        var scenario = Self(seed: seed)
        var generator = SeededGenerator(seed: seed &* 6_364_136_223_846_793_005)
        func pick<Value>(_ values: [Value]) -> Value {
            values[Int.random(in: 0..<values.count, using: &generator)]
        }
        scenario.nodes = pick([2, 2, 3, 3, 4, 5, 6, 8, 12])
        if Int.random(in: 0..<60, using: &generator) == 0 { scenario.nodes = pick([60, 120, 200]) }
        let isLarge = scenario.nodes > 20
        scenario.senders = isLarge ? 1 : Int.random(in: 1...min(3, scenario.nodes), using: &generator)
        scenario.topics = Int.random(in: 1...4, using: &generator)
        scenario.messages = isLarge ? 60 : pick([40, 120, 250, 500])
        scenario.batch = pick([3, 10, 50])
        scenario.batchInterval = pick([.microseconds(100), .milliseconds(1), .milliseconds(8)])
        scenario.largeEvery = pick([0, 0, 15])
        scenario.largeSize = 20_000
        scenario.frameSizeMax = pick([480, 1448, 1448, 8900])
        scenario.frameDrop = pick([0, 0, 0.01, 0.05, 0.2, 0.4])
        scenario.frameDuplicate = pick([0, 0.02])
        scenario.reportDrop = pick([0, 0.1, 0.3])
        scenario.requestDrop = pick([0, 0, 0.2])
        scenario.refuse = pick([0, 0, 0.05])
        scenario.settings.slow = pick([.catchUp, .catchUp, .pace, .evict])
        scenario.settings.receiveBuffer = pick([128 << 10, 1 << 20, 8 << 20])
        if Int.random(in: 0..<6, using: &generator) == 0 {
            scenario.limits.subscriptionBacklog = 64 << 10
            scenario.slowConsumer = Double.random(in: 3e5...5e6, using: &generator)
        }
        for _ in 0..<pick([0, 0, 1, 1, 2, 3]) {
            scenario.troubles.append(.random(members: 0..<scenario.nodes, kinds: 4, using: &generator))
        }
        return scenario
    }

    /// One sender that wants receipts of so many members, of which some are killed, stopped or cut off.
    package static func unrest(members: Int, seed: UInt64) -> Self {
        var scenario = Self(seed: seed)
        var generator = SeededGenerator(seed: seed &* 2_862_933_555_777_941_757)
        scenario.nodes = members + 1
        scenario.messages = 240
        scenario.batch = 3
        scenario.batchInterval = .milliseconds(8)
        scenario.frameDrop = Bool.random(using: &generator) ? 0.02 : 0
        scenario.reportDrop = Bool.random(using: &generator) ? 0.1 : 0
        for _ in 0..<Int.random(in: 3...8, using: &generator) {
            scenario.troubles.append(.random(members: 1..<scenario.nodes, kinds: 3, using: &generator))
        }
        return scenario
    }
}

extension Trouble {
    /// One of the first `kinds` kinds for one of `members`.
    fileprivate static func random(
        members: Range<Int>, kinds: Int, using generator: inout SeededGenerator
    ) -> Self {
        let node = Int.random(in: members, using: &generator)
        let begin = Duration.milliseconds(Int64.random(in: 1...600, using: &generator))
        let length = Duration.milliseconds(Int64.random(in: 20...3000, using: &generator))
        switch Int.random(in: 0..<kinds, using: &generator) {
        case 0: return .pause(node, begin..<begin + length)
        case 1:
            let way = Way.allCases[Int.random(in: 0..<3, using: &generator)]
            return .cutOff(node, begin..<begin + length, way)
        case 2: return .crash(node, at: begin, back: Bool.random(using: &generator) ? begin + length : nil)
        default: return .burst(begin..<begin + length * 0.2)
        }
    }
}

extension ChannelSimulation {
    mutating func begin(_ trouble: Trouble) {
        switch trouble {
        case .pause(let index, let time): pauseNode(index, until: startedAt + time.upperBound)
        case .cutOff(let index, let time, let way): cuts.append((index, startedAt + time.upperBound, way))
        case .burst(let time): burstUntil = max(burstUntil, startedAt + time.upperBound)
        case .crash(let index, _, let back): crash(index, back: back.map { startedAt + $0 })
        }
    }

    mutating func pauseNode(_ index: Int, until: Instant) {
        network.pause(index, until: until)
        nodes[index].pausedUntil = max(nodes[index].pausedUntil, until)
    }

    /// Until when nothing passes from one node to another; nil: it does.
    func cutUntil(from: Int, to: Int) -> Instant? {
        var until: Instant?
        for cut in cuts where cut.until > clock.now {
            guard cut.node == from && cut.way != .inward || cut.node == to && cut.way != .outward else {
                continue
            }
            until = max(until ?? cut.until, cut.until)
        }
        return until
    }

    /// When the last cut ends.
    var cutsEnd: Instant { cuts.map(\.until).max() ?? startedAt }

    /// True when PGM gives up on a frame on its way.
    mutating func isLost(_ index: Int, from: Int) -> Bool {
        if cutUntil(from: from, to: index) != nil { return true }
        return clock.now < burstUntil && Double.random(in: 0..<1, using: &generator) < 0.8
    }

    func living(_ identity: NodeIdentity) -> Int? {
        nodes.firstIndex { $0.identity == identity && !$0.isDead }
    }

    func tellMembers() {
        // Who sends nothing waits for nobody.
        for node in nodes.prefix(scenario.senders) where !node.isDead {
            node.machine.membersChanged(listed, now: clock.now)
        }
    }

    // MARK: Crashes

    private mutating func crash(_ index: Int, back: Instant?) {
        guard !nodes[index].isDead else { return }
        nodes[index].isDead = true
        oracle.crashed(index)
        if let back { agenda.add(.restart(index), at: back) }
        agenda.add(.gone(index), at: clock.now + generator.jitter(.milliseconds(1500), in: 1...2))
    }

    /// The directory tells the others that a node is gone.
    mutating func gone(_ index: Int) {
        let identity = nodes[index].identity
        guard listed.contains(identity) else { return }
        listed.removeAll { $0 == identity }
        tellMembers()
        for node in nodes where !node.isDead { node.book.memberGone(identity, now: clock.now) }
    }

    /// The process starts anew, with nothing to send, and is heard of at once.
    mutating func restart(_ index: Int) {
        gone(index)
        let node = SimulatedNode(nodes.count, name: nodes[index].identity.name, scenario, now: clock.now)
        nodes.append(node)
        outcome.lastAt.append(.zero)
        oracle.joined(node.index, now: clock.now)
        network.join(1, node.index)
        listed.append(node.identity)
        tellMembers()
        planService(node.index, after: .milliseconds(1))
    }

    /// A link that carried a repair packet ended with one of its nodes.
    mutating func linkEnded(_ packet: RepairPacket, from: Int, to: Int, _ bytes: Int) {
        if case .request(let stream, _) = packet, !nodes[from].isDead {
            nodes[from].machine.repairFailed(stream, now: clock.now)
            planService(from, after: .microseconds(10))
        }
        guard bytes > 0, !nodes[from].isDead else { return }
        nodes[from].machine.repairWritten(bytes, to: nodes[to].identity, now: clock.now)
        planService(from, after: .microseconds(10))
    }
}
