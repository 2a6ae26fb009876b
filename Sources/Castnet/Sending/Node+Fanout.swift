public import CastnetCore
public import NIOCore

extension Node {
    /// Sends one message to every member that serves or subscribes the topic, the own node included.
    ///
    /// Without `receipt` it returns once the carrier has taken the message, with no rows. With one it
    /// returns a row per member of the view at send time, at the latest at the deadline. Suspends while
    /// the carrier or a member of the own node has no room; throws ``CastnetError``: `expired`,
    /// `unroutable` (mandatory only), `tooLarge`, `multicastUnavailable` (`fallback: none` only),
    /// `notRunning`, `stopped`.
    @discardableResult
    public func fanout(
        _ topic: Topic, _ payload: ByteBuffer, receipt: Settlement? = nil,
        options: SendOptions = SendOptions()
    ) async throws -> Receipt {
        try admit(payload, options.headers)
        let route = sender.policy(for: topic, kind: .fanout, size: payload.readableBytes).route
        let cast = Fanout(node: self, topic: topic, route: route, options: options, receipt: receipt)
        return try await cast.send([payload][...])
    }

    /// Sends many messages to every member of the topic, in order: the fastest way to fan out small ones.
    ///
    /// Returns once the carrier has taken them all. Throws like ``fanout(_:_:receipt:options:)``; messages
    /// before the one that failed have been sent.
    public func fanout(
        _ topic: Topic, contentsOf payloads: [ByteBuffer], options: SendOptions = SendOptions()
    ) async throws {
        try admit(payloads, options.headers)
        var rest = payloads[...]
        while let first = rest.first {
            let policy = sender.policy(for: topic, kind: .fanout, size: first.readableBytes)
            let isSized = sender.table.choice(for: topic, kind: .fanout).policies.count > 1
            let end =
                isSized
                ? rest.firstIndex {
                    sender.policy(for: topic, kind: .fanout, size: $0.readableBytes) != policy
                } ?? rest.endIndex
                : rest.endIndex
            let cast = Fanout(node: self, topic: topic, route: policy.route, options: options, receipt: nil)
            _ = try await cast.send(rest[..<end])
            rest = rest[end...]
        }
    }
}

/// One fanout, or a batch of them, on its way to a carrier.
struct Fanout {
    let node: Node
    let topic: Topic
    let route: Route
    let options: SendOptions
    let receipt: Settlement?
    private let startedAt = MonotonicClock.now

    init(node: Node, topic: Topic, route: Route, options: SendOptions, receipt: Settlement?) {
        self.node = node
        self.topic = topic
        self.route = route
        self.options = options
        self.receipt = receipt
    }

    private var deadline: Instant { startedAt + (options.deadline ?? route.deadline) }
    private var settle: Settlement { receipt ?? .received }

    /// Sends the payloads in order; the receipt is the last one's.
    func send(_ payloads: ArraySlice<ByteBuffer>) async throws -> Receipt {
        let view = try await node.membership(of: topic)
        let isHeardHere = !node.registry.listeners(to: topic).isEmpty
        if view.members.isEmpty, !isHeardHere, options.mandatory ?? route.mandatory {
            throw CastnetError(.unroutable, "nobody serves or subscribes \(topic)")
        }
        guard route.carrier == .multicast, let name = route.channel else {
            return try await sendCopies(payloads, view: view, to: view.members)
        }
        guard let channel = node.channel(name) else {
            guard route.fallback == .unicast else {
                throw CastnetError(.multicastUnavailable, "channel \(name) is not open and fallback is none")
            }
            return try await sendCopies(payloads, view: view, to: view.members)
        }
        return try await sendMulticast(payloads, on: channel, view: view)
    }

    // MARK: By the group

    private func sendMulticast(
        _ payloads: ArraySlice<ByteBuffer>, on channel: OpenChannel, view: MembershipView.Topical
    ) async throws -> Receipt {
        let (hearing, deaf) = view.split(by: channel.name)
        let copies = route.fallback == .unicast ? deaf : []
        let token = receipt == nil ? nil : node.nextToken()
        var rest = payloads
        var last: UInt64 = 0
        var rows: [Receipt.Row] = []
        while !rest.isEmpty {
            // A batch goes in pieces that fit the channel's outbox, each in one step.
            let piece = rest.prefix(channel.piece(of: rest))
            rest = rest[piece.endIndex...]
            let isLast = rest.isEmpty
            let waiting = Waiting(token: isLast ? token : nil, members: hearing, copies: copies)
            last = try await put(piece, on: channel, waiting)
        }
        let id = MessageID(incarnation: node.identity.incarnation, topic: topic, sequence: last)
        if let token { rows = await node.rows(of: token) }
        return Receipt(id: id, view: view.version, rows: rows)
    }

