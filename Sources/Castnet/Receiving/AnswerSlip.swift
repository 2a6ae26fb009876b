import CastnetCore
import NIOCore
import Synchronization

/// The right to say once how a message ended; whoever handles the message passes it on.
package struct AnswerSlip: Sendable {
    private enum Holder: Sendable {
        case alone(ReplyToken, AnswerDesk)
        /// The message is answered; its sender still waits for the room it takes.
        case finishing(ReplyToken, AnswerDesk)
        case shared(SharedAnswer)
        case group(FrameMark, OpenChannel)
    }
    private let holder: Holder

    package init(_ token: ReplyToken, desk: AnswerDesk) { holder = .alone(token, desk) }

    /// For a message of the group: its sender hears in reports whether it was handled.
    init(_ mark: FrameMark, on channel: OpenChannel) { holder = .group(mark, channel) }

    private init(_ holder: Holder) { self.holder = holder }

    /// Says how the message ended. Called from any thread.
    package func give(_ answer: Answer) {
        switch holder {
        case .alone(let token, let desk): desk.put(.answer(token, answer, isFinished: true))
        case .finishing(let token, let desk): desk.put(.finished(token))
        case .shared(let shared): shared.give(answer)
        case .group(let mark, let channel): channel.ended(mark, isHandled: answer.outcome == .accepted)
        }
    }

    /// Says that the message is here, which settles it; ``finishing`` is used once it is handled.
    package func acknowledge() {
        guard case .alone(let token, let desk) = holder else { return give(Answer(.accepted)) }
        desk.put(.answer(token, Answer(.accepted), isFinished: false))
    }

    /// Asks the sender whether the message may start; `claim` hears the answer, on the node's event loop.
    func claim(_ claim: Claim) {
        guard case .alone(let token, let desk) = holder else { return claim.end(.granted) }
        desk.put(.claim(token, claim))
    }

    /// Says that the message was not started and never will be.
    func giveUp(_ verdict: Claim.Verdict) {
        guard case .alone(let token, let desk) = holder, verdict == .dropped else {
            return give(Answer(.released, why: "its sender did not say in time that it may start"))
        }
        desk.put(.dropped(token))
    }

    /// Tells who was turned away that there is room for so many messages; 0: as many as it likes.
    func call(_ topic: Topic, _ count: UInt32) {
        guard case .alone(let token, let desk) = holder else { return }
        desk.put(.room(token, topic, count))
    }

    /// The number of the link it came by; 0: it is this node's own.
    var link: UInt64 {
        switch holder {
        case .alone(.link(let link, _, _, _), _), .finishing(.link(let link, _, _, _), _): link.number
        case .alone, .finishing, .shared, .group: 0
        }
    }

    /// What is left of the slip behind ``acknowledge()``; nil: nothing.
    package var finishing: AnswerSlip? {
        guard case .alone(.link(let link, let id, let topic, let bytes), let desk) = holder else {
            return nil
        }
        return AnswerSlip(.finishing(.link(link, id: id, topic: topic, bytes: bytes), desk))
    }

    /// A slip that `count` handlers may each use once: the last one, or the first refusal, gives the answer.
    package func shared(by count: Int) -> AnswerSlip {
        count > 1 ? AnswerSlip(.shared(SharedAnswer(self, count: count))) : self
    }
}

/// What waits for the sender of a message to let it start: ends exactly once.
package final class Claim: Sendable {
    package enum Verdict: Sendable {
        case granted
        /// Its sender does not want it any more, or is gone: nobody waits for an answer.
        case dropped
        /// Its sender says nothing: a handler is not kept for it.
        case overdue
    }
    private let body: @Sendable (Verdict) -> Void

    init(_ body: @escaping @Sendable (Verdict) -> Void) { self.body = body }

    func end(_ verdict: Verdict) { body(verdict) }
}

/// One answer that several handlers of a fanout give together.
private final class SharedAnswer: Sendable {
    private let slip: AnswerSlip
    private let open: Mutex<Int>

    init(_ slip: AnswerSlip, count: Int) {
        self.slip = slip
        open = Mutex(count)
    }

    func give(_ answer: Answer) {
        let isLast = open.withLock { open -> Bool in
            guard open > 0 else { return false }
            open = answer.outcome == .accepted ? open - 1 : 0
            return open == 0
        }
        if isLast { slip.give(answer) }
    }
}

/// Where handlers on any thread leave their answers; the node's event loop picks them up in batches.
package final class AnswerDesk: Sendable {
    /// What a handler leaves.
    package enum Item: Sendable {
        /// `isFinished`: the message takes no room here any more.
        case answer(ReplyToken, Answer, isFinished: Bool)
        case finished(ReplyToken)
        /// A handler is free for the message: may it start?
        case claim(ReplyToken, Claim)
        case dropped(ReplyToken)
        /// There is room where a message of the topic was turned away.
        case room(ReplyToken, Topic, UInt32)
    }
    private let mailbox: LoopMailbox<Item>

    package init(loop: any EventLoop, deliver: @escaping @Sendable ([Item]) -> Void) {
        mailbox = LoopMailbox(loop: loop, drain: deliver)
    }

    func put(_ item: Item) { mailbox.put(item) }
}
