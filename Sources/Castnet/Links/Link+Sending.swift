import CastnetCore
import DequeModule
import NIOCore

/// What leaves on a link.
extension Link {
    /// Takes a message of this node on; it leaves as soon as the link takes it.
    func assign(_ id: UInt64) {
        assigned[id] = 0
        if isConnected, queue.isEmpty, isWritable { return transmit(id) }
        queue.append(id)
        compact()
    }

    private func compact() {
        // Those that ended meanwhile must not pile up while the channel is stuck.
        queue.compact(open: assigned.count) { assigned[$0] == 0 }
    }

    /// The message has ended or goes another way. The peer is told where it cannot know: when bytes are
    /// still missing, or when nobody waits for the answer (`isUnwanted`).
    func unassign(_ id: UInt64, isUnwanted: Bool = false) {
        guard let ordinal = assigned.removeValue(forKey: id) else { return }
        replies.forget(id)
        if !grants.isEmpty { grants[id] = nil }
        if !repliesUnfinished.isEmpty { repliesUnfinished[id] = nil }
        account()
        if !waiting.isEmpty { assignWaiting() }
        let isCut = chunks.forget(id, isReply: false)
        if isCut || (isUnwanted && ordinal > 0) { send(.cancel(id: id)) }
    }

    /// As many as the topic's `backlog` allows are on their way: it waits until others have ended.
    func wait(_ id: UInt64) {
        owner.compact(&waiting)
        waiting.append(id)
    }

    private func assignWaiting() {
        while let id = waiting.first {
            if let backlog = owner.backlog(of: id, on: self) {
                guard assigned.count < backlog else { return }
                assign(id)
            }
            waiting.removeFirst()
        }
    }

    /// Forgets every message of this node, and returns those it had, the oldest first.
    func takeAssigned() -> [(id: UInt64, mayHaveBeenTaken: Bool)] {
        defer {
            assigned = [:]
            waiting = []
        }
        return assigned.keys.sorted().map { ($0, mayHaveBeenTaken($0)) } + waiting.map { ($0, false) }
    }

    /// The peer had no room for a message: it goes once the peer calls, before the others of its topic.
    func putBack(_ id: UInt64, _ topic: Topic, _ payload: ByteBuffer) {
        guard assigned[id] != nil else { return }
        assigned[id] = 0
        _ = chunks.forget(id, isReply: false)
        queue.putBack(id, topic, bytes: payload.readableBytes)
    }

    /// The peer has room again for what it turned away.
    func called(_ room: Room) {
        guard let topic = try? Topic(room.topic), let peer else { return }
        queue.reopen(topic)
        sendUnsent()
        // A free handler is kept for this node: another may have it.
        if !owner.called(topic, by: peer, for: room.messages), room.messages > 0 {
            send(.room(Room(topic: room.topic, messages: 0)))
        }
    }

    /// A message of the peer finds no room here; nor does what follows of its topic until the peer is called.
    func turnAway(_ head: MessageHead) {
        unanswered -= 1
        send(.busy(id: head.id))
        closeIfDrained()
        let topic = head.topic
        guard !head.isPrompt, refusals[topic] == nil else { return }
        // Without one nothing more comes from the peer.
        guard case .send(let heartbeat) = machine.probe() else { return }
        refusals[topic] = Refusal()
        send(heartbeat)
        handovers[machine.nonce] = { [unowned self] in heardRefusal(of: topic) }
    }

    /// What the peer sends of the topic from now on it sends knowing that a message was turned away.
    private func heardRefusal(of topic: Topic) {
        guard let refusal = refusals[topic] else { return }
        refusals[topic]?.isHeard = true
        if refusal.isOver { call(topic, 0) }
    }

    /// There is room for so many messages that were turned away; 0: for as many as the peer likes.
    ///
    /// What it sent before it heard of the first of them must not come before that one: until then it is not
    /// called.
    func call(_ topic: Topic, _ count: UInt32) {
        if count == 0, let refusal = refusals[topic] {
            guard refusal.isHeard else {
                refusals[topic]?.isOver = true
                return
            }
            refusals[topic] = nil
        }
        send(.room(Room(topic: topic.name, messages: count)))
    }

    func sendUnsent() {
        while isConnected, isWritable, let (id, hasCredit) = queue.next(isWanted: { assigned[$0] == 0 }) {
            transmit(id, hasCredit: hasCredit)
        }
    }

