import Castnet
import CastnetCore
import Logging
import NIOCore
import NIOEmbedded

/// One start of a node of a ``UnicastSimulation``: the links, queues and handlers of a real node, with a
/// directory that knows what it is told. Confined to the thread of the loop.
final class SimulatedMember: MemberSource, MessageSink, @unchecked Sendable {
    enum State {
        case running
        case stopping
        /// It has stopped, and said so.
        case stopped
        /// It was killed: whatever it still does happens in no process.
        case dead
    }

    let index: Int
    let identity: NodeIdentity
    let address: HostPort
    let counters = NodeCounters()
    private(set) var unicast: Unicast!
    private(set) lazy var answers = AnswerDesk(loop: loop) { [weak self] in self?.unicast.answer($0) }
    private(set) var state = State.running
    let startedAt: Instant
    private unowned let simulation: UnicastSimulation
    private let registry: Registry
    private let executor: LoopExecutor
    private var loop: EmbeddedEventLoop { simulation.loop }
    /// What its directory knows: who serves which topics.
    private var known: [NodeIdentity: (address: HostPort, topics: Set<Topic>)] = [:]
    private var sequences: [Topic: UInt64] = [:]
    private var running: [Topic: Int] = [:]

    init(_ index: Int, incarnation: UInt64, in simulation: UnicastSimulation) throws {
        self.index = index
        self.simulation = simulation
        let scenario = simulation.scenario
        identity = NodeIdentity(name: "node-\(index)", incarnation: Incarnation(incarnation))
        address = HostPort(host: "10.0.0.\(index + 1)", port: 7000)
        startedAt = Instant(simulation.loop)
        var configuration = Configuration()
        configuration.node.unixSockets = false
        configuration.limits.pendingCalls = scenario.pendingCalls
        configuration.limits.perPeer = scenario.perPeer
        configuration.limits.connections = scenario.connections
        configuration.limits.hellos = scenario.hellos
        registry = Registry(topicsMax: 100, counters: counters)
        executor = LoopExecutor(simulation.loop)
        let connector = SimulatedConnector(
            network: simulation.network, host: address.host, process: "\(identity)")
        unicast = Unicast(
            loop: simulation.loop, identity: identity, configuration: configuration, counters: counters,
            members: self, sink: self, seed: scenario.seed &+ incarnation &* 31 &+ UInt64(index),
            log: Logger(label: "simulation") { _ in SwiftLogNoOpLogHandler() }, connector: connector)
        for plan in simulation.scenario.topics where plan.servers.contains(index) { try serve(plan) }
        simulation.network.listeners[address] = ("\(identity)", { [unicast] in try unicast?.accept($0) })
    }

    var topics: Set<Topic> {
        Set(simulation.scenario.topics.filter { $0.servers.contains(index) }.map(\.topic))
    }

    // MARK: Serving

    private func serve(_ plan: UnicastSimulation.TopicPlan) throws {
        let loop = simulation.loop
        let served = ServedTopic(
            topic: plan.topic, server: identity.name, concurrency: plan.concurrency,
            backlogMax: plan.route.backlog,
            work: .asynchronous({ [self] in await handle($0, plan) }, executor), bytesMax: 64 << 20,
            counters: counters, clock: { Instant(loop) },
            wakeAt: { instant, body in loop.scheduleTask(deadline: instant.nioDeadline, body) })
        try registry.add(served)
    }

    private func handle(_ message: Message, _ plan: UnicastSimulation.TopicPlan) async -> Response {
        guard state != .dead, let order = WorkOrder(message.payload) else { return .reject("no order") }
        running[plan.topic, default: 0] += 1
        if running[plan.topic, default: 0] > plan.concurrency {
            simulation.fault("\(identity) runs \(running[plan.topic] ?? 0) handlers of \(plan.topic)")
        }
        let run = simulation.began(order, message, at: self)
        if order.work > .zero {
            await withUnsafeContinuation { continuation in
                simulation.network.after(order.work) { continuation.resume() }
            }
        }
        running[plan.topic, default: 0] -= 1
        if state != .dead { simulation.ended(order, run) }
        switch order.verdict {
        case .reply: return .reply(order.reply(run))
        case .reject: return .reject("as ordered")
        case .release: return .release("as ordered")
        }
    }

    func received(_ delivery: Delivery, settle: Settlement) -> Reception {
        let acknowledging = settle == .received && delivery.kind == .cast
        let listeners = registry.listeners(to: delivery.record.topic)
        return registry.handle(delivery, acknowledging: acknowledging, by: listeners) ? .taken : .turnedAway
    }

    func passed(_ topic: Topic, by sender: NodeIdentity) { registry.passed(topic, by: sender) }

    // MARK: Sending

