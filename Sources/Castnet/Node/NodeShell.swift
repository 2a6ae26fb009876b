import CastnetCore
import CastnetMulticast
import Logging
import NIOCore

/// What callers leave for the loop.
enum Outgoing: Sendable {
    case toOne(OutboundMessage, Completion)
    /// Copies of a fanout; the token names the receipt that waits for them.
    case copies(OutboundMessage, [Member], receipt: UInt64?)
    case receipt(
        UInt64, Topic, delivered: [Receipt.Row], waiting: [NodeIdentity], channel: String?,
        settle: Settlement,
        deadline: Instant)
    case await(UInt64, UnsafeContinuation<[Receipt.Row], Never>)
}

/// The part of a node that lives on its event loop: links, directory, receipts, timers.
///
/// Every method is called on the loop unless it says otherwise; that confinement is what makes the class
/// sendable. Other threads reach it through the mailboxes that ``Node`` owns.
final class NodeShell: @unchecked Sendable {
    let loop: any EventLoop
    let identity: NodeIdentity
    let configuration: Configuration
    let registry: Registry
    let view: MembershipView
    let discovery: [any Discovery]
    let counters: NodeCounters
    let log: Logger
    let executor: LoopExecutor
    // Set once in Node.init; the node outlives every use.
    weak var node: Node?
    private(set) var unicast: Unicast!
    /// nil until the channels are open: links are accepted, and peers talk, before that.
    private(set) var directory: DirectoryShell?
    private var generator: SeededGenerator
    private(set) lazy var answers = AnswerDesk(loop: loop) { [weak self] in self?.unicast.answer($0) }
    private var book = ReceiptBook()
    /// Who waits for which receipt, and receipts that closed before anybody did.
    private var waiting: [UInt64: UnsafeContinuation<[Receipt.Row], Never>] = [:]
    private var closed: [UInt64: [Receipt.Row]] = [:]
    /// Whose missing frames were asked for: the channels of the peer's streams.
    var repairing: [NodeIdentity: [UInt64: String]] = [:]
    /// Frames that go over links because the group is not heard.
    var unicastPaths: [PathKey: PathChange.Reason] = [:]
    /// Channels with a policy that has another way for members that do not hear the group.
    private(set) lazy var unicastChannels = Set(
        configuration.policies.map(\.route).filter { $0.fallback == .unicast }.compactMap(\.channel))
    private(set) lazy var watch = InterfaceWatch(shell: self)
    /// Channels with a policy that replays what senders keep to those that join late.
    private lazy var replayedChannels = Set(
        configuration.policies.map(\.route).filter { $0.lateJoin == .retained }.compactMap(\.channel))
    private var admin: AdminListener?
    private let startedAt = MonotonicClock.now
    private var receiptTimer: (at: Instant, task: Scheduled<Void>)?

