import CastnetCore
import DequeModule
package import NIOCore

/// One connection to one peer: bytes to packets, packets to its machine, the machine's actions to the
/// channel.
///
/// Confined to the node's event loop: made, called and closed there; that makes it sendable. Memory: the
/// parts of large messages under way (bounded by `Unicast`), and what the channel has not written yet.
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

    /// A large message or reply being cut into chunks.
    private struct Transfer {
        var id: UInt64
        var isReply: Bool
        var rest: ByteBuffer
    }

    /// A large message being put together.
    private struct Assembly {
        var head: MessageHead
        var bytes: ByteBuffer
        var arrivedAt: Instant
    }

    unowned let owner: Unicast
    let key: Key?
    /// Where the peer listens, best first; for dialled links.
    var addresses: [HostPort] = []
    private var machine: LinkMachine
    private let own: Hello
    private var decoder = PacketDecoder()
    private var context: ChannelHandlerContext?
    private(set) var peer: NodeIdentity?
    private(set) var remote: String = ""
    /// Outstanding messages assigned to this link; true once their bytes were handed to the channel.
    var assigned: [UInt64: Bool] = [:]
    /// Messages of the peer that this node has not answered.
    private(set) var unanswered = 0
    private var transfers = Deque<Transfer>()
    private var incoming: [UInt64: Assembly] = [:]
    private var replies: [UInt64: (head: ReplyHead, bytes: ByteBuffer)] = [:]
    private var outgoing = ByteBuffer()
    private var timer: Scheduled<Void>?
    private var lingerTimer: Scheduled<Void>?
    private var isReadingPaused = false
    private(set) var lastUsedAt: Instant
    private(set) var closedBecause: LinkMachine.CloseReason?
    private(set) var wasOpen = false

    init(owner: Unicast, key: Key?, machine: consuming LinkMachine, own: Hello, now: Instant) {
        self.owner = owner
        self.key = key
        self.machine = machine
        self.own = own
        lastUsedAt = now
    }

    var isConnected: Bool { context != nil && closedBecause == nil }
    var isIdle: Bool { assigned.isEmpty && unanswered == 0 && transfers.isEmpty }
    /// The carrier of what arrives here: the dialler's hello says what the link is for.
    private(set) var carrier = Carrier.ephemeral
    var isEphemeral: Bool { key?.purpose == .ephemeral }
    var heartbeatInterval: Duration? { machine.heartbeatInterval }

    // MARK: Channel events

    package func channelActive(context: ChannelHandlerContext) {
        self.context = context
        remote = context.remoteAddress?.ipAddress ?? ""
        outgoing = context.channel.allocator.buffer(capacity: 4096)
        outgoing.write(.hello(own))
        owner.connected(self)
        flush()
        arm()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        machine.heard(now: owner.now)
        decoder.feed(&bytes)
        do {
            while closedBecause == nil, let packet = try decoder.next() {
                perform(machine.received(packet, now: owner.now))
            }
        } catch {
            perform(machine.malformed(error))
        }
    }

    package func channelReadComplete(context: ChannelHandlerContext) { owner.flushLinks() }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        pump()
        flush()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    package func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        if machine.disconnected() { closedBecause = .failed }
        timer?.cancel()
        lingerTimer?.cancel()
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
        case .close(let reason, let goodbye): close(reason, goodbye)
        }
    }

    private func close(_ reason: LinkMachine.CloseReason, _ goodbye: Goodbye?) {
        closedBecause = reason
        if let goodbye { outgoing.write(.goodbye(goodbye)) }
        flush()
        context?.close(promise: nil)
    }

    /// This side wants the link to end.
    func finish(_ reason: LinkMachine.CloseReason, _ goodbye: Goodbye.Reason, _ text: String = "") {
        perform(machine.finish(reason, goodbye, text))
    }

    /// One timer follows the machine's next deadline; it is set anew only when it fires or the link opens.
    private func arm() {
        timer?.cancel()
        guard let context, closedBecause == nil, let deadline = machine.nextDeadline else { return }
        timer = context.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [weak self] in
            guard let self else { return }
            owner.tick()
            if isReadingPaused { machine.heard(now: owner.now) }
            perform(machine.timerFired(now: owner.now))
            flush()
            arm()
        }
    }

    // MARK: Sending

    func send(_ packet: Packet) {
        guard isConnected else { return }
        outgoing.write(packet)
        owner.needsFlush(self)
        if outgoing.readableBytes > 256 << 10 { flush() }
    }

    /// Sends a message; what does not fit a packet follows in chunks, in turns with other large ones.
    func send(_ head: MessageHead, _ payload: ByteBuffer) {
        touch()
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.message(head, first))
        queue(Transfer(id: head.id, isReply: false, rest: rest))
    }

    /// Answers a message of the peer.
    func send(_ head: ReplyHead, _ payload: ByteBuffer) {
        unanswered -= 1
        touch()
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.reply(head, first))
        queue(Transfer(id: head.id, isReply: true, rest: rest))
    }

    /// Stops sending the rest of a message and tells the peer.
    func cancel(_ id: UInt64) {
        transfers.removeAll { $0.id == id && !$0.isReply }
        send(.cancel(id: id))
    }

    private func queue(_ transfer: Transfer) {
        guard transfer.rest.readableBytes > 0 else { return }
        transfers.append(transfer)
        pump()
    }

    /// Cuts chunks in turns while the channel takes them.
    private func pump() {
        while let context, context.channel.isWritable, var transfer = transfers.popFirst() {
            let length = min(transfer.rest.readableBytes, Packet.chunkBytes)
            guard let bytes = transfer.rest.readSlice(length: length), length > 0 else { continue }
            send(.chunk(id: transfer.id, isReply: transfer.isReply, bytes))
            flush()
            if transfer.rest.readableBytes > 0 { transfers.append(transfer) }
        }
    }

    func flush() {
        guard let context, outgoing.readableBytes > 0 else { return }
        let bytes = outgoing
        outgoing = context.channel.allocator.buffer(capacity: 4096)
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }

    // MARK: Receiving

    private func deliver(_ packet: Packet) {
        touch()
        switch packet {
        case .message(let head, let bytes): received(head, bytes)
        case .reply(let head, let bytes):
            if UInt64(bytes.readableBytes) == head.total {
                owner.answered(head, bytes, on: self)
            } else if assigned[head.id] != nil, owner.mayAssemble(head.total) {
                replies[head.id] = (head, bytes)
            } else {
                owner.unassemblable(head, on: self)
            }
        case .chunk(let id, let isReply, let bytes): isReply ? replyChunk(id, bytes) : messageChunk(id, bytes)
        case .cancel(let id):
            if let gone = incoming.removeValue(forKey: id) {
                owner.assembled(-gone.bytes.readableBytes)
                unanswered -= 1
            }
        default: break
        }
    }

    private func received(_ head: MessageHead, _ bytes: ByteBuffer) {
        unanswered += 1
        guard head.total <= UInt64(owner.configuration.limits.message) else {
            owner.counters.add(.limitMessageHit)
            let limit = owner.configuration.limits.message
            return refuse(head, .rejected, "\(head.total) bytes; this node takes at most \(limit)")
        }
        if UInt64(bytes.readableBytes) == head.total {
            owner.received(head, bytes, on: self)
        } else if incoming[head.id] == nil, owner.mayAssemble(head.total) {
            owner.assembled(bytes.readableBytes)
            incoming[head.id] = Assembly(head: head, bytes: bytes, arrivedAt: owner.now)
        } else {
            owner.counters.add(.limitMemoryHit)
            refuse(head, .released, "no memory for the parts of a message of \(head.total) bytes")
        }
    }

    private func refuse(_ head: MessageHead, _ outcome: Outcome, _ why: String) {
        send(ReplyHead(id: head.id, outcome: outcome, why: why, total: 0), ByteBuffer())
    }

    private func messageChunk(_ id: UInt64, _ bytes: ByteBuffer) {
        guard var assembly = incoming.removeValue(forKey: id) else {
            return owner.counters.add(.linkChunksStray)
        }
        var chunk = bytes
        owner.assembled(bytes.readableBytes)
        assembly.bytes.writeBuffer(&chunk)
        let have = UInt64(assembly.bytes.readableBytes)
        guard have >= assembly.head.total else {
            incoming[id] = assembly
            return
        }
        owner.assembled(-assembly.bytes.readableBytes)
        guard have == assembly.head.total else { return perform(machine.malformed(.inconsistent)) }
        // Its deadline has been running while the parts came.
        let elapsed = UInt64(max(0, (owner.now - assembly.arrivedAt).nanoseconds / 1000))
        assembly.head.timeLeftMicroseconds -= min(elapsed, assembly.head.timeLeftMicroseconds)
        owner.received(assembly.head, assembly.bytes, on: self)
    }

    private func replyChunk(_ id: UInt64, _ bytes: ByteBuffer) {
        guard let (head, first) = replies.removeValue(forKey: id) else {
            return owner.counters.add(.linkChunksStray)
        }
        var (have, chunk) = (first, bytes)
        have.writeBuffer(&chunk)
        if UInt64(have.readableBytes) < head.total {
            replies[id] = (head, have)
        } else if UInt64(have.readableBytes) == head.total {
            owner.answered(head, have, on: self)
        } else {
            perform(machine.malformed(.inconsistent))
        }
    }

    /// Forgets the parts of a reply nobody waits for any more.
    func forgetReply(_ id: UInt64) { replies[id] = nil }

    var assembledBytes: Int { incoming.values.reduce(0) { $0 + $1.bytes.readableBytes } }

    // MARK: Use and linger

    private func touch() {
        lastUsedAt = owner.now
        lingerTimer?.cancel()
        lingerTimer = nil
    }

    /// Called when something ended: an ephemeral link that this node dialled closes after its linger.
    func restIfIdle(linger: Duration) {
        guard isEphemeral, isIdle, isConnected, lingerTimer == nil else { return }
        if linger <= .zero { return finish(.finished, .idle) }
        let deadline = owner.now + linger
        lingerTimer = context?.eventLoop.scheduleTask(deadline: deadline.nioDeadline) { [weak self] in
            guard let self else { return }
            owner.tick()
            lingerTimer = nil
            if isIdle { finish(.finished, .idle) }
        }
    }

    func pauseReading() {
        guard !isReadingPaused else { return }
        isReadingPaused = true
        _ = context?.channel.setOption(.autoRead, value: false)
    }

    func resumeReading() {
        guard isReadingPaused else { return }
        isReadingPaused = false
        _ = context?.channel.setOption(.autoRead, value: true)
    }
}