    private struct Waiting {
        var token: UInt64?
        var members: [Member]
        var copies: [Member]
    }

    /// Puts a piece into the channel's outbox as soon as it takes it; returns the last number.
    private func put(
        _ payloads: ArraySlice<ByteBuffer>, on channel: OpenChannel, _ waiting: Waiting
    ) async throws -> UInt64 {
        try await node.waitForReaders(of: topic, until: deadline)
        while true {
            let openings = channel.gate.openings
            let last = node.sender.numberedIfRoom(topic, count: payloads.count) { first in
                guard channel.hasRoom else { return false }
                openReceipt(waiting, channel: channel.name)
                channel.send(casts(payloads, first: first, token: waiting.token))
                spreadHere(payloads, first: first)
                if !waiting.copies.isEmpty {
                    queueCopies(payloads, first: first, to: waiting.copies, token: waiting.token)
                }
                return true
            }
            if let last { return last }
            try node.checkRunning()
            try await channel.gate.wait(since: openings, until: deadline, for: "channel \(channel.name)")
        }
    }

    private func casts(_ payloads: ArraySlice<ByteBuffer>, first: UInt64, token: UInt64?) -> [OutboundCast] {
        let sentAt = wallClockMicroseconds()
        if token == nil, options.headers.isEmpty {
            return OutboundCast.packing(payloads, topic: topic, first: first, sentAtMicroseconds: sentAt)
        }
        var casts: [OutboundCast] = []
        casts.reserveCapacity(payloads.count)
        for (offset, payload) in payloads.enumerated() {
            casts.append(
                OutboundCast(
                    topic: topic, sequence: first + UInt64(offset), sentAtMicroseconds: sentAt,
                    headers: options.headers, payload: payload,
                    token: offset == payloads.count - 1 ? token : nil,
                    asksProcessed: token != nil && settle == .processed && offset == payloads.count - 1))
        }
        return casts
    }

    // MARK: By copies

    private func sendCopies(
        _ payloads: ArraySlice<ByteBuffer>, view: MembershipView.Topical, to members: [Member]
    ) async throws -> Receipt {
        let token = receipt == nil ? nil : node.nextToken()
        var last: UInt64 = 0
        for (offset, payload) in payloads.enumerated() {
            try await node.waitForReaders(of: topic, until: deadline)
            try await node.waitForCopies(
                bytes: payload.readableBytes * members.count, until: deadline, topic: topic)
            let isLast = offset == payloads.count - 1
            let waiting = Waiting(token: isLast ? token : nil, members: [], copies: members)
            last = node.sender.numbered(topic) { first in
                openReceipt(waiting, channel: nil)
                let single = payloads[(payloads.startIndex + offset)...].prefix(1)
                spreadHere(single, first: first)
                queueCopies(single, first: first, to: members, token: waiting.token)
                return first
            }
        }
        let id = MessageID(incarnation: node.identity.incarnation, topic: topic, sequence: last)
        return Receipt(id: id, view: view.version, rows: token == nil ? [] : await node.rows(of: token!))
    }

    private func queueCopies(
        _ payloads: ArraySlice<ByteBuffer>, first: UInt64, to members: [Member], token: UInt64?
    ) {
        var copyRoute = route
        if route.carrier == .multicast { copyRoute.carrier = .ephemeral }
        for (offset, payload) in payloads.enumerated() {
            let message = OutboundMessage(
                kind: .fanout, topic: topic, server: nil, instance: nil, sequence: first + UInt64(offset),
                sentAtMicroseconds: wallClockMicroseconds(), deadline: deadline, settle: settle,
                headers: options.headers, payload: payload, route: copyRoute, mandatory: false)
            node.outbox.put(
                .copies(message, members, receipt: offset == payloads.count - 1 ? token : nil))
        }
    }

    // MARK: Here, and the receipt

    private func openReceipt(_ waiting: Waiting, channel: String?) {
        guard let token = waiting.token else { return }
        let here =
            node.registry.listeners(to: topic).isEmpty
            ? [] : [Receipt.Row(node: node.identity, outcome: .local, latency: .zero)]
        node.outbox.put(
            .receipt(
                token, topic, delivered: here, waiting: (waiting.members + waiting.copies).map(\.identity),
                channel: channel, settle: settle, deadline: deadline))
    }

    private func spreadHere(_ payloads: ArraySlice<ByteBuffer>, first: UInt64) {
        guard !node.registry.listeners(to: topic).isEmpty else { return }
        let sentAt = wallClockMicroseconds()
        for (offset, payload) in payloads.enumerated() {
            let record = InboundRecord(
                topic: topic, from: node.identity, firstSequence: first + UInt64(offset),
                sentAtMicroseconds: sentAt, headers: options.headers, body: payload)
            node.registry.spread(Delivery(record, kind: .fanout, carrier: .local))
        }
    }
}
