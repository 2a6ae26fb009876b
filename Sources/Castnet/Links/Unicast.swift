package import CastnetCore
import DequeModule
package import Logging
package import NIOCore
import NIOPosix

/// Messages to and from single members over links: the persistent and the ephemeral carrier and the listener.
///
/// Confined to the node's event loop: every method is called there; that makes it sendable. Each message ends
/// in exactly one outcome: `finish` is the only way out of `outstanding`.
package final class Unicast: @unchecked Sendable {
    /// A message that has not ended.
    struct Outstanding {
        var message: OutboundMessage
        var completion: Completion
        /// The only member it may go to; nil: any that serves the topic.
        var pinned: Member?
        var member: Member?
        weak var link: Link?
        var tried: Set<NodeIdentity> = []
        var attempts = 0
        var startedAt: Instant
    }

    let loop: any EventLoop
    let identity: NodeIdentity
    let configuration: Configuration
    let counters: NodeCounters
    let log: Logger
    unowned let members: any MemberSource
    unowned let sink: any UnicastSink
    private(set) var now: Instant
    var generator: SeededGenerator
    var outstanding: [UInt64: Outstanding] = [:]
    private var nextID: UInt64 = 1
    private var deadlines = DeadlineQueue()
    private var deadlineTimer: (at: Instant, task: Scheduled<Void>)?
    var balancer: Balancer
    var outstandingPerMember: [NodeIdentity: Int] = [:]
    /// Messages nobody serves yet, by topic, oldest first.
    private var unserved: [Topic: [UInt64]] = [:]
    /// Every link, dialled or accepted, connected or not yet.
    var links: [ObjectIdentifier: Link] = [:]
    var dialled: [Link.Key: Link] = [:]
    var backoffs: [NodeIdentity: Backoff] = [:]
    var waitingDials = Deque<Link>()
    var dialsInFlight = 0
    var perAddress: [String: Int] = [:]
    private var dirty: [Link] = []
    private var assembling = 0
    private var pausedLinks: [Link] = []
    var listener: (any Channel)?
    var isClosing = false

    package init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, counters: NodeCounters,
        members: any MemberSource, sink: any UnicastSink, seed: UInt64, log: Logger
    ) {
        self.loop = loop
        self.identity = identity
        self.configuration = configuration
        self.counters = counters
        self.members = members
        self.sink = sink
        self.log = log
        now = MonotonicClock.now
        generator = SeededGenerator(seed: seed)
        balancer = Balancer(topicsMax: configuration.limits.topics)
    }

    /// Reads the clock: once per wake-up of the loop.
    func tick() { now = MonotonicClock.now }

    // MARK: Sending

    /// Sends a batch, each message to one member; a `pinned` one to nobody else.
    package func send(_ message: OutboundMessage, to pinned: Member? = nil, completion: Completion) {
        tick()
        let id = nextID
        nextID += 1
        let entry = Outstanding(message: message, completion: completion, pinned: pinned, startedAt: now)
        if outstanding.count >= configuration.limits.pendingCalls {
            counters.add(.limitPendingCallsHit)
            let limit = configuration.limits.pendingCalls
            return tell(entry, .released, "limits.pending-calls: \(limit) messages are outstanding")
        }
        outstanding[id] = entry
        deadlines.insert(id, at: message.deadline)
        if deadlines.count > 4096 + 2 * outstanding.count {
            deadlines.compact { outstanding[$0] != nil }
        }
        route(id)
        armDeadline()
    }

    /// Finds a member and a link for a message.
    func route(_ id: UInt64) {
        guard let entry = outstanding[id] else { return }
        guard entry.message.deadline > now else { return finish(id, .expired, "its deadline passed") }
        if isClosing { return finish(id, .released, "this node is stopping") }
        guard let member = entry.pinned ?? pickMember(for: entry) else { return waitForMember(id) }
        assign(id, to: member)
        if member.identity == identity { return deliverHere(id) }
        let key = linkKey(for: entry.message, to: member, id: id)
        let link = dialled[key] ?? dial(key, to: member)
        if link.assigned.count >= max(1, entry.message.route.backlog) {
            counters.add(.limitBacklogHit)
            return finish(
                id, .released, "backlog: \(link.assigned.count) messages wait for \(member.identity)")
        }
        outstanding[id]?.link = link
        link.assigned[id] = false
        if link.isConnected { transmit(id, on: link) }
    }

    private func pickMember(for entry: Outstanding) -> Member? {
        let message = entry.message
        let candidates = members.members(serving: message.topic).filter { member in
            (message.server == nil || member.server == message.server)
                && (message.instance == nil || member.instance == message.instance)
        }
        // A member that failed gets it again only where no other is left; one in back-off only when all are.
        let untried = candidates.filter { !entry.tried.contains($0.identity) }
        let open = untried.filter { (backoffs[$0.identity]?.until).map { $0 <= now } ?? true }
        let choice = !open.isEmpty ? open : (!untried.isEmpty ? untried : candidates)
        return balancer.pick(choice, topic: message.topic, balance: message.route.balance) {
            outstandingPerMember[$0, default: 0]
        }
    }

    private func assign(_ id: UInt64, to member: Member) {
        outstanding[id]?.member = member
        outstanding[id]?.attempts += 1
        outstandingPerMember[member.identity, default: 0] += 1
    }

    private func unassign(_ id: UInt64) {
        guard let member = outstanding[id]?.member?.identity else { return }
        outstanding[id]?.member = nil
        let count = outstandingPerMember[member, default: 1] - 1
        outstandingPerMember[member] = count > 0 ? count : nil
    }

    private func waitForMember(_ id: UInt64) {
        guard let message = outstanding[id]?.message else { return }
        if message.mandatory { return finish(id, .unroutable, "nobody serves \(message.topic)") }
        let waiting = unserved[message.topic]?.count ?? 0
        if waiting >= message.route.backlog {
            counters.add(.limitBacklogHit)
            return finish(id, .released, "backlog: \(waiting) messages wait for a member of \(message.topic)")
        }
        unserved[message.topic, default: []].append(id)
    }

    /// The directory has changed: what waited for a member may have one now.
    package func membershipChanged() {
        tick()
        let waiting = unserved
        unserved = [:]
        for id in waiting.values.joined().sorted() { route(id) }
        flushLinks()
    }

    /// A node is gone for good: nothing of it will come back.
    package func memberGone(_ member: NodeIdentity) {
        tick()
        backoffs[member] = nil
        for link in links.values where link.peer == member || link.key?.peer == member {
            link.finish(.dead, .dead, "the directory says the node is gone")
            if !link.isConnected { abandon(link) }
        }
        let pinned = outstanding.filter { $0.value.pinned?.identity == member && $0.value.link == nil }
        for id in pinned.keys { finish(id, .released, "\(member) is gone") }
    }

    func transmit(_ id: UInt64, on link: Link) {
        guard let entry = outstanding[id] else { return }
        link.assigned[id] = true
        let message = entry.message
        let left = UInt64(max(0, (message.deadline - now).nanoseconds / 1000))
        link.send(
            MessageHead(
                id: id, kind: message.kind, settle: message.settle, mandatory: message.mandatory,
                topic: message.topic, server: message.server, instance: message.instance,
                sequence: message.sequence, sentAtMicroseconds: message.sentAtMicroseconds,
                timeLeftMicroseconds: left, headers: message.headers,
                total: UInt64(message.payload.readableBytes)),
            message.payload)
    }

    // MARK: Endings

    /// Ends a message: the only way out of `outstanding`.
    func finish(
        _ id: UInt64, _ outcome: Outcome, _ why: String? = nil, headers: Headers = Headers(),
        payload: ByteBuffer = ByteBuffer()
    ) {
        guard let entry = outstanding[id] else { return }
        unassign(id)
        outstanding[id] = nil
        if let link = entry.link {
            let wasSent = link.assigned.removeValue(forKey: id) ?? false
            link.forgetReply(id)
            if outcome == .expired, wasSent { link.cancel(id) }
            link.restIfIdle(linger: jittered(entry.message.route.linger))
        }
        tell(entry, outcome, why, headers: headers, payload: payload)
    }

    private func jittered(_ linger: Duration) -> Duration {
        linger > .zero ? generator.jitter(linger, in: 0.8...1.0) : .zero
    }

    private func tell(
        _ entry: Outstanding, _ outcome: Outcome, _ why: String?, headers: Headers = Headers(),
        payload: ByteBuffer = ByteBuffer()
    ) {
        let isLocal = entry.member?.identity == identity
        let result = SendResult(
            outcome: outcome, why: why, member: entry.member?.identity,
            carrier: isLocal ? .local : entry.message.route.carrier, latency: now - entry.startedAt,
            headers: headers, payload: payload)
        switch entry.completion {
        case .continuation(let continuation): continuation.resume(returning: result)
        case .copy(let receipt, let member):
            sink.ended(
                copy: result, receipt: receipt, member: member, bytes: entry.message.payload.readableBytes)
        }
    }

    /// A link is gone with this message on it.
    func linkLost(_ id: UInt64, wasSent: Bool, refused: Bool, why: String) {
        guard let entry = outstanding[id] else { return }
        let route = entry.message.route
        if !wasSent || refused {
            // It certainly was not executed: another member may have it, or the same one after its back-off.
            if let member = entry.member?.identity { outstanding[id]?.tried.insert(member) }
            return retryLater(id)
        }
        let mayRepeat = route.retry != .none && route.idempotent && entry.attempts < route.attempts
        guard mayRepeat else { return finish(id, .lost, why) }
        if route.retry == .otherMember, let member = entry.member?.identity {
            outstanding[id]?.tried.insert(member)
        }
        retryLater(id)
    }

    /// Tries again at once where somebody can be dialled, otherwise when the back-off is over.
    private func retryLater(_ id: UInt64) {
        guard let entry = outstanding[id] else { return }
        unassign(id)
        outstanding[id]?.link = nil
        counters.add(.messagesRetried)
        let candidates = entry.pinned.map { [$0] } ?? members.members(serving: entry.message.topic)
        let waits = candidates.map { backoffs[$0.identity]?.until ?? now }
        guard let earliest = waits.min(), earliest > now else { return route(id) }
        loop.scheduleTask(deadline: earliest.nioDeadline) { [weak self] in
            guard let self else { return }
            tick()
            route(id)
            flushLinks()
        }
    }

    private func armDeadline() {
        guard let next = deadlines.next else { return }
        if let timer = deadlineTimer, timer.at <= next { return }
        deadlineTimer?.task.cancel()
        deadlineTimer = (
            next,
            loop.scheduleTask(deadline: next.nioDeadline) { [weak self] in
                guard let self else { return }
                tick()
                deadlineTimer = nil
                for id in deadlines.takeDue(now: now) {
                    finish(id, .expired, "no answer before the deadline")
                }
                flushLinks()
                armDeadline()
            }
        )
    }

    // MARK: Receiving

    func received(_ head: MessageHead, _ payload: ByteBuffer, on link: Link) {
        guard let peer = link.peer else { return }
        deliver(
            head, payload, from: peer, carrier: link.carrier,
            deadline: now + .microseconds(Int64(min(head.timeLeftMicroseconds, 1 << 50))),
            token: .link(link, id: head.id), pausing: link)
    }

    private func deliverHere(_ id: UInt64) {
        guard let message = outstanding[id]?.message else { return }
        let head = MessageHead(
            id: id, kind: message.kind, settle: message.settle, topic: message.topic, server: message.server,
            sequence: message.sequence, sentAtMicroseconds: message.sentAtMicroseconds,
            timeLeftMicroseconds: 0, headers: message.headers, total: UInt64(message.payload.readableBytes))
        deliver(
            head, message.payload, from: identity, carrier: .local, deadline: message.deadline,
            token: .local(id: id), pausing: nil)
    }

    private func deliver(
        _ head: MessageHead, _ payload: ByteBuffer, from: NodeIdentity, carrier: Carrier, deadline: Instant,
        token: ReplyToken, pausing link: Link?
    ) {
        let record = InboundRecord(
            topic: head.topic, from: from, firstSequence: head.sequence,
            sentAtMicroseconds: head.sentAtMicroseconds, headers: head.headers, body: payload)
        let delivery = Delivery(
            record, kind: head.kind, carrier: carrier, server: head.server, deadline: deadline,
            answer: AnswerSlip(token, desk: sink.answers))
        if !sink.received(delivery, settle: head.settle), let link {
            counters.add(.limitSubscriptionBacklogHit)
            link.pauseReading()
            pausedLinks.append(link)
        }
    }

    /// A full subscription has room again.
    package func resumeReading() {
        for link in pausedLinks { link.resumeReading() }
        pausedLinks = []
    }

    /// Carries out what handlers answered.
    package func answer(_ answers: [(ReplyToken, Answer)]) {
        tick()
        for (token, answer) in answers {
            switch token {
            case .local(let id):
                finish(id, answer.outcome, answer.why, headers: answer.headers, payload: answer.payload)
            case .link(let link, let id):
                let head = ReplyHead(
                    id: id, outcome: answer.outcome, why: answer.why, headers: answer.headers,
                    total: UInt64(answer.payload.readableBytes))
                link.send(head, answer.payload)
            }
        }
        flushLinks()
    }

    func answered(_ head: ReplyHead, _ payload: ByteBuffer, on link: Link) {
        guard link.assigned[head.id] != nil else { return counters.add(.linkRepliesLate) }
        if head.outcome == .released, outstanding[head.id]?.message.route.retry == .otherMember,
            let entry = outstanding[head.id], entry.pinned == nil,
            entry.attempts < entry.message.route.attempts
        {
            link.assigned[head.id] = nil
            return linkLost(head.id, wasSent: false, refused: true, why: head.why ?? "released")
        }
        finish(head.id, head.outcome, head.why, headers: head.headers, payload: payload)
    }

    func unassemblable(_ head: ReplyHead, on link: Link) {
        guard link.assigned[head.id] != nil else { return counters.add(.linkRepliesLate) }
        counters.add(.limitMemoryHit)
        finish(head.id, .lost, "no memory for a reply of \(head.total) bytes")
    }

    /// True when the parts of another large message fit the memory set aside for them.
    func mayAssemble(_ total: UInt64) -> Bool {
        total <= UInt64(configuration.limits.message) && assembling <= configuration.limits.memory / 2
    }

    func assembled(_ bytes: Int) { assembling += bytes }

    // MARK: Flushing

    func needsFlush(_ link: Link) { dirty.append(link) }

    /// Writes out what was queued since the last call: once per batch, not per message.
    package func flushLinks() {
        let links = dirty
        dirty.removeAll(keepingCapacity: true)
        for link in links { link.flush() }
    }
}
