public import CastnetCore
public import NIOCore

extension Node {
    // MARK: call

    /// Sends a request to one member that serves the topic and returns its reply.
    ///
    /// Suspends until the reply is here, at most until the deadline. Throws ``CastnetError`` with the code of
    /// how the call ended: `rejected`, `released`, `expired`, `unroutable`, `lost`, or why it was never sent:
    /// `tooLarge`, `limitReached`, `notRunning`, `stopped`.
    public func call(
        _ target: Target, _ payload: ByteBuffer, options: SendOptions = SendOptions()
    ) async throws -> Reply {
        let settled = try await sendToOne(.call, target, payload, options)
        return Reply(
            id: settled.id, payload: settled.payload, headers: settled.headers, from: settled.member,
            carrier: settled.carrier,
            latency: settled.latency)
    }

    /// Sends a request to one member that serves the topic and returns its reply.
    public func call(
        _ topic: Topic, _ payload: ByteBuffer, options: SendOptions = SendOptions()
    ) async throws -> Reply {
        try await call(Target(topic), payload, options: options)
    }

    // MARK: cast

    /// Sends a message to one member that serves the topic and returns once it is settled there.
    ///
    /// Throws like ``call(_:_:options:)-(Target,_,_)``.
    @discardableResult
    public func cast(
        _ target: Target, _ payload: ByteBuffer, options: SendOptions = SendOptions()
    ) async throws -> CastReceipt {
        let settled = try await sendToOne(.cast, target, payload, options)
        return CastReceipt(
            id: settled.id, member: settled.member, carrier: settled.carrier, latency: settled.latency)
    }

    /// Sends a message to one member that serves the topic and returns once it is settled there.
    @discardableResult
    public func cast(
        _ topic: Topic, _ payload: ByteBuffer, options: SendOptions = SendOptions()
    ) async throws -> CastReceipt {
        try await cast(Target(topic), payload, options: options)
    }

    private struct Settled {
        var id: MessageID
        var member: NodeIdentity
        var carrier: Carrier
        var latency: Duration
        var headers: Headers
        var payload: ByteBuffer
    }

    private func sendToOne(
        _ kind: MessageKind, _ target: Target, _ payload: ByteBuffer, _ options: SendOptions
    ) async throws -> Settled {
        try admit(payload, options.headers)
        let route = sender.policy(for: target.topic, kind: kind, size: payload.readableBytes).route
        let now = MonotonicClock.now
        var number: UInt64 = 0
        let result = await withUnsafeContinuation {
            (continuation: UnsafeContinuation<SendResult, Never>) in
            sender.numbered(target.topic) { first in
                number = first
                outbox.put(
                    .toOne(
                        OutboundMessage(
                            kind: kind, topic: target.topic, server: target.server, instance: target.instance,
                            sequence: first, sentAtMicroseconds: wallClockMicroseconds(),
                            deadline: now + (options.deadline ?? route.deadline),
                            settle: options.settle ?? route.settle, headers: options.headers,
                            payload: payload,
                            route: route, mandatory: options.mandatory ?? route.mandatory),
                        .continuation(continuation)))
            }
        }
        guard result.outcome == .accepted, let member = result.member else {
            let rule = sender.table.explain(topic: target.topic, kind: kind, size: payload.readableBytes)
            throw CastnetError(
                CastnetError.Code(result.outcome),
                "\(rule): \(result.why ?? result.outcome.rawValue)")
        }
        return Settled(
            id: MessageID(incarnation: identity.incarnation, topic: target.topic, sequence: number),
            member: member, carrier: result.carrier, latency: result.latency, headers: result.headers,
            payload: result.payload)
    }

    /// Refuses what no carrier takes.
    func admit(_ payload: ByteBuffer, _ headers: Headers) throws {
        try admit(size: payload.readableBytes, headers)
    }

    func admit(_ payloads: [ByteBuffer], _ headers: Headers) throws {
        try admit(size: payloads.reduce(0) { max($0, $1.readableBytes) }, headers)
    }

    private func admit(size: Int, _ headers: Headers) throws {
        let limit = configuration.limits.message
        if size > limit {
            counters.add(.limitMessageHit)
            throw CastnetError(.tooLarge, "limits.message: \(size) bytes; at most \(limit) are allowed")
        }
        if let fault = headers.fault { throw CastnetError(.invalidArgument, fault) }
        try checkRunning()
    }
}

extension CastnetError.Code {
    /// The code for a message that ended otherwise than accepted.
    init(_ outcome: Outcome) {
        switch outcome {
        case .accepted, .lost: self = .lost
        case .rejected: self = .rejected
        case .released: self = .released
        case .expired: self = .expired
        case .unroutable: self = .unroutable
        }
    }
}
