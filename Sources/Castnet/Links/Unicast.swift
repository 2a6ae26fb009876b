package import CastnetCore
import DequeModule
package import Logging
package import NIOCore
import NIOPosix

/// Messages to and from single members over links: the persistent and the ephemeral carrier and the listener.
///
/// Confined to the node's event loop: every method is called there; that makes it sendable. Nobody holds it
/// weakly (see ``Link``): timers keep it until they are over. Each message ends
/// in exactly one outcome: `finish` is the only way out of `outstanding`.
package final class Unicast: @unchecked Sendable {
    let loop: any EventLoop
    let identity: NodeIdentity
    let configuration: Configuration
    let counters: NodeCounters
    let log: Logger
    @exclusivity(unchecked) private weak var memberSource: (any MemberSource)?
    @exclusivity(unchecked) private weak var upper: (any UnicastSink)?
    private let nobody: Nobody
    /// A connection may outlive the node by its last event: then nobody serves and nobody listens.
    var members: any MemberSource { memberSource ?? nobody }
    var sink: any UnicastSink { upper ?? nobody }
    @exclusivity(unchecked) private(set) var now: Instant
    var generator: SeededGenerator
    let helloDeadline: Duration
    let connector: any Connector
    @exclusivity(unchecked) var outstanding: [UInt64: Outstanding] = [:]
    @exclusivity(unchecked) private var nextID: UInt64 = 1
    @exclusivity(unchecked) private var deadlines = DeadlineQueue()
    @exclusivity(unchecked) private var deadlineTimer: (at: Instant, task: Scheduled<Void>)?
    @exclusivity(unchecked) private var balancer: Balancer
    /// Messages on their way to members, of topics that are not sent in turns.
    @exclusivity(unchecked) private var outstandingPerMember: [NodeIdentity: Int] = [:]
    /// How often ephemeral topics are sent.
    @exclusivity(unchecked) var hotTopics: HotTopics
    var isCooling = false
    /// What the messages of persistent links are known by when they come again.
    @exclusivity(unchecked) var memories: PeerMemories
    /// How much members take of topics that are balanced by capacity.
    var capacity: CapacityBook
    /// Messages nobody serves yet, by topic, oldest first.
    @exclusivity(unchecked) var unserved: [Topic: Deque<UInt64>] = [:]
    /// Messages whose members all have their hands full, oldest first.
    @exclusivity(unchecked) var crowded: [Target: Deque<UInt64>] = [:]
    /// Where messages were turned away, on which links their members will call, and how long those linger.
    @exclusivity(unchecked) var doors: [Door: (linger: Duration, links: Set<UInt64>)] = [:]
    /// Messages past `limits.pending-calls`, oldest first; may hold some that have ended.
    var parked = Deque<UInt64>()
    /// Messages to this node itself that found no room here, oldest first.
    @exclusivity(unchecked) var ownWaiting: [Topic: [UInt64]] = [:]
    var isMakingWay = false
    @exclusivity(unchecked) var parkedCount = 0
    /// Every link by its number, dialled or accepted, connected or not yet.
    @exclusivity(unchecked) var links: [UInt64: Link] = [:]
    var nextLink: UInt64 = 1
    /// The links that take new messages.
    @exclusivity(unchecked) var dialled: [Link.Key: Link] = [:]
    var dials: DialQueue
    var dialTimer: (at: Instant, task: Scheduled<Void>)?
    /// Connections that stand, and how many may.
    var budget: LinkBudget
    /// How many hellos are taken in a second.
    var greetings: GreetingPace
    var isAcceptingPaused = false
    var acceptedPerPeer: [String: Int] = [:]
    /// Bytes of large messages and replies that have not come whole.
    @exclusivity(unchecked) var assembledBytes = 0
    /// The number of the link by which each member asks for missing frames.
    var askingLinks: [NodeIdentity: UInt64] = [:]
    /// The numbers of the links on which peers last said something of the directory, and those to its seeds.
    var directoryLinks: [NodeIdentity: UInt64] = [:]
    var seedLinks: [HostPort: UInt64] = [:]
    /// Peers that were probed and have not been heard since.
    @exclusivity(unchecked) private var doubted: Set<NodeIdentity> = []
    @exclusivity(unchecked) private var dirty: [Link] = []
    var pausedLinks: [Link] = []
    var listener: (any Channel)?
    var unixListener: (any Channel)?
    /// The path of this node's Unix-domain socket; nil: it has none.
    package internal(set) var unixPath: String?
    var isLeaving = false
    @exclusivity(unchecked) var isClosing = false

    package init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, counters: NodeCounters,
        members: any MemberSource, sink: any UnicastSink, seed: UInt64, log: Logger,
        helloDeadline: Duration = .seconds(5), connector: any Connector = SocketConnector()
    ) {
        self.loop = loop
        self.connector = connector
        self.identity = identity
        self.configuration = configuration
        self.counters = counters
        memberSource = members
        upper = sink
        nobody = Nobody(loop: loop)
        self.log = log
        self.helloDeadline = helloDeadline
        now = MonotonicClock.now(of: loop)
        generator = SeededGenerator(seed: seed)
        balancer = Balancer(topicsMax: configuration.limits.topics)
        capacity = CapacityBook(topicsMax: configuration.limits.topics)
        hotTopics = HotTopics(topicsMax: configuration.limits.topics)
        memories = PeerMemories(peersMax: configuration.limits.members)
        let limits = configuration.limits
        budget = LinkBudget(
            connections: limits.connections, perAddress: limits.perAddress, descriptors: .current)
        dials = DialQueue(
            dialsMax: limits.dials, linksMax: budget.linksMax, ordinaryMax: budget.ordinaryMax,
            perPeerMax: limits.perPeer, seed: generator.next())
        greetings = GreetingPace(perSecond: limits.hellos, seed: seed &+ 0x6865_6C6C_6F73)
        if budget.linksMax < limits.connections {
            log.warning(
                "the process may open too few files for limits.connections: raise its limit (ulimit -n)",
                metadata: ["castnet.limit": "\(limits.connections)", "castnet.links": "\(budget.linksMax)"])
        }
    }

    /// Reads the clock: once per wake-up of the loop.
    func tick() { now = MonotonicClock.now(of: loop) }

    // MARK: Sending

    /// Sends a message to one member that serves its topic, or to `pinned` and nobody else.
    ///
    /// It leaves with the next `flushLinks()`.
    package func send(_ message: OutboundMessage, to pinned: Member? = nil, completion: Completion) {
        tick()
        sendNow(message, to: pinned, completion: completion)
    }

    /// The same for one of several at the time of the last `tick()`.
    func sendNow(_ message: OutboundMessage, to pinned: Member? = nil, completion: Completion) {
        let id = nextID
        nextID += 1
        let entry = Outstanding(message, completion, pinned: pinned, startedAt: now)
        if let fault = fault(of: message) { return tell(entry, .rejected, fault) }
        if message.route.carrier == .ephemeral { countTopic(of: entry) }
        outstanding[id] = entry
        deadlines.insert(id, at: message.deadline)
        if deadlines.count > 4096 + 2 * outstanding.count {
            deadlines.compact { outstanding[$0] != nil }
        }
        if outstanding.count - parkedCount > configuration.limits.pendingCalls {
            park(id, entry)
        } else {
            route(id, entry)
        }
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

    /// Finds a member and a link for a message. `isFirst`: no other waits before it for a free handler.
    func route(_ id: UInt64, _ entry: Outstanding, isFirst: Bool = false) {
        let message = entry.message
        guard message.deadline > now else { return finish(id, .expired, "its deadline passed") }
        if isClosing {
            return finish(id, mayHaveBeenTaken(id, entry) ? .lost : .released, "this node is stopping")
        }
        let member: Member
        switch entry.replayTo ?? entry.pinned {
        case let known?: member = known
        case nil:
            let candidates = candidates(for: entry)
            if candidates.isEmpty { return waitForMember(id, entry) }
            guard isFirst || crowded.isEmpty || crowded[entry.target] == nil,
                let picked = pick(candidates, for: entry)
            else {
                crowd(id, entry.target)
                // It may have come when there was room, behind one that came when there was none.
                return isFirst ? () : wakeCrowded(entry.target)
            }
            member = picked
        }
        entry.member = member
        entry.sentAt = now
        if entry.replayTo == nil { entry.attempts.begin(at: member.identity) }
        count(entry, at: member.identity)
        if member.identity == identity {
            let isBehind = !entry.isPrompt && ownWaiting[message.topic] != nil
            return isBehind ? waitForOwnRoom(id, entry) : deliverHere(id, entry)
        }
        let link = link(for: entry, to: member, id: id)
        entry.link = link
        guard link.assigned.count < max(1, message.route.backlog) else {
            counters.add(.limitBacklogHit)
            return link.wait(id)
        }
        link.assign(id)
    }

    private func count(_ entry: Outstanding, at member: NodeIdentity) {
        switch entry.message.route.balance {
        case .roundRobin: break
        case .leastOutstanding: outstandingPerMember[member, default: 0] += 1
        case .capacity: if entry.isPrompt { capacity.sent(entry.message.topic, to: member) }
        }
    }

    func candidates(for entry: Outstanding) -> [Member] {
        let candidates = entry.target.candidates(members.members(serving: entry.message.topic))
        return entry.attempts.preferred(candidates) { dials.isBackingOff($0, now: now) }
    }

    /// Nil: none of them has a free handler.
    private func pick(_ candidates: [Member], for entry: Outstanding) -> Member? {
        let message = entry.message
        if message.route.balance == .capacity { return capacity.pick(candidates, topic: message.topic) }
        return balancer.pick(candidates, for: entry.target, balance: message.route.balance) {
            outstandingPerMember[$0, default: 0]
        }
    }

    /// The message is its member's no longer. `isAnswered`: the member has finished it.
    func unassign(_ entry: Outstanding, isAnswered: Bool = false) {
        entry.link = nil
        guard let member = entry.member?.identity else { return }
        entry.member = nil
        switch entry.message.route.balance {
        case .roundRobin: break
        case .leastOutstanding:
            let count = outstandingPerMember[member, default: 1] - 1
            outstandingPerMember[member] = count > 0 ? count : nil
        case .capacity: if entry.isPrompt { hasEnded(entry, at: member, isAnswered: isAnswered) }
        }
    }

    /// The directory has changed: what waited for a member may have one now.
    package func membershipChanged() {
        tick()
        let waiting = unserved
        unserved = [:]
        for id in waiting.values.joined().sorted() {
            if let entry = outstanding[id] { route(id, entry) }
        }
        for target in Array(crowded.keys) { wakeCrowded(target) }
        flushLinks()
    }

    /// A member's record has changed: links for a topic that it has dropped have nothing to do any more.
    package func memberUpdated(_ member: NodeIdentity, hears: (Topic) -> Bool) {
        tick()
        for link in links.values where link.key?.peer == member {
            guard let topic = link.key?.topic else { continue }
            link.isForsaken = !hears(topic)
            if link.isForsaken { link.closeIfDone(linger: .zero) }
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
            if link.isUnused { end(link, .stopping, .idle) }
        }
        flushLinks()
    }

    /// A node is gone for good: nothing of it will come back.
    package func memberGone(_ member: NodeIdentity) {
        tick()
        doubted.remove(member)
        askingLinks[member] = nil
        directoryLinks[member] = nil
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
    func mayHaveBeenTaken(_ id: UInt64, _ entry: Outstanding) -> Bool {
        if entry.replayTo != nil || entry.link?.mayHaveBeenTaken(id) == true { return true }
        // A handler of this node may be busy with it.
        return entry.member?.identity == identity && ownWaiting[entry.message.topic]?.contains(id) != true
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

    /// What a link sends for a message, now; nil when it has ended.
    func content(of id: UInt64) -> (MessageHead, ByteBuffer)? {
        guard let entry = outstanding[id] else { return nil }
        entry.sentAt = now
        let message = entry.message
        let left = UInt64(max(0, (message.deadline - now).nanoseconds / 1000))
        var head = MessageHead(
            id: id, kind: message.kind, settle: message.settle, mandatory: message.mandatory,
            topic: message.topic, server: message.server, instance: message.instance,
            sequence: message.sequence, sentAtMicroseconds: message.sentAtMicroseconds,
            timeLeftMicroseconds: left, headers: message.headers,
            total: UInt64(message.payload.readableBytes))
        head.isAgain = entry.replayTo != nil
        head.isPrompt = entry.isPrompt
        head.isClaimed = entry.isClaimed
        return (head, message.payload)
    }

    // MARK: Endings

    /// Ends a message: the only way out of `outstanding`.
    func finish(
        _ id: UInt64, _ outcome: Outcome, _ why: String? = nil, headers: Headers = Headers(),
        payload: ByteBuffer = ByteBuffer(), isAnswered: Bool = false
    ) {
        guard let entry = outstanding.removeValue(forKey: id) else { return }
        // Only this attempt is sure not to have executed it.
        let outcome = entry.attempts.mayHaveRun && outcome.saysNotExecuted ? .lost : outcome
        if entry.isParked { parkedCount -= 1 }
        if entry.member == nil { stopWaiting(entry) }
        let (link, member) = (entry.link, entry.member?.identity)
        unassign(entry, isAnswered: isAnswered)
        if let link {
            link.unassign(id, isUnwanted: outcome == .expired)
            link.closeIfDone(linger: linger(of: entry.message.route))
        }
        tell(entry, outcome, why, member: member, headers: headers, payload: payload)
        makeWay(after: entry)
    }

    /// How long an ephemeral link waits for more: one that is a message's own has nothing to wait for.
    func linger(of route: Route) -> Duration {
        route.share && route.linger > .zero ? generator.jitter(route.linger, in: 0.8...1.0) : .zero
    }

    func tell(
        _ entry: Outstanding, _ outcome: Outcome, _ why: String?, member: NodeIdentity? = nil,
        headers: Headers = Headers(), payload: ByteBuffer = ByteBuffer()
    ) {
        let isLocal = member == identity
        let result = SendResult(
            outcome: outcome, why: why, member: member,
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
            entry.replayTo = entry.member ?? entry.replayTo
            unassign(entry)
            retryLater(id, entry)
            makeWay(after: entry)
        case .again:
            entry.replayTo = nil
            unassign(entry)
            retryLater(id, entry)
            makeWay(after: entry)
        }
    }

    /// Tries again at once where somebody can be dialled, otherwise when the first back-off is over.
    func retryLater(_ id: UInt64, _ entry: Outstanding) {
        counters.add(.messagesRetried)
        let candidates =
            (entry.replayTo ?? entry.pinned).map { [$0] } ?? members.members(serving: entry.message.topic)
        let waits = candidates.map { dials.backoffEnd($0.identity) ?? now }
        guard let earliest = waits.min(), earliest > now else { return route(id, entry) }
        loop.scheduleTask(deadline: earliest.nioDeadline) { [self] in
            guard let entry = outstanding[id] else { return }
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
            loop.scheduleTask(deadline: next.nioDeadline) { [self] in
                tick()
                deadlineTimer = nil
                for id in deadlines.takeDue(now: now) {
                    if let entry = outstanding[id] { finish(id, .expired, whyExpired(entry)) }
                }
                flushLinks()
                armDeadline()
            }
        )
    }

    /// What a message was waiting for.
    private func whyExpired(_ entry: Outstanding) -> String {
        if entry.isParked { return "limits.pending-calls: others did not end before the deadline" }
        guard entry.member != nil else { return "no member took it before the deadline" }
        if let link = entry.link, !link.isConnected { return "no connection before the deadline" }
        return "no answer before the deadline"
    }

    // MARK: Flushing

    func needsFlush(_ link: Link) { dirty.append(link) }

    /// Writes out what was queued since the last call: once per batch, not per message.
    package func flushLinks() {
        var links: [Link] = []
        while !dirty.isEmpty {
            // Both keep their room, so that no turn has to make its own.
            swap(&links, &dirty)
            for link in links { link.flush() }
            links.removeAll(keepingCapacity: true)
            if dirty.isEmpty { swap(&links, &dirty) }
        }
    }
}