    private func transmit(_ id: UInt64, hasCredit: Bool = false) {
        guard let (head, payload) = owner.content(of: id) else { return }
        guard hasCredit || begins(id, head.topic, payload) else {
            return compact()
        }
        sentCount += 1
        assigned[id] = sentCount
        lastUsedAt = owner.now
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.message(head, first))
        chunks.append(id, isReply: false, rest)
        pump()
    }

    private func begins(_ id: UInt64, _ topic: Topic, _ payload: ByteBuffer) -> Bool {
        switch queue.start(id, topic, bytes: payload.readableBytes) {
        case .now: return true
        case .held: return false
        case .lacksCredit:
            owner.counters.add(.linkCreditWaits)
            return false
        }
    }

    /// The peer takes more of a topic.
    func granted(_ credit: Credit) {
        queue.granted(credit)
        sendUnsent()
    }

    /// True where everything of this node has left, so that a topic may go on over another link.
    var mayHandOver: Bool {
        wasOpen && isConnected && queue.isEmpty && queue.waitingCount == 0 && waiting.isEmpty
            && chunks.isEmpty
    }

    /// Holds `topic` back until the peer has taken in what `older` has sent it.
    func follow(_ older: Link, topic: Topic) {
        guard !older.assigned.isEmpty else { return }
        queue.hold(topic)
        older.perform(older.machine.probe())
        older.handovers[older.machine.nonce] = { [self] in
            queue.release(topic)
            sendUnsent()
        }
    }

    /// A message of the peer is finished here, answered or not: its credit is worth something again.
    func finished(_ topic: Topic, bytes: Int) {
        guard let credit = ledger?.finished(topic, bytes: bytes) else { return }
        send(.credit(credit))
    }

    /// Answers a message of the peer.
    func send(_ head: ReplyHead, _ payload: ByteBuffer) {
        unanswered -= 1
        lastUsedAt = owner.now
        memory?.window.answered(head, payload, on: number)
        var rest = payload
        let first = rest.readSlice(length: min(rest.readableBytes, Packet.chunkBytes)) ?? ByteBuffer()
        send(.reply(head, first))
        chunks.append(head.id, isReply: true, rest)
        pump()
        closeIfDrained()
    }

    /// Asks the peer for missing frames, as soon as there is a connection.
    func ask(_ request: RepairPacket) {
        guard isConnected else { return requests[request.question] = request }
        lastUsedAt = owner.now
        send(.repair(request))
        closeIfDone(linger: Unicast.repairLinger)
    }

    /// Sends beacons, or the newest of them once the link is open.
    func say(_ beacons: [ByteBuffer]) {
        guard isConnected else {
            dropWords()
            return words = beacons
        }
        // A peer that does not read hears the next ones instead.
        guard isWritable else { return owner.counters.add(.directoryWordsDropped, beacons.count) }
        lastUsedAt = owner.now
        for beacon in beacons { send(.directory(beacon)) }
        if key != nil { closeIfDone(linger: Unicast.repairLinger) }
    }

    /// What waited for the link is not said.
    func dropWords() {
        owner.counters.add(.directoryWordsDropped, words.count)
        words = []
    }

    /// Sends the peer frames it asked for; `written` hears when they have left, or never will.
    func answer(_ packet: RepairPacket, written: @escaping @Sendable () -> Void) {
        guard isConnected, let context else { return written() }
        lastUsedAt = owner.now
        outgoing.write(.repair(packet))
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { _ in written() }
        context.writeAndFlush(wrapOutboundOut(takeOutgoing(context)), promise: promise)
    }

    func send(_ packet: Packet) {
        guard isConnected else { return }
        outgoing.write(packet)
        outgoingCount += 1
        if outgoingCount >= outgoingMax {
            outgoingMax = outgoingCount * 2
            writeOut()
        } else if outgoing.readableBytes > 64 << 10 {
            writeOut()
        }
        if !isDirty {
            isDirty = true
            owner.needsFlush(self)
        }
    }

    /// Cuts chunks in turns while the channel takes them; their bytes are not copied.
    func pump() {
        while isConnected, isWritable, let context, let chunk = chunks.next() {
            outgoing.writeChunkHead(chunk.id, isReply: chunk.isReply, count: chunk.bytes.readableBytes)
            write()
            context.writeAndFlush(wrapOutboundOut(chunk.bytes), promise: nil)
        }
    }

    func flush() {
        isDirty = false
        outgoingMax = Self.firstWrite
        writeOut()
    }

    private func writeOut() {
        guard let context, closedBecause == nil, outgoing.readableBytes > 0 else { return }
        var bytes = outgoing
        outgoingCount = 0
        // What the flush brings about may write, too.
        outgoing = ByteBuffer()
        context.write(wrapOutboundOut(bytes), promise: nil)
        context.flush()
        if outgoing.capacity == 0 {
            // Once the kernel has the bytes their memory takes the next ones.
            if bytes.capacity <= Self.outgoingKept { bytes.clear() } else { bytes = Self.room(context) }
            outgoing = bytes
        }
        adjustReading()
    }

    static func room(_ context: ChannelHandlerContext) -> ByteBuffer {
        context.channel.allocator.buffer(capacity: 4096)
    }

    private func takeOutgoing(_ context: ChannelHandlerContext) -> ByteBuffer {
        let bytes = outgoing
        outgoingCount = 0
        outgoing = Self.room(context)
        return bytes
    }

    private func write() {
        guard let context, outgoing.readableBytes > 0 else { return }
        context.write(wrapOutboundOut(takeOutgoing(context)), promise: nil)
    }
}