    init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, registry: Registry,
        view: MembershipView, discovery: [any Discovery], counters: NodeCounters, log: Logger, seed: UInt64
    ) {
        self.discovery = discovery
        self.loop = loop
        self.identity = identity
        self.configuration = configuration
        self.registry = registry
        self.view = view
        self.counters = counters
        self.log = log
        executor = LoopExecutor(loop)
        generator = SeededGenerator(seed: seed)
    }

    // MARK: Start and stop, called from tasks

    func start() async throws -> HostPort {
        let (unicastSeed, directorySeed, storeSeed) = (generator.next(), generator.next(), generator.next())
        let listening = try await loop.flatSubmit { [self] in
            unicast = Unicast(
                loop: loop, identity: identity, configuration: configuration, counters: counters,
                members: self,
                sink: self, seed: unicastSeed, log: log)
            return unicast.bind()
        }.get()
        try await loop.flatSubmit { [self] in unicast.bindUnix(in: .standard) }.get()
        await openChannels()
        let facts = (node?.openChannels ?? []).map(\.channel.facts)
        try await loop.flatSubmit { [self] in
            let directory = DirectoryShell(
                loop: loop, identity: identity, configuration: configuration, listening: listening,
                unixPath: unicast.unixPath, channels: facts.map { NodeRecord.Channel($0) },
                discovery: discovery + stores(seed: storeSeed),
                seed: directorySeed, log: log)
            self.directory = directory
            directory.onChange = { [weak self] in self?.membershipChanged() }
            directory.onEvent = { [weak self] in self?.happened($0) }
            directory.onExchange = { [weak self] in self?.exchange($1, with: $0) }
            directory.onAnswer = { [weak self] in self?.unicast.answer($1, to: $0) }
            watch.start()
            announce()
            return directory.start()
        }.get()
        try await loop.flatSubmit { [self] in openAdmin() }.get()
        return listening
    }

    /// The stores that the configuration names: sources beside those that were handed in.
    private func stores(seed: UInt64) -> [any Discovery] {
        #if Redis
            return RedisDiscovery(configuration, identity: identity, seed: seed, counters: counters, log: log)
                .map { [$0] } ?? []
        #else
            return []
        #endif
    }

    private func openAdmin() -> EventLoopFuture<Void> {
        guard let address = configuration.admin.listen else { return loop.makeSucceededVoidFuture() }
        let admin = AdminListener(loop: loop, address: address) { [weak self] in try self?.page(for: $0) }
        self.admin = admin
        return admin.bind().map { [self] in node?.adminOpened(at: admin.url) }
    }

    private func exchange(_ words: [ByteBuffer], with partner: ExchangePartner) {
        switch partner {
        case .seed(let address): unicast.say(words, toSeed: address)
        case .node(let peer):
            guard let record = directory?.record(of: peer.name), record.identity == peer else { return }
            let ways = unicast.ways(record.addresses, unixPath: record.unixPath, hostID: record.hostID)
            unicast.say(words, to: peer, at: ways)
        }
    }

    func directoryReceived(_ word: ByteBuffer, from peer: NodeIdentity) {
        directory?.exchanged(word, with: peer)
    }

    /// How long ago the node was made.
    var uptime: Duration { MonotonicClock.now - startedAt }

    private func openChannels() async {
        for var settings in configuration.channels {
            settings.isReplayed = replayedChannels.contains(settings.name)
            do {
                let interface = try InterfaceChoice(
                    name: configuration.node.interface,
                    listen: configuration.node.advertise?.host ?? configuration.node.listen.host)
                let channel = try await OpenChannel.open(
                    settings, shell: self, interface: interface, seed: generator.next())
                node?.opened(channel)
                if let problem = channel.channel.facts.seamProblem {
                    log.warning(
                        "packets of a channel go one by one, and are not checked before libpgm sees them",
                        metadata: [
                            "castnet.channel": "\(settings.name)", "castnet.error": "\(problem)",
                        ])
                }
            } catch {
                log.warning(
                    "channel not open: its topics go by unicast where the policy allows",
                    metadata: ["castnet.channel": "\(settings.name)", "castnet.error": "\(error)"])
            }
        }
    }

    func stop(drain: Duration) async {
        let started = MonotonicClock.now
        // The peers hear first, so that nothing they send meanwhile is refused for want of a handler.
        _ = try? await loop.submit { [self] in
            watch.stop()
            unicast?.leave()
        }.get()
        let served = registry.close()
        _ = try? await loop.flatSubmit { [self] in
            directory?.stop() ?? loop.makeSucceededVoidFuture()
        }.get()
        await withTaskGroup(of: Void.self) { group in
            for topic in served { group.addTask { await topic.withdraw(until: started + drain) } }
            for channel in node?.openChannels ?? [] {
                group.addTask { await channel.channel.close(linger: drain) }
            }
        }
        _ = try? await loop.flatSubmit { [self] in
            admin?.close() ?? loop.makeSucceededVoidFuture()
        }.get()
        // Links carry what members still miss of this node's streams, so they go last.
        let left = max(.zero, drain - (MonotonicClock.now - started))
        _ = try? await loop.flatSubmit { [self] in
            unicast?.close(drain: left) ?? loop.makeSucceededVoidFuture()
        }.get()
        _ = try? await loop.submit { [self] in closeReceipts() }.get()
    }

    // MARK: What callers left

    func carryOut(_ items: [Outgoing]) {
        unicast.tick()
        for item in items {
            switch item {
            case .toOne(let message, let completion): unicast.sendNow(message, completion: completion)
            case .copies(let message, let members, let receipt):
                for member in members {
                    unicast.sendNow(
                        message, to: member, completion: .copy(receipt: receipt, member.identity))
                }
            case .receipt(
                let token, let topic, let delivered, let waiting, let channel, let settle, let deadline):
                book.open(
                    token, topic, delivered: delivered, waiting: waiting, channel: channel, settle: settle,
                    deadline: deadline, now: MonotonicClock.now)
                tellReceipts()
            case .await(let token, let continuation): wait(for: token, continuation)
            }
        }
        unicast.flushLinks()
    }

    // MARK: Receipts

    private func wait(for token: UInt64, _ continuation: UnsafeContinuation<[Receipt.Row], Never>) {
        if let rows = closed.removeValue(forKey: token) {
            continuation.resume(returning: rows)
        } else {
            waiting[token] = continuation
        }
    }

    private func tellReceipts() {
        for finished in book.takeFinished() {
            if let continuation = waiting.removeValue(forKey: finished.token) {
                continuation.resume(returning: finished.rows)
            } else {
                closed[finished.token] = finished.rows
            }
        }
        armReceipts()
    }

    private func armReceipts() {
        guard let next = book.nextDeadline else {
            receiptTimer?.task.cancel()
            return receiptTimer = nil
        }
        if let receiptTimer, receiptTimer.at <= next { return }
        receiptTimer?.task.cancel()
        receiptTimer = (
            next,
            loop.scheduleTask(deadline: next.nioDeadline) { [weak self] in
                guard let self else { return }
                receiptTimer = nil
                book.timerFired(now: MonotonicClock.now)
                tellReceipts()
            }
        )
    }

    private func closeReceipts() {
        book.timerFired(now: Instant(nanoseconds: .max))
        tellReceipts()
    }

    // MARK: Membership

    /// What this node serves and subscribes has changed.
    func announce() {
        guard let directory else { return }
        let (services, subscriptions) = registry.announced
        directory.update(services: services, subscriptions: subscriptions)
        for channel in node?.openChannels ?? [] {
            channel.channel.subscriptionsChanged(epoch: directory.own.version)
            guard !services.isEmpty || !subscriptions.isEmpty else { continue }
            channel.channel.listens(replays: replayedChannels.contains(channel.name))
        }
    }

    /// True when who joins late wants what was sent on the topic before. Any thread.
    func replays(_ topic: Topic) -> Bool {
        node?.sender.policy(for: topic, kind: .fanout, size: 0).route.lateJoin == .retained
    }

    func viewOf(_ topic: Topic) -> MembershipView.Topical {
        let members = (directory?.members(hearing: topic) ?? []).filter { $0.identity != identity }
        var channels: [NodeIdentity: Set<String>] = [:]
        for member in members {
            let record = directory?.record(of: member.identity.name)
            channels[member.identity] = Set((record?.channels ?? []).filter(\.joined).map(\.name))
        }
        let topical = MembershipView.Topical(version: view.version, members: members, channels: channels)
        view.keep(topical, for: topic)
        return topical
    }

    private func membershipChanged() {
        view.changed()
        guard let directory else { return }
        for channel in node?.openChannels ?? [] {
            channel.channel.membersChanged(
                directory.nodes(hearing: channel.name), mtu: directory.smallestMTU(on: channel.name))
        }
        unicast.membershipChanged()
    }

    /// Whether a report of an epoch is about a topic that the member heard then.
    private func claims(of member: NodeIdentity) -> (UInt64) -> (Topic) -> ReceiptBook.Claim {
        let known = directory?.record(of: member.name)
        guard let record = known, record.identity == member else { return { _ in { _ in .unknown } } }
        return { epoch in
            { topic in record.version < epoch ? .unknown : record.hears(topic) ? .holds : .dropped }
        }
    }

    private func memberGone(_ member: NodeIdentity) {
        unicast.memberGone(member)
        repairing[member] = nil
        unicastPaths = unicastPaths.filter { $0.key.peer != member }
        book.memberGone(member, now: MonotonicClock.now)
        tellReceipts()
    }

    private func happened(_ event: DirectoryEvent) {
        switch event {
        case .died(let member), .superseded(let member, _): memberGone(member)
        case .left(let member):
            // Its links say goodbye themselves once what is under way has finished.
            unicast.memberLeft(member)
            book.memberGone(member, now: MonotonicClock.now)
            tellReceipts()
        case .nameConflict(let conflict):
            log.error("two running nodes use one name", metadata: ["castnet.peer": "\(conflict)"])
        case .channelDiffers(_, let peer, let channel):
            log.error(
                "a peer has the channel configured differently",
                metadata: ["castnet.peer": "\(peer)", "castnet.channel": "\(channel)"])
        case .beaconsSilent:
            log.warning("own beacons do not come back, multicast is down: known nodes are kept")
        case .beaconsBack: log.notice("own beacons come back")
        case .othersSilent(let age, let kept):
            log.warning(
                "no other node's beacons are heard: known nodes are kept while their links live",
                metadata: ["castnet.age": "\(age)", "castnet.members": "\(kept)"])
        case .othersBack: log.notice("other nodes' beacons are heard again")
        case .seedsSilent(let age):
            log.warning(
                "no seed and no other node compares tables: known nodes are kept",
                metadata: ["castnet.age": "\(age.map { "\($0)" } ?? "never")"])
        case .seedsBack: log.notice("tables are compared again")
        case .membersLimit(let limit):
            log.warning("limits.members reached", metadata: ["castnet.limit": "\(limit)"])
        case .ownRecordUnfit(let why):
            log.error("own record cannot be announced", metadata: ["castnet.error": "\(why)"])
        case .suspected(let member, _): unicast.probe(member)
        case .updated(let member):
            let record = directory?.record(of: member.name)
            book.memberUpdated(
                member, now: MonotonicClock.now, hears: { record?.hears($0) ?? false },
                claim: claims(of: member))
            tellReceipts()
            // Nothing is known yet of what a node serves whose record has not come.
            if let record, record.version > 0 { unicast.memberUpdated(member, hears: record.hears) }
        case .joined, .refuted, .heads: break
        }
    }

    // MARK: Channels

    func happened(_ events: [StreamEvent], on channel: String) {
        // A receipt is opened before its message is cut, or it would never hear of that.
        node?.outbox.catchUp()
        let now = MonotonicClock.now
        for event in events {
            switch event {
            case .loss(let loss):
                log.error(
                    "frames lost",
                    metadata: [
                        "castnet.peer": "\(loss.from)", "castnet.channel": "\(channel)",
                        "castnet.frames": "\(loss.first)-\(loss.last)",
                        "castnet.reason": "\(loss.reason.rawValue)",
                    ])
                node?.lost(loss)
            case .began(let token, let firstFrame): book.began(token, firstFrame: firstFrame)
            case .sent(let token, let lastFrame): book.sent(token, lastFrame: lastFrame)
            case .position(let member, let progress):
                book.position(
                    member, progress, channel: channel, now: now, claim: claims(of: member)(progress.epoch))
            case .served(let member, let frames): book.served(member, frames, channel: channel)
            case .digestDiffers(let peer):
                log.error(
                    "a sender has the channel configured differently",
                    metadata: ["castnet.peer": "\(peer)", "castnet.channel": "\(channel)"])
            case .repairWanted(let stream, let sender, let ranges):
                ask(.request(stream: stream, ranges), of: sender, on: channel)
            case .placeWanted(let stream, let sender, let milliseconds):
                ask(.since(stream: stream, milliseconds: milliseconds), of: sender, on: channel)
            case .repairAnswer(let packet, let member, let bytes):
                answer(packet, to: member, bytes, on: channel)
            case .headWanted(let head, let member): tell(head, to: member, on: channel)
            case .memberPath(let peer, let reason):
                pathChanged(peer, isOwnStream: true, reason, on: channel)
            case .ownPath(let peer, let reason):
                pathChanged(peer, isOwnStream: false, reason, on: channel)
            case .streamStarted, .streamEnded: break
            }
        }
        tellReceipts()
    }
}

