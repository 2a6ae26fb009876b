import CastnetCore
import NIOCore

/// What arrives, and what is answered.
extension Unicast {
    func received(_ head: MessageHead, _ payload: ByteBuffer, on link: Link) {
        guard let peer = link.peer else { return }
        let reception =
            !head.isPrompt && link.refusals[head.topic] != nil
            ? .turnedAway
            : deliver(
                head, payload, from: peer, carrier: link.carrier,
                deadline: now + .microseconds(Int64(min(head.timeLeftMicroseconds, 1 << 50))),
                token: .link(link, id: head.id, topic: head.topic, bytes: payload.readableBytes))
        switch reception {
        case .taken: break
        case .takenLast:
            guard link.pauseReading() else { return }
            counters.add(.limitSubscriptionBacklogHit)
            pausedLinks.append(link)
        case .turnedAway:
            if !head.isPrompt { counters.add(.limitBacklogHit) }
            turnAway(head, on: link)
            link.finished(head.topic, bytes: payload.readableBytes)
        }
    }

    func deliverHere(_ id: UInt64, _ entry: Outstanding) {
        let message = entry.message
        var head = MessageHead(
            id: id, kind: message.kind, settle: message.settle, topic: message.topic, server: message.server,
            sequence: message.sequence, sentAtMicroseconds: message.sentAtMicroseconds,
            timeLeftMicroseconds: 0, headers: message.headers, total: UInt64(message.payload.readableBytes))
        head.isPrompt = entry.isPrompt
        let reception = deliver(
            head, message.payload, from: identity, carrier: .local, deadline: message.deadline,
            token: .local(id: id))
        guard case .turnedAway = reception else { return }
        if !head.isPrompt { counters.add(.limitBacklogHit) }
        turnedAway(id)
    }

    private func deliver(
        _ head: MessageHead, _ payload: ByteBuffer, from: NodeIdentity, carrier: Carrier, deadline: Instant,
        token: ReplyToken
    ) -> Reception {
        let record = InboundRecord(
            topic: head.topic, from: from, firstSequence: head.sequence,
            sentAtMicroseconds: head.sentAtMicroseconds, headers: head.headers, body: payload)
        var delivery = Delivery(
            record, kind: head.kind, carrier: carrier, server: head.server, deadline: deadline,
            answer: AnswerSlip(token, desk: sink.answers))
        delivery.isPrompt = head.isPrompt
        delivery.isClaimed = head.isClaimed
        return sink.received(delivery, settle: head.settle)
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
                finish(
                    id, answer.outcome, answer.why, headers: answer.headers, payload: answer.payload,
                    isAnswered: true)
            case .answer(.link(let link, let id, let topic, let bytes), let answer, let isFinished):
                let link = send(sendable(answer), for: id, on: link)
                if isFinished { link?.finished(topic, bytes: bytes) }
            case .finished(.link(let link, _, let topic, let bytes)): link.finished(topic, bytes: bytes)
            case .finished(.local): break
            case .room(.link(let link, _, _, _), let topic, let count): link.call(topic, count)
            case .room(.local, let topic, let count): called(topic, by: identity, for: count)
            case .claim(.link(let link, let id, _, _), let claim):
                let number = link.memory?.window.way(of: id, on: link.number) ?? link.number
                if let way = number == link.number ? link : links[number] {
                    way.claim(id, claim)
                } else {
                    claim.end(.dropped)
                }
            case .claim(.local(let id), let claim): claim.end(outstanding[id] != nil ? .granted : .dropped)
            case .dropped(.link(let link, let id, let topic, let bytes)):
                _ = link.memory?.window.handled(id, on: link.number)
                link.dropped(topic, bytes: bytes)
            case .dropped(.local): break
            }
        }
        flushLinks()
    }

    /// A message of the peer found no room here. Who does not understand that hears that it was released.
    private func turnAway(_ head: MessageHead, on link: Link) {
        guard link.features.contains(.busy) else {
            _ = send(Answer(.released, why: "the backlog of \(head.topic) is full"), for: head.id, on: link)
            return
        }
        counters.add(.messagesTurnedAway)
        _ = link.memory?.window.handled(head.id, on: link.number)
        link.turnAway(head)
    }

    /// Answers on the link by which the newest copy of the message came, and returns it; nil: it has ended.
    func send(_ answer: Answer, for id: UInt64, on link: Link) -> Link? {
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
    func sendable(_ answer: Answer) -> Answer {
        let limit = configuration.limits.message
        if answer.payload.readableBytes > limit {
            counters.add(.limitMessageHit)
            let size = answer.payload.readableBytes
            return Answer(.rejected, why: "the reply has \(size) bytes; limits.message allows \(limit)")
        }
        if let fault = answer.headers.fault { return Answer(.rejected, why: "the reply's headers: \(fault)") }
        return answer
    }

    /// True when the parts of another large message fit the memory set aside for them.
    var mayAssemble: Bool { assembledBytes <= configuration.limits.memory / 2 }

    /// True for a message that is open and asks before it starts.
    func isClaimed(_ id: UInt64) -> Bool { outstanding[id]?.isClaimed == true }

    func answered(_ head: ReplyHead, _ payload: ByteBuffer, on link: Link) {
        guard let entry = outstanding[head.id] else { return counters.add(.linkRepliesLate) }
        let route = entry.message.route
        if head.outcome == .released,
            entry.attempts.released(isLeaving: link.isLeft, isPinned: entry.pinned != nil, route: route)
                == .again
        {
            link.unassign(head.id)
            unassign(entry, isAnswered: true)
            entry.replayTo = nil
            retryLater(head.id, entry)
            makeWay(after: entry)
            return link.closeIfDone(linger: linger(of: route))
        }
        finish(head.id, head.outcome, head.why, headers: head.headers, payload: payload, isAnswered: true)
    }

    /// The reply to a message cannot be taken in.
    func unanswerable(_ head: ReplyHead, _ why: String) { finish(head.id, .lost, why) }
}
