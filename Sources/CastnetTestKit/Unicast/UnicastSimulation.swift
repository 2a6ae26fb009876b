import Castnet
package import CastnetCore
import NIOCore
import NIOEmbedded

/// Nodes that send each other calls and casts over simulated connections, in virtual time, under an oracle.
///
/// Links, queues, balancing, retries and handlers are those of real nodes; connections, the directory's news
/// and time are made up. Everything happens on the thread that calls ``run()``.
package final class UnicastSimulation: @unchecked Sendable {
    package let scenario: Scenario
    let loop = EmbeddedEventLoop()
    let network: StreamNetwork
    private var dice: Dice
    /// The newest start of each node.
    private var nodes: [SimulatedMember] = []
    private(set) var all: [SimulatedMember] = []
    private(set) var oracle = UnicastOracle()
    private var faults: [String] = []

    package init(_ scenario: Scenario) {
        self.scenario = scenario
        network = StreamNetwork(loop: loop, seed: scenario.seed &+ 1)
        network.latency = scenario.latency
        network.processing = scenario.processing
        network.isLossy = !scenario.isCalm
        dice = Dice(seed: scenario.seed &+ 2)
    }

    /// What a simulation came to.
    package struct Outcome: Sendable {
        package var faults: [String] = []
        package var messages = 0
        package var runs = 0
        package var outcomes: [String: Int] = [:]
        package var retried = 0
        package var turnedAway = 0
        package var again = 0
        package var links = 0
        package var bytes = 0
        package var simulated: Duration = .zero

        package init() {}

        package mutating func add(_ other: Outcome) {
            faults += other.faults
            messages += other.messages
            runs += other.runs
            outcomes.merge(other.outcomes, uniquingKeysWith: +)
            retried += other.retried
            turnedAway += other.turnedAway
            again += other.again
            links += other.links
            bytes += other.bytes
            simulated += other.simulated
        }
    }

    package func run() -> Outcome {
        loop.advanceTime(by: .seconds(1))
        let began = Instant(loop)
        do {
            for index in 0..<scenario.nodes { try start(index) }
        } catch {
            fault("a node did not start: \(error)")
        }
        for one in nodes {
            for other in nodes { one.learn(other) }
        }
        schedule()
        // Everything has come to its end by then: the longest deadline is half a minute.
        let calm = max(scenario.time, scenario.troubles.map(\.end).max() ?? .zero) + .seconds(45)
        advance(calm)
        proveHealth()
        advance(.seconds(60))
        stopAll()
        advance(.seconds(30))
        judge()
        var outcome = oracle.outcome
        outcome.faults = faults + outcome.faults
        for member in all {
            outcome.retried += Int(member.counters.values[.messagesRetried])
            outcome.turnedAway += Int(member.counters.values[.messagesTurnedAway])
            outcome.again += Int(member.counters.values[.linkMessagesAgain])
            outcome.links += Int(member.counters.values[.linkOpened])
        }
        outcome.bytes = network.bytesCarried
        outcome.simulated = Instant(loop) - began
        try? loop.syncShutdownGracefully()
        return outcome
    }

    func fault(_ text: String) {
        faults.append("\(Instant(loop) - Instant(nanoseconds: 1_000_000_000)): \(text)")
    }

    private func advance(_ time: Duration) { loop.advanceTime(by: .nanoseconds(time.nanoseconds)) }

    // MARK: Nodes

    private func start(_ index: Int) throws {
        let member = try SimulatedMember(index, incarnation: UInt64(all.count + 1), in: self)
        if index < nodes.count { nodes[index] = member } else { nodes.append(member) }
        all.append(member)
    }

    private func startAgain(_ index: Int) {
        guard [.dead, .stopped].contains(nodes[index].state) else {
            // It takes longer to stop than was planned.
            if nodes[index].state == .stopping { network.after(.milliseconds(50)) { self.startAgain(index) } }
            return
        }
        do { try start(index) } catch { fault("a node did not start: \(error)") }
        let member = nodes[index]
        member.learn(member)
        for other in nodes where other !== member && other.state == .running {
            spread { other.learn(member) }
            spread { member.learn(other) }
        }
    }

    /// News reaches each node after a while of its own.
    private func spread(_ news: @escaping @Sendable () -> Void) {
        network.after(dice.time(in: scenario.directoryDelay), news)
    }

    private func notice(_ gone: SimulatedMember, hasLeft: Bool) {
        for other in nodes where other !== gone {
            spread { other.forget(gone.identity, hasLeft: hasLeft) }
        }
    }

    // MARK: What happens

    private func schedule() {
        // Some come by themselves, some in bursts.
        var at = Duration.zero
        for key in 1...UInt64(max(1, scenario.messages)) {
            if !dice.chance(1, of: 3) { at = dice.time(upTo: scenario.time) }
            let callers = scenario.callers ?? Array(0..<scenario.nodes)
            let (caller, plan) = (callers[dice.number(below: callers.count)], dice.pick(scenario.topics))
            let order = WorkOrder(
                key: key, work: dice.time(in: plan.work), verdict: verdict(plan),
                size: dice.chance(1, of: 4) ? dice.number(in: plan.sizes) : plan.sizes.lowerBound)
            let kind: MessageKind = dice.chance(1, of: 2) ? .call : .cast
            let time = dice.time(in: plan.deadline)
            network.after(at) { [self] in send(order, plan, kind, within: time, from: nodes[caller]) }
        }
        for trouble in scenario.troubles { schedule(trouble) }
    }

    private func verdict(_ plan: TopicPlan) -> WorkOrder.Verdict {
        let number = dice.number(below: 100)
        if number < plan.rejected { return .reject }
        return number < plan.rejected + plan.released ? .release : .reply
    }

    private func send(
        _ order: WorkOrder, _ plan: TopicPlan, _ kind: MessageKind, within time: Duration,
        from member: SimulatedMember
    ) {
        guard member.state == .running else { return }
        let now = Instant(loop)
        oracle.sent(order, plan, kind, from: member.identity, at: now, deadline: now + time)
        member.send(order, plan, kind, until: now + time)
    }

    private func schedule(_ trouble: UnicastTrouble) {
        switch trouble {
        case .kill(let index, let at, let noticed, let back):
            network.after(at) { [self] in kill(index, noticed: noticed) { $0.kill() } }
            if let back { network.after(back) { [self] in startAgain(index) } }
        case .powerOff(let index, let at, let noticed, let back):
            network.after(at) { [self] in
                kill(index, noticed: noticed) { member in
                    network.silence("\(member.identity)")
                    member.kill()
                }
            }
            if let back { network.after(back) { [self] in startAgain(index) } }
        case .restart(let index, let at, let drain, let back):
            network.after(at) { [self] in
                guard nodes[index].state == .running else { return }
                oracle.ends(nodes[index].identity)
                notice(nodes[index], hasLeft: true)
                nodes[index].stop(drain: drain)
            }
            network.after(back) { [self] in startAgain(index) }
        case .block(let one, let other, let time):
            guard one != other else { return }
            let way = StreamNetwork.Way("10.0.0.\(one + 1)", "10.0.0.\(other + 1)")
            network.after(time.lowerBound) { [self] in network.block(way) }
            network.after(time.upperBound) { [self] in network.unblock(way) }
        case .reset(let at): network.after(at) { [self] in network.resetAny() }
        }
    }

    private func kill(_ index: Int, noticed: Duration, _ body: (SimulatedMember) -> Void) {
        let member = nodes[index]
        guard [.running, .stopping].contains(member.state) else { return }
        oracle.ends(member.identity)
        oracle.killed(member.identity)
        body(member)
        network.after(noticed) { [self] in notice(member, hasLeft: false) }
    }

    // MARK: The end

    /// Once trouble is over, whoever runs can call every topic that somebody serves.
    private func proveHealth() {
        network.isLossy = false
        var key = UInt64(1_000_000)
        for member in nodes
        where member.state == .running && scenario.callers?.contains(member.index) != false {
            for plan in scenario.topics
            where plan.servers.contains(where: { nodes[$0].state == .running }) {
                for _ in 0..<3 * plan.concurrency + 5 {
                    key += 1
                    let order = WorkOrder(key: key, work: .zero, verdict: .reply, size: 100)
                    oracle.mustBeAccepted(key)
                    send(order, plan, .call, within: .seconds(20), from: member)
                }
            }
        }
    }

    private func stopAll() {
        for member in all where member.state == .running {
            let left = member.unicast.usage
            if left.pendingCalls + left.parked > 0 { fault("\(member.identity) still has \(left)") }
            oracle.ends(member.identity)
            member.stop(drain: .seconds(1))
        }
    }

    private func judge() {
        for member in all where member.state != .dead {
            if member.state != .stopped { fault("\(member.identity) did not stop") }
            let held = member.unicast.usage
            let isEmpty =
                held.connections + held.dials + held.pendingCalls + held.parked + held.waiting + held.links
                + held.assembledBytes == 0
            if !isEmpty { fault("\(member.identity) holds \(held) in the end") }
        }
        let retrying = all.filter { $0.counters.values[.messagesRetried] > 0 }.map(\.identity)
        oracle.judge(scenario, retrying: Set(retrying))
    }

    // MARK: What nodes report

    func began(_ order: WorkOrder, _ message: Message, at member: SimulatedMember) -> Int {
        oracle.began(order, message, at: member.identity, now: Instant(loop))
    }

    func ended(_ order: WorkOrder, _ run: Int) { oracle.ended(order, run, now: Instant(loop)) }

    func ended(_ key: UInt64, _ result: SendResult) { oracle.ended(key, result, now: Instant(loop)) }
}