extension NodeShell: MemberSource, UnicastSink {
    func members(serving topic: Topic) -> [Member] { directory?.members(serving: topic) ?? [] }

    func received(_ delivery: Delivery, settle: Settlement) -> Reception {
        let listeners = registry.listeners(to: delivery.record.topic)
        if delivery.kind == .fanout {
            registry.spread(delivery, settle: settle)
        } else {
            // A cast that settles when it is received is answered as soon as its queue has it.
            let acknowledging = settle == .received && delivery.kind == .cast
            guard registry.handle(delivery, acknowledging: acknowledging, by: listeners) else {
                return .turnedAway
            }
        }
        // Other topics may be full: they hold back who sends them.
        return listeners.backlogBytes < configuration.limits.subscriptionBacklog ? .taken : .takenLast
    }

    func passed(_ topic: Topic, by sender: NodeIdentity) { registry.passed(topic, by: sender) }

    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {
        node?.copiesEnded(bytes: bytes)
        guard let receipt else { return }
        let outcome: Receipt.Outcome =
            switch copy.outcome {
            case .accepted: .unicast
            case .rejected: .rejected
            case .expired: .timedOut
            case .released, .unroutable, .lost: .left
            }
        book.settle(receipt, member, outcome, now: MonotonicClock.now)
        tellReceipts()
    }

