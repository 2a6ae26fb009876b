import CastnetCore
import NIOCore
import Synchronization

/// The right to say once how a message ended; whoever handles the message passes it on.
package struct AnswerSlip: Sendable {
    private enum Holder: Sendable {
        case alone(ReplyToken, AnswerDesk)
        case shared(SharedAnswer)
        case group(FrameMark, OpenChannel)
    }
    private let holder: Holder

    package init(_ token: ReplyToken, desk: AnswerDesk) { holder = .alone(token, desk) }

    /// For a message of the group: its sender hears in reports whether it was handled.
    init(_ mark: FrameMark, on channel: OpenChannel) { holder = .group(mark, channel) }

    private init(_ shared: SharedAnswer) { holder = .shared(shared) }

    /// Says how the message ended. Called from any thread.
    package func give(_ answer: Answer) {
        switch holder {
        case .alone(let token, let desk): desk.give(answer, to: token)
        case .shared(let shared): shared.give(answer)
        case .group(let mark, let channel): channel.ended(mark, isHandled: answer.outcome == .accepted)
        }
    }

    /// A slip that `count` handlers may each use once: the last one, or the first refusal, gives the answer.
    package func shared(by count: Int) -> AnswerSlip {
        count > 1 ? AnswerSlip(SharedAnswer(self, count: count)) : self
    }
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
    private let mailbox: LoopMailbox<(ReplyToken, Answer)>

    package init(loop: any EventLoop, deliver: @escaping @Sendable ([(ReplyToken, Answer)]) -> Void) {
        mailbox = LoopMailbox(loop: loop, drain: deliver)
    }

    func give(_ answer: Answer, to token: ReplyToken) { mailbox.put((token, answer)) }
}
