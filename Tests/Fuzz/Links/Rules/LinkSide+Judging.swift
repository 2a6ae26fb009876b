import CastnetCore

/// What a machine may answer: the specification once more, in other words than the machine's.
extension LinkSide {
    func mayAnswer(_ event: Event, with action: LinkMachine.Action) -> Bool {
        switch action {
        case .none: mayIgnore(event)
        case .opened(let hello): mayOpen(hello, event)
        case .deliver(let packet): mayDeliver(packet, event)
        case .send(let packet): maySend(packet, event)
        case .reached(let heartbeat):
            if case .received(.heartbeatAnswer(heartbeat)) = event { isTalking } else { false }
        case .drain:
            if case .inputClosed = event {
                isTalking && role == .acceptor && peer?.purpose == .ephemeral
            } else {
                false
            }
        case .peerLeaves(let took):
            if case .received(.goodbye(let goodbye)) = event {
                isTalking && goodbye.reason == .stopping && goodbye.taken == took
            } else {
                false
            }
        case .close(let reason, let goodbye, let took): mayClose(reason, goodbye, took, event)
        }
    }

    /// True from the peer's hello until nothing more comes from it.
    private var isTalking: Bool { peer != nil && !isDraining && !isOver }

    private func mayIgnore(_ event: Event) -> Bool {
        switch event {
        case .connected, .heard, .probe, .disconnected: true
        case .leave: hasLeft || hasPeerLeft || isDraining
        case .inputClosed: isDraining
        case .malformed, .exceeded, .finish: false
        case .timer:
            if isDraining {
                !isDue(drainingSince, Self.drainTime)
            } else {
                peer != nil || !isDue(connectedAt, Self.helloDeadline)
            }
        case .received(let packet): connectedAt == nil || isDraining || (peer != nil && mayIgnore(packet))
        }
    }

    private func mayIgnore(_ packet: Packet) -> Bool {
        switch packet {
        // It crossed the goodbye, which tells the peer that nobody looked at it.
        case .message: role == .acceptor && hasLeft
        case .hello, .goodbye, .reply, .chunk, .cancel, .repair, .heartbeat, .heartbeatAnswer: false
        // Credit, say, which is of use to one side only.
        default: true
        }
    }

    private func mayOpen(_ hello: Hello, _ event: Event) -> Bool {
        guard case .received(.hello(hello)) = event, connectedAt != nil, peer == nil else { return false }
        return refusal(of: hello) == nil
    }

    private func mayDeliver(_ packet: Packet, _ event: Event) -> Bool {
        guard case .received(packet) = event, isTalking else { return false }
        return switch packet {
        case .message: role == .acceptor && !hasLeft
        case .hello, .goodbye, .heartbeat, .heartbeatAnswer: false
        default: true
        }
    }

    private func maySend(_ packet: Packet, _ event: Event) -> Bool {
        guard isTalking else { return false }
        switch (packet, event) {
        case (.goodbye(let goodbye), .leave):
            return !hasLeft && goodbye.reason == .stopping && goodbye.taken == taken
        case (.heartbeat, .timer): return interval != nil
        case (.heartbeat, .probe): return true
        case (.heartbeatAnswer(let nonce), .received(.heartbeat(let asked))): return nonce == asked
        default: return false
        }
    }

    private func mayClose(
        _ reason: LinkMachine.CloseReason, _ goodbye: Goodbye?, _ took: UInt64?, _ event: Event
    ) -> Bool {
        switch event {
        case .received(.goodbye(let said)):
            return goodbye == nil && took == said.taken && connectedAt != nil && !isDraining
        case .inputClosed:
            // Nobody is there any more who could be told.
            return reason == .failed && goodbye == nil && took == nil && !isDraining
        default: break
        }
        // Who ends a link itself says so, and does not know what the peer took unless that refuses, too.
        guard goodbye?.taken ?? taken == taken, goodbye != nil || hasLeft, took == nil || peer == nil else {
            return false
        }
        switch event {
        case .finish(let wanted, _): return reason == wanted
        case .leave: return reason == .stopping && peer == nil
        case .exceeded: return reason == .protocol
        case .malformed(let error):
            return reason == (error == .magic || error == .version ? .version : .protocol)
        case .timer:
            if peer == nil { return reason == .helloDeadline && isDue(connectedAt, Self.helloDeadline) }
            if isDraining { return reason == .dead && isDue(drainingSince, Self.drainTime) }
            return reason == .dead && interval.map { isDue(heardAt, $0 * 3) } == true
        case .received(let packet): return !isDraining && reason == fault(of: packet)
        default: return false
        }
    }

    private func isDue(_ since: Instant?, _ time: Duration) -> Bool {
        since.map { now >= $0 + time } == true
    }

    /// Why a packet ends the link; nil: it does not.
    private func fault(of packet: Packet) -> LinkMachine.CloseReason? {
        switch packet {
        case .hello(let hello): peer == nil ? refusal(of: hello) : .protocol
        case .message: peer == nil || role == .dialler ? .protocol : nil
        default: peer == nil ? .protocol : nil
        }
    }

    /// Section 2.4 of docs/wire-links.md.
    private func refusal(of theirs: Hello) -> LinkMachine.CloseReason? {
        if theirs.versionMin > own.versionMax || theirs.versionMax < own.versionMin { return .version }
        if theirs.cluster != own.cluster { return .cluster }
        if theirs.node == own.node { return .ownNode }
        let (wanted, found) = role == .dialler ? (own.expected, theirs.node) : (theirs.expected, own.node)
        guard let wanted else { return nil }
        let isAnyStart = wanted.incarnation.value == 0 && wanted.name == found.name
        return isAnyStart || wanted == found ? nil : .wrongNode
    }

    /// Section 2.5 of docs/wire-links.md.
    var intervalDue: Duration? {
        guard let peer, peer.purpose == .persistent || own.purpose == .persistent else { return nil }
        let wish = max(peer.heartbeatMilliseconds, own.heartbeatMilliseconds)
        return wish == 0 ? nil : .milliseconds(Int64(min(max(wish, 10), 3_600_000)))
    }
}