    func met(_ peer: NodeIdentity) { directory?.met(peer) }

    // What the directory concludes may come back to the links, which are in the middle of something.
    func heard(_ peer: NodeIdentity) { loop.execute { self.directory?.link(.heard, peer: peer) } }

    func parted(from peer: NodeIdentity, isLost: Bool) {
        loop.execute { self.directory?.link(isLost ? .lost : .closed, peer: peer) }
    }

    func missed(_ peer: NodeIdentity) { loop.execute { self.directory?.dialFailed(peer) } }
}

extension NodeShell {
    /// The directory's nodes as users see them.
    func summaries() -> [NodeSummary] {
        guard let directory else { return [] }
        return directory.nodes().map { node in
            let record = node.record
            let services = record.services.map { (topic: $0.topic, server: $0.server) }
            return NodeSummary(
                identity: record.identity, instance: record.instance, address: record.addresses.first,
                services: services, subscriptions: record.subscriptions, state: node.state, age: node.age,
                heard: node.heard, source: directory.source(of: node), paths: paths(to: record))
        }
    }

    private func paths(to record: NodeRecord) -> [(channel: String, path: String, why: String)] {
        (self.node?.openChannels ?? []).map { own in
            guard let theirs = record.channels.first(where: { $0.name == own.name }), theirs.joined else {
                return (own.name, "unicast", "not-joined")
            }
            let isSame = theirs.digest == own.channel.facts.digest
            guard isSame else { return (own.name, "unicast", "policy-differs") }
            let key = PathKey(peer: record.identity, channel: own.name, isOwnStream: true)
            let reason = unicastPaths[key] ?? .heard
            return (own.name, reason.path.rawValue, reason.rawValue)
        }
    }
}