    func send(_ order: WorkOrder, _ plan: UnicastSimulation.TopicPlan, _ kind: MessageKind, until: Instant) {
        sequences[plan.topic, default: 0] += 1
        let message = OutboundMessage(
            kind: kind, topic: plan.topic, sequence: sequences[plan.topic, default: 0],
            sentAtMicroseconds: 0, deadline: until, settle: kind == .call ? .processed : plan.route.settle,
            payload: order.payload, route: plan.route, mandatory: plan.route.mandatory)
        unicast.send(message, completion: .copy(receipt: order.key, identity))
        unicast.flushLinks()
    }

    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {
        if let receipt, state != .dead { simulation.ended(receipt, copy) }
    }

    // MARK: The directory

    func members(serving topic: Topic) -> [Member] {
        known.filter { $0.value.topics.contains(topic) }.sorted { $0.key.name < $1.key.name }.map {
            Member(identity: $0.key, server: $0.key.name, addresses: [$0.value.address])
        }
    }

    func learn(_ member: SimulatedMember) {
        guard state != .dead else { return }
        let older = known.keys.filter { $0.name == member.identity.name && $0 != member.identity }
        guard older.allSatisfy({ $0.incarnation < member.identity.incarnation }) else { return }
        known[member.identity] = (member.address, member.topics)
        for one in older {
            known[one] = nil
            unicast.memberGone(one)
        }
        unicast.membershipChanged()
    }

    /// `hasLeft`: it has said so itself.
    func forget(_ member: NodeIdentity, hasLeft: Bool) {
        guard state != .dead, known.removeValue(forKey: member) != nil else { return }
        hasLeft ? unicast.memberLeft(member) : unicast.memberGone(member)
        unicast.membershipChanged()
    }

    // MARK: The end

    /// It ends at once, wherever it was.
    func kill() {
        state = .dead
        simulation.network.kill("\(identity)")
        known = [:]
    }

    /// As a node stops: takes nothing new, lets handlers finish, ends its links.
    func stop(drain: Duration) {
        guard state == .running else { return }
        state = .stopping
        let until = Instant(loop) + drain
        unicast.leave()
        let served = registry.close()
        known[identity] = nil
        Task(executorPreference: executor) { [self] in
            for topic in served { await topic.withdraw(until: until) }
            // Who was killed meanwhile has a follower at its address.
            guard state != .dead else { return }
            simulation.network.listeners[address] = nil
            let left = max(.zero, until - Instant(loop))
            unicast.close(drain: left).whenComplete { [self] _ in
                guard state != .dead else { return }
                state = .stopped
                simulation.network.kill("\(identity)")
            }
        }
    }
}

/// What a message tells its handler to do.
struct WorkOrder: Sendable {
    enum Verdict: UInt8 {
        case reply
        case reject
        case release
    }

    static let bytes = 8 + 8 + 1 + 4
    var key: UInt64
    var work: Duration
    var verdict: Verdict
    var size: Int

    init(key: UInt64, work: Duration, verdict: Verdict, size: Int) {
        self.key = key
        self.work = work
        self.verdict = verdict
        self.size = max(size, Self.bytes)
    }

    /// Nil where the content is not what was sent.
    init?(_ payload: ByteBuffer) {
        var payload = payload
        guard let key = payload.readInteger(as: UInt64.self), let work = payload.readInteger(as: Int64.self),
            let verdict = payload.readInteger(as: UInt8.self).flatMap(Verdict.init),
            let size = payload.readInteger(as: UInt32.self),
            payload == Self.filling(key, Int(size) - Self.bytes)
        else { return nil }
        self.init(key: key, work: .nanoseconds(work), verdict: verdict, size: Int(size))
    }

    private static func filling(_ key: UInt64, _ count: Int) -> ByteBuffer {
        ByteBuffer(repeating: UInt8(truncatingIfNeeded: key), count: max(0, count))
    }

    var payload: ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(key)
        buffer.writeInteger(work.nanoseconds)
        buffer.writeInteger(verdict.rawValue)
        buffer.writeInteger(UInt32(size))
        buffer.writeRepeatingByte(UInt8(truncatingIfNeeded: key), count: size - Self.bytes)
        return buffer
    }

    /// The reply of one run, as large as the message.
    func reply(_ run: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(key)
        buffer.writeInteger(UInt32(run))
        buffer.writeRepeatingByte(UInt8(truncatingIfNeeded: key), count: size)
        return buffer
    }

    /// The run that gave a reply; nil where it is not the reply to this.
    func run(of reply: ByteBuffer) -> Int? {
        var reply = reply
        guard reply.readInteger(as: UInt64.self) == key, let run = reply.readInteger(as: UInt32.self),
            reply == Self.filling(key, size)
        else { return nil }
        return Int(run)
    }
}
