package import CastnetCore
package import NIOCore

/// One or more messages of one topic on their way to this node's members.
package struct Delivery: Sendable {
    package var record: InboundRecord
    package var kind: MessageKind
    package var carrier: Carrier
    /// The server name asked for; nil: any.
    package var server: String?
    package var deadline: Instant?
    /// True: it is taken in only where a handler is free.
    package var isPrompt = false
    /// True: it is started only once its sender has let it.
    package var isClaimed = false
    /// Whom to tell how it ended; nil: nobody waits.
    package var answer: AnswerSlip?

    package init(
        _ record: InboundRecord, kind: MessageKind, carrier: Carrier, server: String? = nil,
        deadline: Instant? = nil, answer: AnswerSlip? = nil
    ) {
        self.record = record
        self.kind = kind
        self.carrier = carrier
        self.server = server
        self.deadline = deadline
        self.answer = answer
    }

    /// The memory this delivery holds, near enough to bound it: its bytes and its bookkeeping.
    package var cost: Int { record.body.readableBytes + 96 }

    /// The message at `index` of a record, cut out of `body`; `body` is advanced past it.
    ///
    /// The stream's decoder has checked every length, so a short body can only mean a bug: it ends the run.
    package func message(at index: Int, from body: inout ByteBuffer) -> Message? {
        let payload: ByteBuffer?
        if record.isRun {
            payload = body.readInteger(as: UInt16.self).flatMap { body.readSlice(length: Int($0)) }
        } else {
            payload = index == 0 ? body : nil
        }
        guard let payload else { return nil }
        return Message(
            kind: kind, topic: record.topic, from: record.from,
            sequence: record.firstSequence &+ UInt64(index), sentAtMicroseconds: record.sentAtMicroseconds,
            deadline: deadline, headers: record.headers, payload: payload, carrier: carrier,
            repaired: record.repaired)
    }
}

/// How a member answered a message.
package struct Answer: Sendable {
    package var outcome: Outcome
    package var why: String?
    package var headers = Headers()
    package var payload = ByteBuffer()

    package init(_ outcome: Outcome, why: String? = nil) {
        self.outcome = outcome
        self.why = why
    }

    package init(_ response: Response) {
        switch response {
        case .reply(let payload, let headers):
            self.init(.accepted)
            self.payload = payload
            self.headers = headers
        case .reject(let why): self.init(.rejected, why: why)
        case .release(let why): self.init(.released, why: why)
        }
    }
}
