import CastnetCore
import DequeModule
package import NIOCore

/// One connection to one peer: bytes to packets, packets to its machine, the machine's actions to the
/// channel.
///
/// Confined to the node's event loop: made, called and closed there; that makes it sendable. Memory: the
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

    let owner: Unicast
    let number: UInt64
    let key: Key?
    /// Where the peer listens, best first; for dialled links.
    var addresses: [PeerAddress] = []
    /// The address an accepted link came from.
    var acceptedFrom: String?
    /// True while it counts against the limits of links.
    var isCounted = false
    private var machine: LinkMachine
    private let own: Hello
    private var decoder = PacketDecoder()
    private(set) var context: ChannelHandlerContext?
    private(set) var peer: NodeIdentity?
    private(set) var remote: String = ""
    /// Outstanding messages assigned to this link: the how-manieth message on it each is; 0: not sent yet.
    private(set) var assigned: [UInt64: UInt64] = [:]
    /// Those not sent yet, in order. May hold some that have ended.
    private var unsent = Deque<UInt64>()
    private var sentCount: UInt64 = 0
    /// Messages of the peer that this node has not answered.
    private var unanswered = 0
    private var chunks = ChunkQueue()
    private var messages = PartAssembler<MessageHead>()
    private var replies = PartAssembler<ReplyHead>()
    /// What `owner` knows of the bytes in unfinished messages and replies.
    private var accountedBytes = 0
    /// Requests for missing frames that wait for the connection: the newest of each kind and stream.
    private var requests: [RepairPacket.Question: RepairPacket] = [:]
    private var outgoing = ByteBuffer()
    private var timer: Scheduled<Void>?
    private var lingerTimer: Scheduled<Void>?
    private var linger: Duration = .zero
    private var isHeldBack = false
    private var isReading = true
    private var isDirty = false
    private(set) var lastUsedAt: Instant
    private(set) var closedBecause: LinkMachine.CloseReason?
    private(set) var wasOpen = false
    /// The peer takes nothing new.
    private(set) var isLeft = false
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
    var isIdle: Bool { assigned.isEmpty && unanswered <= 0 && chunks.isEmpty }
    /// The carrier of what arrives here: the dialler's hello says what the link is for.
    private(set) var carrier = Carrier.ephemeral
    var isEphemeral: Bool { key?.purpose == .ephemeral }
    /// True where the link closes when nothing has used it for a while.
    private var lingers: Bool { key.map { $0.purpose != .persistent } ?? false }
    private var isWritable: Bool { context?.channel.isWritable ?? false }

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
        remote = context.remoteAddress?.ipAddress ?? (context.channel.isUnix ? "unix" : "")
        outgoing = context.channel.allocator.buffer(capacity: 4096)
        outgoing.write(.hello(own))
        machine.connected(now: owner.now)
        // Messages queued while dialling follow the hello in the same segment, the oldest first: those that
        // came here from a link that broke are older than some that were here before them.
        if unsent.count > 1 { unsent = Deque(unsent.sorted()) }
        sendUnsent()
        for request in requests.values { ask(request) }
        requests = [:]
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
        }
        adjustReading()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    package func channelInactive(context: ChannelHandlerContext) {
        guard self.context != nil else { return }
        self.context = nil
        if machine.disconnected() {
            closedBecause = isLeft ? .stopping : .failed
            // An acceptor sends its hello before it reads: where none came, nothing was looked at.
            if !wasOpen { takenByPeer = 0 }
        }
        timer?.cancel()
        lingerTimer?.cancel()
        messages.forgetAll()
        replies.forgetAll()
        account()
        owner.closed(self)
    }

    // MARK: The machine's actions

    private func perform(_ action: LinkMachine.Action) {
        switch action {
        case .none: break
        case .opened(let hello):
            peer = hello.node
            wasOpen = true
            carrier = (key?.purpose ?? hello.purpose) == .persistent ? .persistent : .ephemeral
            owner.opened(self, hello)
            arm()
        case .send(let packet): send(packet)
        case .deliver(let packet): deliver(packet)
        case .peerLeaves(let taken): peerLeaves(taken: taken)
        case .close(let reason, let goodbye, let taken): close(reason, goodbye, taken: taken)
        }
    }

    private func peerLeaves(taken: UInt64) {
        guard key != nil else { return }
        isLeft = true
        takenByPeer = taken
        owner.retire(self)
        // What the peer never looked at goes another way.
        for id in assigned.keys.sorted() where !mayHaveBeenTaken(id) {
            unassign(id)
            owner.linkLost(id, wasTaken: false, why: "the peer is stopping")
        }
        closeIfDone(linger: .zero)
    }

    /// True unless it is certain that the peer has not looked at the message.
    func mayHaveBeenTaken(_ id: UInt64) -> Bool {
        guard let ordinal = assigned[id], ordinal > 0 else { return false }
        return takenByPeer.map { ordinal <= $0 } ?? true
    }

    private func close(_ reason: LinkMachine.CloseReason, _ goodbye: Goodbye?, taken: UInt64?) {
        closedBecause = reason
        if let taken { takenByPeer = taken }
        owner.retire(self)
        if let goodbye { outgoing.write(.goodbye(goodbye)) }
        write()
        context?.flush()
        context?.close(promise: nil)
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
        timer = context.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [weak self] in
            guard let self else { return }
            owner.tick()
            // Who does not listen must not conclude that nobody speaks.
            if isHeldBack { machine.heard(now: owner.now) }
            perform(machine.timerFired(now: owner.now))
            flush()
            arm()
        }
    }

    // MARK: Sending

    /// Takes a message of this node on; it leaves as soon as the link takes it.
    func assign(_ id: UInt64) {
        assigned[id] = 0
        if isConnected, unsent.isEmpty, isWritable { return transmit(id) }
        unsent.append(id)
        // Those that ended meanwhile must not pile up while the channel is stuck.
        if unsent.count > 64 + 2 * assigned.count { unsent.removeAll { assigned[$0] != 0 } }
    }

    /// The message has ended or goes another way. The peer is told where it cannot know: when bytes are
    /// still missing, or when nobody waits for the answer (`isUnwanted`).
    func unassign(_ id: UInt64, isUnwanted: Bool = false) {
        guard let ordinal = assigned.removeValue(forKey: id) else { return }
        replies.forget(id)
        account()
        let isCut = chunks.forget(id, isReply: false)
        if isCut || (isUnwanted && ordinal > 0) { send(.cancel(id: id)) }
    }

    /// Forgets every message of this node, and returns those it had, the oldest first.
    func takeAssigned() -> [(id: UInt64, mayHaveBeenTaken: Bool)] {
        defer { assigned = [:] }
        return assigned.keys.sorted().map { ($0, mayHaveBeenTaken($0)) }
    }

    private func sendUnsent() {
        while isConnected, isWritable, let id = unsent.popFirst() {
            if assigned[id] == 0 { transmit(id) }
        }
    }

    private func transmit(_ id: UInt64) {
        guard let (head, payload) = owner.content(of: id) else { return }
        sentCount += 1
        assigned[id] = sentCount
        lastUsedAt = owner.now
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.message(head, first))
        chunks.append(id, isReply: false, rest)
        pump()
    }

    /// Answers a message of the peer.
    func send(_ head: ReplyHead, _ payload: ByteBuffer) {
        unanswered -= 1
        lastUsedAt = owner.now
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.reply(head, first))
        chunks.append(head.id, isReply: true, rest)
        pump()
    }

    /// Asks the peer for missing frames, as soon as there is a connection.
    func ask(_ request: RepairPacket) {
        guard isConnected else { return requests[request.question] = request }
        lastUsedAt = owner.now
        send(.repair(request))
        closeIfDone(linger: Unicast.repairLinger)
    }

    /// Sends the peer frames it asked for; `written` hears when they have left, or never will.
    func answer(_ packet: RepairPacket, written: @escaping @Sendable () -> Void) {
        guard isConnected, let context else { return written() }
        lastUsedAt = owner.now
        outgoing.write(.repair(packet))
        let bytes = outgoing
        outgoing = context.channel.allocator.buffer(capacity: 4096)
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { _ in written() }
        context.writeAndFlush(wrapOutboundOut(bytes), promise: promise)
    }

    private func send(_ packet: Packet) {
        guard isConnected else { return }
        outgoing.write(packet)
        if outgoing.readableBytes > 64 << 10 {
            flush()
        } else if !isDirty {
            isDirty = true
            owner.needsFlush(self)
        }
    }

    /// Cuts chunks in turns while the channel takes them; their bytes are not copied.
    private func pump() {
        while isConnected, isWritable, let context, let chunk = chunks.next() {
            outgoing.writeChunkHead(chunk.id, isReply: chunk.isReply, count: chunk.bytes.readableBytes)
            write()
            context.writeAndFlush(wrapOutboundOut(chunk.bytes), promise: nil)
        }
    }

    func flush() {
        isDirty = false
        guard let context, closedBecause == nil, outgoing.readableBytes > 0 else { return }
        write()
        context.flush()
        adjustReading()
    }

    private func write() {
        guard let context, outgoing.readableBytes > 0 else { return }
        let bytes = outgoing
        outgoing = context.channel.allocator.buffer(capacity: 4096)
        context.write(wrapOutboundOut(bytes), promise: nil)
    }

    // MARK: Receiving

    private func deliver(_ packet: Packet) {
        lastUsedAt = owner.now
        switch packet {
        case .message(let head, let bytes): received(head, bytes)
        case .reply(let head, let bytes): received(head, bytes)
        case .chunk(let id, let isReply, let bytes): isReply ? replyChunk(id, bytes) : messageChunk(id, bytes)
        case .cancel(let id):
            if messages.forget(id) != nil { unanswered -= 1 }
            account()
        case .repair(let repair): owner.received(repair, on: self)
        default: break
        }
    }

    /// Tells `owner` how the bytes of unfinished messages and replies have changed.
    private func account() {
        let held = messages.heldBytes + replies.heldBytes
        owner.assembledBytes += held - accountedBytes
        accountedBytes = held
    }

    private func received(_ head: MessageHead, _ bytes: ByteBuffer) {
        unanswered += 1
        let limit = owner.configuration.limits.message
        guard head.total <= UInt64(limit) else {
            owner.counters.add(.limitMessageHit)
            return refuse(head, .rejected, "limits.message: \(head.total) bytes; this node takes \(limit)")
        }
        if UInt64(bytes.readableBytes) == head.total {
            return owner.received(head, bytes, on: self)
        }
        guard owner.mayAssemble else { return refuseUnheld(head) }
        if !messages.begin(head.id, head, first: bytes, total: Int(head.total), now: owner.now) {
            perform(machine.malformed(.inconsistent))
        }
        account()
    }

    private func refuseUnheld(_ head: MessageHead) {
        owner.counters.add(.limitMemoryHit)
        refuse(head, .released, "limits.memory: no room for a message of \(head.total) bytes")
    }

    private func refuse(_ head: MessageHead, _ outcome: Outcome, _ why: String) {
        send(ReplyHead(id: head.id, outcome: outcome, why: why, total: 0), ByteBuffer())
    }

    private func messageChunk(_ id: UInt64, _ bytes: ByteBuffer) {
        defer { account() }
        if !owner.mayAssemble, let head = messages.forget(id) { return refuseUnheld(head) }
        switch messages.chunk(id, bytes) {
        case .more: break
        case .whole(var head, let payload, let since):
            // Its deadline has been running while the parts came.
            let elapsed = UInt64(max(0, (owner.now - since).nanoseconds / 1000))
            head.timeLeftMicroseconds -= min(elapsed, head.timeLeftMicroseconds)
            owner.received(head, payload, on: self)
        case .stray: owner.counters.add(.linkChunksStray)
        case .inconsistent: perform(machine.malformed(.inconsistent))
        }
    }

    private func received(_ head: ReplyHead, _ bytes: ByteBuffer) {
        guard assigned[head.id] != nil else { return owner.counters.add(.linkRepliesLate) }
        if UInt64(bytes.readableBytes) == head.total { return owner.answered(head, bytes, on: self) }
        let limit = owner.configuration.limits.message
        if head.total > UInt64(limit) {
            owner.counters.add(.limitMessageHit)
            owner.unanswerable(
                head, "limits.message: a reply of \(head.total) bytes; this node takes \(limit)")
        } else if !owner.mayAssemble {
            unheldReply(head)
        } else if !replies.begin(head.id, head, first: bytes, total: Int(head.total), now: owner.now) {
            perform(machine.malformed(.inconsistent))
        }
        account()
    }

    private func unheldReply(_ head: ReplyHead) {
        owner.counters.add(.limitMemoryHit)
        owner.unanswerable(head, "limits.memory: no room for a reply of \(head.total) bytes")
    }

    private func replyChunk(_ id: UInt64, _ bytes: ByteBuffer) {
        defer { account() }
        if !owner.mayAssemble, let head = replies.forget(id) { return unheldReply(head) }
        switch replies.chunk(id, bytes) {
        case .more: break
        case .whole(let head, let payload, _): owner.answered(head, payload, on: self)
        case .stray: owner.counters.add(.linkChunksStray)
        case .inconsistent: perform(machine.malformed(.inconsistent))
        }
    }

    // MARK: Use and linger

    /// Called when something ended: an ephemeral link that this node dialled closes after its linger, one
    /// whose peer is leaving at once.
    func closeIfDone(linger: Duration) {
        guard key != nil, isIdle, isConnected else { return }
        if isLeft { return finish(.stopping, .idle) }
        guard lingers else { return }
        if linger <= .zero { return finish(.finished, .idle) }
        self.linger = linger
        if lingerTimer == nil { armLinger() }
    }

    /// One timer, set anew when it fires, follows the last use: no timer per message.
    private func armLinger() {
        let deadline = lastUsedAt + linger
        lingerTimer = context?.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [weak self] in
            guard let self else { return }
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
    private func adjustReading() {
        let mayRead = !isHeldBack && (key != nil || isWritable)
        guard mayRead != isReading, isConnected, let context else { return }
        isReading = mayRead
        context.channel.setOption(.autoRead, value: mayRead).whenFailure { _ in }
    }
}

extension Channel {
    /// True for a Unix-domain socket.
    var isUnix: Bool { localAddress?.protocol == .unix || remoteAddress?.protocol == .unix }
}
