import CastnetCore
import DequeModule
package import NIOCore

/// One connection to one peer: bytes to packets, packets to its machine, the machine's actions to the
/// channel.
///
/// Confined to the node's event loop: made, called and closed there; that makes it sendable. Nobody holds it
/// weakly: that would make each of the many holds a message takes on it slower. Memory: the
/// parts of large messages under way (bounded by `Unicast`), and what the channel has not written yet: a link
/// stops writing messages while the channel is full, and an accepted one stops reading, too.
package final class Link: ChannelInboundHandler, @unchecked Sendable {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    /// What a dialled link is for: messages with the same key share it.
    package struct Key: Hashable, Sendable {
        var purpose: Hello.Purpose
        var peer: NodeIdentity
        /// The topic of a persistent link; nil for an ephemeral one.
        var topic: Topic?
        /// Which of several connections.
        var slot: UInt64
    }

    /// How long a peer that is slow to read may take for its last answers once the link has ended.
    private static let lastAnswersTime = TimeAmount.seconds(5)

    let owner: Unicast
    let number: UInt64
    /// nil: it was accepted.
    @exclusivity(unchecked) var key: Key?
    /// Where the peer listens, best first; for dialled links.
    var addresses: [PeerAddress] = []
    /// The address an accepted link came from.
    var acceptedFrom: String?
    /// True while it counts against the limits of links.
    var isCounted = false
    /// True where only repair had room: any other hello is refused.
    var isReserved = false
    @exclusivity(unchecked) var machine: LinkMachine
    private let own: Hello
    @exclusivity(unchecked) private var decoder = PacketDecoder()
    @exclusivity(unchecked) private(set) var context: ChannelHandlerContext?
    @exclusivity(unchecked) private(set) var peer: NodeIdentity?
    private(set) var remote: String = ""
    /// Outstanding messages assigned to this link: the how-manieth message on it each is; 0: not sent yet.
    @exclusivity(unchecked) var assigned: [UInt64: UInt64] = [:]
    /// Those not sent yet.
    @exclusivity(unchecked) var queue = SendQueue()
    /// Those past the `backlog` of their topic.
    @exclusivity(unchecked) var waiting = Deque<UInt64>()
    @exclusivity(unchecked) var sentCount: UInt64 = 0
    /// Topics that go on over another link once the peer has taken in what was sent here, by the number of
    /// the heartbeat that asks for that.
    @exclusivity(unchecked) var handovers: [UInt64: () -> Void] = [:]
    /// A topic of which a message of the peer was turned away.
    struct Refusal {
        /// The peer has heard of it.
        var isHeard = false
        /// There is room again: the peer is to be called.
        var isOver = false
    }
    /// Of these the peer's messages are turned away, but for prompt ones, until it is called.
    @exclusivity(unchecked) var refusals: [Topic: Refusal] = [:]
    /// Messages of the peer that this node has not answered.
    @exclusivity(unchecked) var unanswered = 0
    /// What the peer may still send; nil: it does not keep to it.
    @exclusivity(unchecked) var ledger: CreditLedger?
    /// What is known of the messages of the peer's persistent links; nil: it sends none again.
    @exclusivity(unchecked) var memory: PeerMemory?
    @exclusivity(unchecked) var chunks = ChunkQueue()
    @exclusivity(unchecked) var messages = PartAssembler<MessageHead>()
    @exclusivity(unchecked) var replies = PartAssembler<ReplyHead>()
    /// Replies that have begun to arrive, those of them that have not come whole, by id, and how many of the
    /// first the peer knows to be here.
    @exclusivity(unchecked) var repliesBegun: UInt64 = 0
    @exclusivity(unchecked) var repliesUnfinished: [UInt64: UInt64] = [:]
    @exclusivity(unchecked) var repliesConfirmed: UInt64 = 0
    /// What `owner` knows of the bytes in unfinished messages and replies.
    @exclusivity(unchecked) var accountedBytes = 0
    /// Requests for missing frames that wait for the connection: the newest of each kind and stream.
    var requests: [RepairPacket.Question: RepairPacket] = [:]
    /// What the directory says once it is connected: the newest only.
    var words: [ByteBuffer] = []
    /// What this side said of the end, if it ended the link.
    private(set) var endText = ""
    @exclusivity(unchecked) var outgoing = ByteBuffer()
    private var timer: Scheduled<Void>?
    private var lingerTimer: Scheduled<Void>?
    private var linger: Duration = .zero
    @exclusivity(unchecked) private var isHeldBack = false
    @exclusivity(unchecked) private var isReading = true
    @exclusivity(unchecked) var isDirty = false
    /// Packets in `outgoing`, and how many of them the next write may wait for: twice as many with each write
    /// of one wake-up.
    @exclusivity(unchecked) var outgoingCount = 0
    @exclusivity(unchecked) var outgoingMax = Link.firstWrite
    /// The peer begins with the first of many packets while this side still makes the others.
    static let firstWrite = 8
    /// Bytes of memory for the next packets that a link keeps.
    static let outgoingKept = 16 << 10
    @exclusivity(unchecked) private var isInputClosed = false
    @exclusivity(unchecked) var lastUsedAt: Instant
    @exclusivity(unchecked) private(set) var closedBecause: LinkMachine.CloseReason?
    /// True where it was closed for the sake of another link.
    var gaveWay = false
    @exclusivity(unchecked) private(set) var wasOpen = false
    /// What the peer's hello says it can do.
    @exclusivity(unchecked) private(set) var features: Hello.Features = []
    /// True where the end was not meant: nobody has said goodbye.
    var isLost: Bool { closedBecause == .dead || closedBecause == .failed || isInputClosed }
    /// True where a message that the peer may have taken can be sent to it again.
    var mayReplay: Bool {
        guard key?.purpose == .persistent, wasOpen, features.contains(.replay), !isLeft else { return false }
        return closedBecause == .failed || (closedBecause == .dead && !isPeerGone)
    }
    /// The directory says that the peer is gone.
    var isPeerGone = false
    /// The peer neither serves nor hears the topic that this link is for.
    @exclusivity(unchecked) var isForsaken = false
    /// Nobody listens at the peer's address.
    var isRefused = false
    /// Nothing can be sent to the peer again: it is leaving, or who answers is not who was meant.
    var hasNoReplay: Bool {
        if isPeerGone || isRefused || isLeft { return true }
        switch closedBecause {
        case .wrongNode, .ownNode, .cluster, .version, .stopping: return true
        default: return false
        }
    }
    /// The peer takes nothing new.
    @exclusivity(unchecked) private(set) var isLeft = false
    /// Messages that the peer was let start, and whether it has said that it did.
    @exclusivity(unchecked) var grants: [UInt64: Bool] = [:]
    /// Messages of the peer that wait here until it lets them start.
    var claims: [UInt64: (claim: Claim, since: Instant)] = [:]
    var isWatchingClaims = false
    /// The peer has ended its side in order: nothing that it said is missing.
    private(set) var isHeardOut = false
    /// How many of this node's messages the peer took at most; nil: nobody knows.
    private var takenByPeer: UInt64?

    init(
        owner: Unicast, number: UInt64, key: Key?, machine: consuming LinkMachine, own: Hello, now: Instant
    ) {
        self.owner = owner
        self.number = number
        self.key = key
        self.machine = machine
        self.own = own
        lastUsedAt = now
    }

    var isConnected: Bool { context != nil && closedBecause == nil }
    /// True where nothing is under way.
    var isUnused: Bool { assigned.isEmpty && unanswered <= 0 && chunks.isEmpty }
    /// True where nothing is expected either.
    var isIdle: Bool { isUnused && doorCount == 0 }
    /// Topics for which the peer turned messages away here, and will call.
    @exclusivity(unchecked) var doorCount = 0
    /// The carrier of what arrives here: the dialler's hello says what the link is for.
    @exclusivity(unchecked) private(set) var carrier = Carrier.ephemeral
    /// True for an idle ephemeral link, which may be closed for the sake of another.
    var mayGiveWay: Bool {
        wasOpen && isUnused && isConnected && (key?.purpose ?? peerPurpose) == .ephemeral
    }
    /// What the peer wants the link for.
    private var peerPurpose: Hello.Purpose?
    /// True where the link closes when nothing has used it for a while.
    private var lingers: Bool { key.map { $0.purpose != .persistent } ?? false }
    var isWritable: Bool { context?.channel.isWritable ?? false }

    // MARK: Channel events

    /// A dialled channel is active by the time the link joins it, an accepted one soon after.
    package func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(context) }
    }

    package func channelActive(context: ChannelHandlerContext) {
        if self.context == nil { start(context) }
    }

    private func start(_ context: ChannelHandlerContext) {
        owner.tick()
        self.context = context
        // It made room for another before it had begun.
        guard closedBecause == nil else { return context.close(promise: nil) }
        remote = context.remoteAddress?.ipAddress ?? (context.channel.isUnix ? "unix" : "")
        outgoing = Self.room(context)
        outgoing.write(.hello(own))
        machine.connected(now: owner.now)
        // Messages queued while dialling follow the hello in the same segment, the oldest first: those that
        // came here from a link that broke are older than some that were here before them.
        queue.sort()
        sendUnsent()
        for request in requests.values { ask(request) }
        requests = [:]
        if !words.isEmpty { say(words) }
        words = []
        flush()
        arm()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        owner.tick()
        var bytes = unwrapInboundIn(data)
        machine.heard(now: owner.now)
        if let peer { owner.heard(peer) }
        decoder.feed(&bytes)
        let unknown = decoder.unknownCount
        do {
            while closedBecause == nil, let packet = try decoder.next() {
                perform(machine.received(packet, now: owner.now))
            }
        } catch {
            perform(machine.malformed(error))
        }
        if decoder.unknownCount > unknown {
            owner.counters.add(.linkPacketsUnknown, decoder.unknownCount - unknown)
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) { owner.flushLinks() }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        owner.tick()
        if isWritable {
            // The peer has taken bytes: it is alive even where this side was not reading.
            machine.heard(now: owner.now)
            sendUnsent()
            pump()
            flush()
            closeIfDrained()
        }
        adjustReading()
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? ChannelEvent, case .inputClosed = event else { return }
        owner.tick()
        isHeardOut = true
        // A dialler has nothing to expect any more.
        guard key == nil else { return context.close(promise: nil) }
        perform(machine.inputClosed(now: owner.now))
        arm()
        owner.flushLinks()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    package func channelInactive(context: ChannelHandlerContext) {
        guard self.context != nil else { return }
        self.context = nil
        if machine.disconnected() {
            closedBecause = isLeft ? .stopping : .failed
            // An acceptor sends its hello before it reads: where none came, nothing was looked at. That holds
            // for a reset, too: a listener that closes resets what it has not accepted.
            if !wasOpen { takenByPeer = 0 }
        }
        timer?.cancel()
        lingerTimer?.cancel()
        for handover in handovers.values { handover() }
        handovers = [:]
        for claim in claims.values { claim.claim.end(.dropped) }
        claims = [:]
        if let memory, let peer {
            let early = owner.memories.close(number, of: peer, memory, now: owner.now)
            if early > 0 { owner.counters.add(.linkMemoriesDropped, early) }
        }
        messages.forgetAll()
        replies.forgetAll()
        account()
        owner.closed(self)
    }

    // MARK: The machine's actions

    func perform(_ action: LinkMachine.Action) {
        switch action {
        case .none: break
        case .opened(let hello):
            peer = hello.node
            peerPurpose = hello.purpose
            wasOpen = true
            carrier = (key?.purpose ?? hello.purpose) == .persistent ? .persistent : .ephemeral
            features = hello.features
            agree()
            owner.opened(self, hello)
            arm()
            // All it was dialled for may have ended meanwhile.
            closeIfDone(linger: linger)
        case .send(let packet): send(packet)
        case .deliver(let packet): deliver(packet)
        case .reached(let heartbeat): handovers.removeValue(forKey: heartbeat)?()
        case .drain:
            isInputClosed = true
            // Of these the rest will never come.
            unanswered -= messages.count
            messages.forgetAll()
            account()
            closeIfDrained()
        case .peerLeaves(let taken): peerLeaves(taken: taken)
        case .close(let reason, let goodbye, let taken): close(reason, goodbye, taken: taken)
        }
    }

    /// What the two hellos come to.
    private func agree() {
        if key == nil {
            if features.contains(.credit) { ledger = CreditLedger() }
            if features.contains(.replay), carrier == .persistent, let peer {
                memory = owner.memories.open(number, of: peer)
            }
        } else if !features.contains(.credit) {
            queue.ignoreCredit()
            sendUnsent()
        }
        if let channel = context?.channel, !channel.isUnix {
            TCPTuning.apply(to: channel, heartbeat: machine.heartbeatInterval)
        }
    }

    private func peerLeaves(taken: UInt64) {
        guard key != nil else { return }
        isLeft = true
        takenByPeer = taken
        owner.retire(self)
        // What the peer never looked at goes another way.
        let unseen = assigned.keys.sorted().filter { !mayHaveBeenTaken($0) } + waiting
        waiting = []
        for id in unseen {
            unassign(id)
            owner.linkLost(id, wasTaken: false, by: self, why: "the peer is stopping")
        }
        closeIfDone(linger: .zero)
    }

    /// True unless it is certain that the peer has not looked at the message.
    func mayHaveBeenTaken(_ id: UInt64) -> Bool {
        if PlantedBug.deniesTaking.isPlanted { return false }
        guard let ordinal = assigned[id], ordinal > 0, takenByPeer.map({ ordinal <= $0 }) ?? true else {
            return false
        }
        // What asks before it starts was not started where it was not let, nor where it would have said so.
        guard features.contains(.claims), owner.isClaimed(id) else { return true }
        return grants[id].map { hasStarted in hasStarted || !isHeardOut } ?? false
    }

    private func close(_ reason: LinkMachine.CloseReason, _ goodbye: Goodbye?, taken: UInt64?) {
        closedBecause = reason
        endText = goodbye?.text ?? ""
        if let taken { takenByPeer = taken }
        owner.retire(self)
        guard let context else { return }
        if let goodbye { outgoing.write(.goodbye(goodbye)) }
        let channel = context.channel
        let written = context.eventLoop.makePromise(of: Void.self)
        context.writeAndFlush(wrapOutboundOut(outgoing), promise: written)
        outgoing.clear()
        guard reason.isOrderly, !isWritable else { return context.close(promise: nil) }
        // The peer has yet to read its last answers; it has a while for that.
        written.futureResult.whenComplete { _ in channel.close(promise: nil) }
        context.eventLoop.scheduleTask(in: Self.lastAnswersTime) { channel.close(promise: nil) }
    }

    /// All that came before the dialler ended its side is answered.
    func closeIfDrained() {
        guard isInputClosed, unanswered <= 0, chunks.isEmpty else { return }
        finish(.finished, .idle)
    }

    /// The channel closed before this link could join it; false when the end was known already.
    func notConnected() -> Bool {
        takenByPeer = 0
        closedBecause = .failed
        return machine.disconnected()
    }

    /// This side wants the link to end.
    func finish(_ reason: LinkMachine.CloseReason, _ goodbye: Goodbye.Reason, _ text: String = "") {
        perform(machine.finish(reason, goodbye, text))
    }

    /// Too many say hello: the peer may dial again after `time`.
    func sendAway(for time: Duration, _ text: String) { perform(machine.sendAway(for: time, text)) }

    /// This node is stopping: an accepted link takes nothing new.
    func leave() {
        guard key == nil else { return }
        perform(machine.leave("the node is stopping"))
        flush()
    }

    /// Asks the peer for a sign of life.
    func probe() {
        perform(machine.probe())
        flush()
    }

    /// One timer follows the machine's next deadline; it is set anew only when it fires or the link opens.
    private func arm() {
        timer?.cancel()
        guard let context, closedBecause == nil, let deadline = machine.nextDeadline else { return }
        timer = context.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [self] in
            owner.tick()
            // Who does not listen must not conclude that nobody speaks.
            if isHeldBack { machine.heard(now: owner.now) }
            perform(machine.timerFired(now: owner.now))
            confirmReplies()
            flush()
            arm()
        }
    }

    // MARK: Use and linger

    /// Called when something ended: an ephemeral link that this node dialled closes after its linger, one
    /// whose peer is leaving or has dropped its topic at once.
    func closeIfDone(linger: Duration) {
        guard key != nil, isLeft ? isUnused : isIdle else { return }
        guard isConnected else {
            self.linger = linger
            return owner.isUnneeded(self)
        }
        if isLeft { return finish(.stopping, .idle) }
        if isForsaken { return finish(.finished, .idle) }
        guard lingers else { return }
        if linger <= .zero { return finish(.finished, .idle) }
        self.linger = linger
        if lingerTimer == nil { armLinger() }
    }

    /// One timer, set anew when it fires, follows the last use: no timer per message.
    private func armLinger() {
        let deadline = lastUsedAt + linger
        lingerTimer = context?.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [self] in
            owner.tick()
            lingerTimer = nil
            guard isIdle, isConnected else { return }
            if owner.now >= lastUsedAt + linger { return finish(.finished, .idle) }
            armLinger()
        }
    }

    /// A full subscription holds this link back until `resumeReading()`; false when it was before.
    func pauseReading() -> Bool {
        guard !isHeldBack else { return false }
        isHeldBack = true
        adjustReading()
        return true
    }

    func resumeReading() {
        isHeldBack = false
        adjustReading()
    }

    /// An accepted link whose peer takes no answers takes no messages: its answers would pile up here.
    /// A dialled one always reads, so that the two never wait for each other.
    func adjustReading() {
        let mayRead = !isHeldBack && (key != nil || isWritable)
        guard mayRead != isReading, isConnected, let context else { return }
        isReading = mayRead
        context.channel.setOption(.autoRead, value: mayRead).whenFailure { _ in }
    }
}

extension LinkMachine.CloseReason {
    /// True where the peer is owed what has been written.
    fileprivate var isOrderly: Bool {
        switch self {
        case .finished, .idle, .stopping: true
        default: false
        }
    }
}

extension Channel {
    /// True for a Unix-domain socket.
    var isUnix: Bool { localAddress?.protocol == .unix || remoteAddress?.protocol == .unix }
}
