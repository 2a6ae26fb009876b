package import CastnetCore
package import Logging
package import NIOCore
import NIOPosix

/// Messages to and from single members over links: the persistent and the ephemeral carrier and the listener.
///
/// Confined to the node's event loop: every method is called there; that makes it sendable. Each message ends
/// in exactly one outcome: `finish` is the only way out of `outstanding`.
package final class Unicast: @unchecked Sendable {
    /// A message that has not ended. A class: it is looked at many times on its way and never copied.
    final class Outstanding {
        let message: OutboundMessage
        let completion: Completion
        /// The only member it may go to; nil: any that serves the topic.
        let pinned: Member?
        let startedAt: Instant
        /// The policy's, or persistent for a topic that is promoted.
        var carrier: Carrier
        var member: Member?
        weak var link: Link?
        var attempts = Attempts()
        /// The member that may have it, and gets it again until that is certain.
        var replayTo: Member?

        init(_ message: OutboundMessage, _ completion: Completion, pinned: Member?, startedAt: Instant) {
            self.message = message
            carrier = message.route.carrier
            self.completion = completion
            self.pinned = pinned
            self.startedAt = startedAt
        }
    }

    let loop: any EventLoop
    let identity: NodeIdentity
    let configuration: Configuration
    let counters: NodeCounters
    let log: Logger
    private weak var memberSource: (any MemberSource)?
    private weak var upper: (any UnicastSink)?
    private let nobody: Nobody
    /// A connection may outlive the node by its last event: then nobody serves and nobody listens.
    var members: any MemberSource { memberSource ?? nobody }
    var sink: any UnicastSink { upper ?? nobody }
    private(set) var now: Instant
    var generator: SeededGenerator
    let helloDeadline: Duration
    private(set) var outstanding: [UInt64: Outstanding] = [:]
    private var nextID: UInt64 = 1
    private var deadlines = DeadlineQueue()
    private var deadlineTimer: (at: Instant, task: Scheduled<Void>)?
    private var balancer: Balancer
    /// Messages on their way to members, of topics that are not sent in turns.
    private var outstandingPerMember: [NodeIdentity: Int] = [:]
    /// How often ephemeral topics are sent.
    var hotTopics: HotTopics
    var isCooling = false
    /// What the messages of persistent links are known by when they come again.
    var memories: PeerMemories
    /// Messages nobody serves yet, by topic, oldest first.
    private var unserved: [Topic: [UInt64]] = [:]
    /// Every link by its number, dialled or accepted, connected or not yet.
    var links: [UInt64: Link] = [:]
    var nextLink: UInt64 = 1
    /// The links that take new messages.
    var dialled: [Link.Key: Link] = [:]
    var dials: DialQueue
    var dialTimer: (at: Instant, task: Scheduled<Void>)?
    /// Connections that stand, and how many may.
    var budget: LinkBudget
    var isAcceptingPaused = false
    var acceptedPerPeer: [String: Int] = [:]
    /// Bytes of large messages and replies that have not come whole.
    var assembledBytes = 0
    /// By which link each member asks for missing frames.
    var askingLinks: [NodeIdentity: WeakLink] = [:]
    /// Peers that were probed and have not been heard since.
    private var doubted: Set<NodeIdentity> = []
    private var dirty: [Link] = []
    private var pausedLinks: [Link] = []
    var listener: (any Channel)?
    var unixListener: (any Channel)?
    /// The path of this node's Unix-domain socket; nil: it has none.
    package internal(set) var unixPath: String?
    var isLeaving = false
    var isClosing = false

    package init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, counters: NodeCounters,
        members: any MemberSource, sink: any UnicastSink, seed: UInt64, log: Logger,
        helloDeadline: Duration = .seconds(5)
    ) {
        self.loop = loop
        self.identity = identity
        self.configuration = configuration
        self.counters = counters
        memberSource = members
        upper = sink
        nobody = Nobody(loop: loop)
        self.log = log
        self.helloDeadline = helloDeadline
        now = MonotonicClock.now
        generator = SeededGenerator(seed: seed)
        balancer = Balancer(topicsMax: configuration.limits.topics)
        hotTopics = HotTopics(topicsMax: configuration.limits.topics)
        memories = PeerMemories(peersMax: configuration.limits.members)
        let limits = configuration.limits
        budget = LinkBudget(
            connections: limits.connections, perAddress: limits.perAddress, descriptors: .current)
        dials = DialQueue(
            dialsMax: limits.dials, linksMax: budget.linksMax, ordinaryMax: budget.ordinaryMax,
            perPeerMax: limits.perPeer, seed: generator.next())
        if budget.linksMax < limits.connections {
            log.warning(
                "the process may open too few files for limits.connections: raise its limit (ulimit -n)",
                metadata: ["castnet.limit": "\(limits.connections)", "castnet.links": "\(budget.linksMax)"])
        }
    }

    /// Reads the clock: once per wake-up of the loop.
    func tick() { now = MonotonicClock.now }

    // MARK: Sending

    /// Sends a message to one member that serves its topic, or to `pinned` and nobody else.
    ///
    /// It leaves with the next `flushLinks()`.
    package func send(_ message: OutboundMessage, to pinned: Member? = nil, completion: Completion) {
        tick()
        let id = nextID
        nextID += 1
        let entry = Outstanding(message, completion, pinned: pinned, startedAt: now)
        if let fault = fault(of: message) { return tell(entry, .rejected, fault) }
        if outstanding.count >= configuration.limits.pendingCalls {
            counters.add(.limitPendingCallsHit)
            let limit = configuration.limits.pendingCalls
            return tell(entry, .released, "limits.pending-calls: \(limit) messages are outstanding")
        }
        if message.route.carrier == .ephemeral { countTopic(of: entry) }
        outstanding[id] = entry
        deadlines.insert(id, at: message.deadline)
        if deadlines.count > 4096 + 2 * outstanding.count {
            deadlines.compact { outstanding[$0] != nil }
        }
        route(id, entry)
        armDeadline()
    }

    private func fault(of message: OutboundMessage) -> String? {
        let limit = configuration.limits.message
        if message.payload.readableBytes > limit {
            counters.add(.limitMessageHit)
            return "limits.message: \(message.payload.readableBytes) bytes; at most \(limit) are allowed"
        }
        if (message.server ?? "").utf8.count > 255 || (message.instance ?? "").utf8.count > 255 {
            return "a server's or an instance's name has more than 255 bytes"
        }
        return message.headers.fault
    }

    /// Finds a member and a link for a message.
    private func route(_ id: UInt64, _ entry: Outstanding) {
        let message = entry.message
        guard message.deadline > now else { return finish(id, .expired, "its deadline passed") }
        if isClosing { return finish(id, .released, "this node is stopping") }
        guard let member = entry.replayTo ?? entry.pinned ?? pickMember(for: entry) else {
            return waitForMember(id, entry)
        }
        entry.member = member
        if entry.replayTo == nil { entry.attempts.begin(at: member.identity) }
        if message.route.balance != .roundRobin { outstandingPerMember[member.identity, default: 0] += 1 }
        if member.identity == identity { return deliverHere(id, message) }
        let link = link(for: entry, to: member, id: id)
        if link.assigned.count >= max(1, message.route.backlog) {
            counters.add(.limitBacklogHit)
            let count = link.assigned.count
            return finish(id, .released, "backlog: \(count) messages wait for \(member.identity)")
        }
        entry.link = link
        link.assign(id)
    }

    private func pickMember(for entry: Outstanding) -> Member? {
        let message = entry.message
        var candidates = members.members(serving: message.topic)
        if message.server != nil || message.instance != nil {
            candidates.removeAll { member in
                (message.server != nil && member.server != message.server)
                    || (message.instance != nil && member.instance != message.instance)
            }
        }
        candidates = entry.attempts.preferred(candidates) { dials.isBackingOff($0, now: now) }
        return balancer.pick(candidates, topic: message.topic, balance: message.route.balance) {
            outstandingPerMember[$0, default: 0]
        }
    }

    private func unassign(_ entry: Outstanding) {
        entry.link = nil
        guard let member = entry.member?.identity, entry.message.route.balance != .roundRobin else { return }
        let count = outstandingPerMember[member, default: 1] - 1
        outstandingPerMember[member] = count > 0 ? count : nil
    }

    private func waitForMember(_ id: UInt64, _ entry: Outstanding) {
        let topic = entry.message.topic
        if entry.message.mandatory { return finish(id, .unroutable, "nobody serves \(topic)") }
        var waiting = unserved.removeValue(forKey: topic) ?? []
        if waiting.count >= entry.message.route.backlog { waiting.removeAll { outstanding[$0] == nil } }
        defer { unserved[topic] = waiting }
        if waiting.count >= entry.message.route.backlog {
            counters.add(.limitBacklogHit)
            return finish(id, .released, "backlog: \(waiting.count) messages wait for a member of \(topic)")
        }
        waiting.append(id)
    }

    /// The directory has changed: what waited for a member may have one now.
    package func membershipChanged() {
        tick()
        let waiting = unserved
        unserved = [:]
        for id in waiting.values.joined().sorted() {
            if let entry = outstanding[id] { route(id, entry) }
        }
        flushLinks()
    }

    /// A node says that it stops: nothing new goes to it, what it has it will answer.
    package func memberLeft(_ member: NodeIdentity) {
        tick()
        for (id, entry) in outstanding where entry.pinned?.identity == member {
            if !mayHaveBeenTaken(id, entry) { finish(id, .released, "\(member) has left") }
        }
        for link in links.values where link.key != nil && (link.peer ?? link.key?.peer) == member {
            retire(link)
            if link.isIdle { end(link, .stopping, .idle) }
        }
        flushLinks()
    }

    /// A node is gone for good: nothing of it will come back.
    package func memberGone(_ member: NodeIdentity) {
        tick()
        doubted.remove(member)
        askingLinks[member] = nil
        dials.peerGone(member, now: now)
        // Copies for it have nowhere else to go.
        for (id, entry) in outstanding where entry.pinned?.identity == member {
            finish(id, mayHaveBeenTaken(id, entry) ? .lost : .released, "\(member) is gone")
        }
        // What it may have taken is lost with it.
        for (id, entry) in outstanding where entry.replayTo?.identity == member {
            finish(id, .lost, "\(member) is gone")
        }
        for link in links.values where link.peer == member || link.key?.peer == member {
            link.isPeerGone = true
            end(link, .dead, .dead, "the directory says the node is gone")
        }
        startDials()
        flushLinks()
    }

    /// True unless it is certain that no member has looked at the message.
    private func mayHaveBeenTaken(_ id: UInt64, _ entry: Outstanding) -> Bool {
        entry.replayTo != nil || entry.link?.mayHaveBeenTaken(id) == true
    }

    /// The directory doubts a peer: whatever comes from it on a link refutes that.
    package func probe(_ member: NodeIdentity) {
        tick()
        for link in links.values where link.peer == member && link.isConnected {
            doubted.insert(member)
            link.probe()
        }
        flushLinks()
    }

    /// Bytes came from a peer.
    func heard(_ peer: NodeIdentity) {
        if doubted.remove(peer) != nil { sink.heard(peer) }
    }

    /// What a link sends for a message; nil when it has ended.
    func content(of id: UInt64) -> (MessageHead, ByteBuffer)? {
        guard let entry = outstanding[id] else { return nil }
        let message = entry.message
        let left = UInt64(max(0, (message.deadline - now).nanoseconds / 1000))
        var head = MessageHead(
            id: id, kind: message.kind, settle: message.settle, mandatory: message.mandatory,
            topic: message.topic, server: message.server, instance: message.instance,
            sequence: message.sequence, sentAtMicroseconds: message.sentAtMicroseconds,
            timeLeftMicroseconds: left, headers: message.headers,
            total: UInt64(message.payload.readableBytes))
        head.isAgain = entry.replayTo != nil
        return (head, message.payload)
    }

    // MARK: Endings

    /// Ends a message: the only way out of `outstanding`.
    private func finish(
        _ id: UInt64, _ outcome: Outcome, _ why: String? = nil, headers: Headers = Headers(),
        payload: ByteBuffer = ByteBuffer()
    ) {
        guard let entry = outstanding.removeValue(forKey: id) else { return }
        let link = entry.link
        unassign(entry)
        if let link {
            link.unassign(id, isUnwanted: outcome == .expired)
            link.closeIfDone(linger: jittered(entry.message.route.linger))
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
            carrier: isLocal ? .local : entry.carrier, latency: now - entry.startedAt,
            headers: headers, payload: payload)
        switch entry.completion {
        case .continuation(let continuation): continuation.resume(returning: result)
        case .copy(let receipt, let member):
            sink.ended(
                copy: result, receipt: receipt, member: member, bytes: entry.message.payload.readableBytes)
        }
    }

    /// A link no longer carries this message. `wasTaken`: its peer may have looked at it.
    func linkLost(_ id: UInt64, wasTaken: Bool, by link: Link, why: String) {
        guard let entry = outstanding[id] else { return }
        let isReplay = entry.replayTo != nil
        // While it is sent again, nobody answering says nothing; that nobody is there says it all.
        let mayReplay = link.mayReplay || (isReplay && !link.hasNoReplay)
        switch entry.attempts.linkLost(
            wasTaken: wasTaken || isReplay, mayReplay: mayReplay, route: entry.message.route)
        {
        case .end(let outcome): finish(id, outcome, why)
        case .replay:
            entry.replayTo = entry.member
            unassign(entry)
            retryLater(id, entry)
        case .again:
            entry.replayTo = nil
            unassign(entry)
            retryLater(id, entry)
        }
    }

    /// Tries again at once where somebody can be dialled, otherwise when the first back-off is over.
    private func retryLater(_ id: UInt64, _ entry: Outstanding) {
        counters.add(.messagesRetried)
        let candidates =
            (entry.replayTo ?? entry.pinned).map { [$0] } ?? members.members(serving: entry.message.topic)
        let waits = candidates.map { dials.backoffEnd($0.identity) ?? now }
        guard let earliest = waits.min(), earliest > now else { return route(id, entry) }
        loop.scheduleTask(deadline: earliest.nioDeadline) { [weak self] in
            guard let self, let entry = outstanding[id] else { return }
            tick()
            route(id, entry)
            flushLinks()
        }
    }

    /// Ends what is left when the node stops.
    func finishAll(_ why: String) {
        for (id, entry) in outstanding.sorted(by: { $0.key < $1.key }) {
            finish(id, mayHaveBeenTaken(id, entry) ? .lost : .released, why)
        }
        deadlineTimer?.task.cancel()
        dialTimer?.task.cancel()
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
            token: .link(link, id: head.id, topic: head.topic, bytes: payload.readableBytes), pausing: link)
    }

    private func deliverHere(_ id: UInt64, _ message: OutboundMessage) {
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
        if !sink.received(delivery, settle: head.settle), let link, link.pauseReading() {
            counters.add(.limitSubscriptionBacklogHit)
            pausedLinks.append(link)
        }
    }

    /// A full subscription has room again.
    package func resumeReading() {
        let links = pausedLinks
        pausedLinks = []
        for link in links { link.resumeReading() }
    }

    /// Carries out what handlers answered.
    package func answer(_ items: [AnswerDesk.Item]) {
        tick()
        for item in items {
            switch item {
            case .answer(.local(let id), let answer, _):
                let answer = sendable(answer)
                finish(id, answer.outcome, answer.why, headers: answer.headers, payload: answer.payload)
            case .answer(.link(let link, let id, let topic, let bytes), let answer, let isFinished):
                let link = send(sendable(answer), for: id, on: link)
                if isFinished { link?.finished(topic, bytes: bytes) }
            case .finished(.link(let link, _, let topic, let bytes)): link.finished(topic, bytes: bytes)
            case .finished(.local): break
            }
        }
        flushLinks()
    }

    /// Answers on the link by which the newest copy of the message came, and returns it; nil: it has ended.
    private func send(_ answer: Answer, for id: UInt64, on link: Link) -> Link? {
        let head = ReplyHead(
            id: id, outcome: answer.outcome, why: answer.why, headers: answer.headers,
            total: UInt64(answer.payload.readableBytes))
        var way: Link? = link
        if let memory = link.memory {
            let number = memory.window.handled(id, on: link.number)
            if number != link.number { way = links[number] }
        }
        guard let way, way.isConnected else {
            // It may be asked for again.
            link.memory?.window.answered(head, answer.payload, on: link.number)
            counters.add(.linkRepliesUnsent)
            return nil
        }
        way.send(head, answer.payload)
        return way
    }

    /// A handler's answer that no link takes becomes a rejection that says why.
    private func sendable(_ answer: Answer) -> Answer {
        let limit = configuration.limits.message
        if answer.payload.readableBytes > limit {
            counters.add(.limitMessageHit)
            let size = answer.payload.readableBytes
            return Answer(.rejected, why: "the reply has \(size) bytes; limits.message allows \(limit)")
        }
        if let fault = answer.headers.fault { return Answer(.rejected, why: "the reply's headers: \(fault)") }
        return answer
    }

    func answered(_ head: ReplyHead, _ payload: ByteBuffer, on link: Link) {
        guard let entry = outstanding[head.id] else { return counters.add(.linkRepliesLate) }
        let route = entry.message.route
        if head.outcome == .released,
            entry.attempts.released(isLeaving: link.isLeft, isPinned: entry.pinned != nil, route: route)
                == .again
        {
            link.unassign(head.id)
            unassign(entry)
            entry.replayTo = nil
            retryLater(head.id, entry)
            return link.closeIfDone(linger: jittered(route.linger))
        }
        finish(head.id, head.outcome, head.why, headers: head.headers, payload: payload)
    }

    /// The reply to a message cannot be taken in.
    func unanswerable(_ head: ReplyHead, _ why: String) { finish(head.id, .lost, why) }

    /// True when the parts of another large message fit the memory set aside for them.
    var mayAssemble: Bool { assembledBytes <= configuration.limits.memory / 2 }

    // MARK: Flushing

    func needsFlush(_ link: Link) { dirty.append(link) }

    /// Writes out what was queued since the last call: once per batch, not per message.
    package func flushLinks() {
        while !dirty.isEmpty {
            let links = dirty
            dirty.removeAll(keepingCapacity: true)
            for link in links { link.flush() }
        }
    }
}
