import CastnetCore
import NIOCore

/// What arrives on a link.
extension Link {
    /// Replies are confirmed in batches; those behind the last batch with the next heartbeat.
    private static let confirmedEvery: UInt64 = 64
    /// How long a handler waits for the sender of a message to let it start: to twice this.
    private static let claimTime = Duration.seconds(1)

    func deliver(_ packet: Packet) {
        lastUsedAt = owner.now
        switch packet {
        case .message(let head, let bytes): received(head, bytes)
        case .reply(let head, let bytes): received(head, bytes)
        case .chunk(let id, let isReply, let bytes): isReply ? replyChunk(id, bytes) : messageChunk(id, bytes)
        case .cancel(let id):
            if let head = messages.forget(id) {
                unanswered -= 1
                finished(head.topic, bytes: Int(clamping: head.total))
            }
            claims.removeValue(forKey: id)?.claim.end(.dropped)
            account()
        case .credit(let credit): granted(credit)
        case .busy(let id): if assigned[id, default: 0] > 0 { owner.turnedAway(id) }
        case .room(let room) where key == nil:
            if let topic = try? Topic(room.topic), let peer { owner.sink.passed(topic, by: peer) }
        case .room(let room): called(room)
        case .mayStart(let id): mayStart(id)
        case .start(let id): start(id)
        case .started(let id): if grants[id] != nil { grants[id] = true }
        case .confirmed(let count): memory?.window.confirmed(count, on: number)
        case .repair(let repair): owner.received(repair, on: self)
        case .directory(let word): owner.received(directory: word, on: self)
        default: break
        }
    }

    // MARK: Messages that ask before they start

    /// The peer wants to start a message of this node. Once it was let, only its own word, or that it ended
    /// in order without it, says what it did.
    private func mayStart(_ id: UInt64) {
        guard assigned[id, default: 0] > 0, owner.isClaimed(id) else { return send(.cancel(id: id)) }
        grants[id] = false
        send(.start(id: id))
    }

    /// A handler is free for a message of the peer.
    func claim(_ id: UInt64, _ claim: Claim) {
        guard isConnected else { return claim.end(.dropped) }
        claims[id] = (claim, owner.now)
        send(.mayStart(id: id))
        watchClaims()
    }

    /// A sender that has been stopped must not keep handlers from the others.
    private func watchClaims() {
        guard !isWatchingClaims, let context else { return }
        isWatchingClaims = true
        context.eventLoop.scheduleTask(in: .nanoseconds(Self.claimTime.nanoseconds)) { [self] in
            isWatchingClaims = false
            owner.tick()
            for (id, waiting) in claims where owner.now >= waiting.since + Self.claimTime {
                claims[id] = nil
                owner.counters.add(.messagesUnclaimed)
                waiting.claim.end(.overdue)
            }
            if !claims.isEmpty { watchClaims() }
        }
    }

    /// The peer lets a message start: it hears so before the handler runs.
    private func start(_ id: UInt64) {
        guard let claim = claims.removeValue(forKey: id) else { return }
        send(.started(id: id))
        flush()
        claim.claim.end(.granted)
    }

    /// A message of the peer was neither started nor answered: its sender knows, or is gone.
    func dropped(_ topic: Topic, bytes: Int) {
        unanswered -= 1
        finished(topic, bytes: bytes)
        closeIfDrained()
    }

    /// Tells `owner` how the bytes of unfinished messages and replies have changed.
    func account() {
        let held = messages.heldBytes + replies.heldBytes
        owner.assembledBytes += held - accountedBytes
        accountedBytes = held
    }

    private func received(_ head: MessageHead, _ bytes: ByteBuffer) {
        unanswered += 1
        let size = Int(clamping: head.total)
        if ledger?.received(head.topic, bytes: size) == false {
            return perform(machine.exceeded("the credit of \(head.topic) is used up"))
        }
        let limit = owner.configuration.limits.message
        guard head.total <= UInt64(limit) else {
            owner.counters.add(.limitMessageHit)
            return refuse(head, .rejected, "limits.message: \(head.total) bytes; this node takes \(limit)")
        }
        if UInt64(bytes.readableBytes) == head.total {
            return received(whole: head, bytes)
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
        finished(head.topic, bytes: Int(clamping: head.total))
        send(ReplyHead(id: head.id, outcome: outcome, why: why, total: 0), ByteBuffer())
    }

    /// A message has come whole; one that came before over another link is not handled twice.
    private func received(whole head: MessageHead, _ payload: ByteBuffer) {
        guard let memory else { return owner.received(head, payload, on: self) }
        if head.isAgain {
            switch memory.window.again(head.id, by: number) {
            case .new: break
            case .running:
                owner.counters.add(.linkMessagesAgain)
                return
            case .answered(let reply, let payload):
                owner.counters.add(.linkMessagesAgain)
                finished(head.topic, bytes: Int(clamping: head.total))
                guard let payload else { return sendUnkept(reply) }
                return send(reply, payload)
            case .forgotten:
                return refuse(head, .lost, "it may have been handled before: that is no longer known here")
            }
        } else if memory.window.isOvertaken(head.id) {
            owner.counters.add(.linkMessagesAgain)
            return dropped(head.topic, bytes: Int(clamping: head.total))
        }
        memory.window.began(head.id)
        owner.received(head, payload, on: self)
    }

    /// It was handled, but its answer was too large to be kept.
    private func sendUnkept(_ reply: ReplyHead) {
        let why = "it was handled (\(reply.outcome.rawValue)); its answer was lost with the connection"
        send(ReplyHead(id: reply.id, outcome: .lost, why: why, total: 0), ByteBuffer())
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
            received(whole: head, payload)
        case .stray: owner.counters.add(.linkChunksStray)
        case .inconsistent: perform(machine.malformed(.inconsistent))
        }
    }

    private func received(_ head: ReplyHead, _ bytes: ByteBuffer) {
        // Those before this one: it may not be whole.
        if repliesBegun >= repliesConfirmed + Self.confirmedEvery { confirmReplies() }
        repliesBegun += 1
        guard assigned[head.id] != nil else { return owner.counters.add(.linkRepliesLate) }
        if UInt64(bytes.readableBytes) == head.total { return owner.answered(head, bytes, on: self) }
        let limit = owner.configuration.limits.message
        if head.total > UInt64(limit) {
            owner.counters.add(.limitMessageHit)
            owner.unanswerable(
                head, "limits.message: a reply of \(head.total) bytes; this node takes \(limit)")
        } else if !owner.mayAssemble {
            unheldReply(head)
        } else if replies.begin(head.id, head, first: bytes, total: Int(head.total), now: owner.now) {
            repliesUnfinished[head.id] = repliesBegun
        } else {
            perform(machine.malformed(.inconsistent))
        }
        account()
    }

    /// Tells the peer which answers it need not remember: all up to the first that has not come whole.
    func confirmReplies() {
        guard features.contains(.replay), carrier == .persistent, key != nil else { return }
        let whole = repliesUnfinished.values.min().map { $0 - 1 } ?? repliesBegun
        guard whole > repliesConfirmed else { return }
        repliesConfirmed = whole
        send(.confirmed(whole))
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
        case .whole(let head, let payload, _):
            repliesUnfinished[id] = nil
            owner.answered(head, payload, on: self)
        case .stray: owner.counters.add(.linkChunksStray)
        case .inconsistent: perform(machine.malformed(.inconsistent))
        }
    }
}
