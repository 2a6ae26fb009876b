package import CastnetCore
import DequeModule
import NIOCore
import Synchronization

/// How a handler is run.
public enum HandlerPlace: Sendable {
    /// On the global pool of tasks.
    case pool
    /// As a task on the node's event loop: the lowest latency an asynchronous handler can have.
    /// It must not block.
    case loop
}

/// One topic this node serves: its handler, its queue and its concurrency.
///
/// Messages wait here while `concurrency` handlers run, in a queue for each sender; the senders take turns. A
/// message whose deadline passed in the queue is not executed; its sender, whose own clock says the same,
/// hears so at leisure. At most `backlogMax` messages and `bytesMax` bytes wait: calls and casts past that
/// are turned away, fanouts hold back their carrier.
package final class ServedTopic: Sendable {
    package typealias Handler = @Sendable (Message) async throws -> Response
    package typealias InlineHandler = @Sendable (Message) throws -> Response

    package enum Work: Sendable {
        case asynchronous(Handler, (any TaskExecutor)?)
        case inline(InlineHandler)
    }

    package let topic: Topic
    package let server: String
    package let concurrency: Int
    /// False: it gets calls and casts only.
    package let hearsFanouts: Bool
    private let bytesMax: Int
    private let drained: @Sendable () -> Void
    private let wakeAt: @Sendable (Instant, @escaping @Sendable () -> Void) -> Void
    private let work: Work
    private let clock: @Sendable () -> Instant
    private let counters: NodeCounters
    private let state: Mutex<State>

    /// A delivery in the queue, and what is left of it: the next message's place and the bytes from there.
    private struct Queued: Sendable {
        var delivery: Delivery
        var index = 0
        var rest: ByteBuffer
    }

    private struct State {
        var queue: WorkQueue<Queued>
        /// Whom to tell at each door.
        var doors: [WorkQueue<Queued>.Door: AnswerSlip] = [:]
        /// A call back at the end of a promise is on its way.
        var isWaking = false
        var wasFull = false
        var isWithdrawn = false
        /// Whose deadline has passed here, and who has not heard so yet.
        var expired = Deque<AnswerSlip>()
        var isPausing = false
        var idle: [UnsafeContinuation<Void, Never>] = []
    }

    /// How many senders hear at once that a message has expired.
    private static var expiredAtOnce: Int { 16 }

    /// `drained` is called outside any lock when a queue that held `bytesMax` bytes is half empty, `wakeAt`
    /// to be called back at a time.
    package init(
        topic: Topic, server: String, concurrency: Int, hearsFanouts: Bool = true, backlogMax: Int,
        work: Work, bytesMax: Int,
        counters: NodeCounters, clock: @escaping @Sendable () -> Instant,
        wakeAt: @escaping @Sendable (Instant, @escaping @Sendable () -> Void) -> Void = { _, _ in },
        drained: @escaping @Sendable () -> Void = {}
    ) {
        self.topic = topic
        self.server = server
        self.concurrency = concurrency
        self.hearsFanouts = hearsFanouts
        self.bytesMax = bytesMax
        state = Mutex(
            State(queue: WorkQueue(concurrency: concurrency, messagesMax: backlogMax, bytesMax: bytesMax)))
        self.drained = drained
        self.wakeAt = wakeAt
        self.work = work
        self.counters = counters
        self.clock = clock
    }

    package var queuedBytes: Int { state.withLock { $0.queue.bytes } }

    /// Takes a delivery in and sees that it is handled. Called from any thread. False: there is no room for
    /// it, of which its slip hears as soon as there is.
    ///
    /// `acknowledging`: the message is settled once it is in the queue, whatever the handler says later.
    @discardableResult
    package func submit(_ delivery: Delivery, acknowledging: Bool = false) -> Bool {
        if case .inline(let handler) = work {
            runHere(delivery, handler)
            return true
        }
        enum Decision { case start(Int), turnAway, refuse }
        let decision = state.withLock { state -> Decision in
            if state.isWithdrawn { return .refuse }
            let (sender, link) = (delivery.record.from, delivery.answer?.link ?? 0)
            if delivery.kind != .fanout,
                !state.queue.admits(sender, link: link, isPrompt: delivery.isPrompt)
            {
                state.doors[delivery.isPrompt ? .sender(sender) : .link(link)] = delivery.answer
                return .turnAway
            }
            var queued = Queued(delivery: delivery, rest: delivery.record.body)
            if acknowledging { queued.delivery.answer = delivery.answer?.finishing }
            let workers = state.queue.append(
                queued, of: sender, messages: delivery.record.count, bytes: delivery.cost)
            if state.queue.bytes >= bytesMax { state.wasFull = true }
            return .start(workers)
        }
        switch decision {
        case .start(let workers):
            if acknowledging { delivery.answer?.acknowledge() }
            for _ in 0..<workers { startWorker() }
        case .turnAway:
            callWhoWaits()
            return false
        case .refuse: delivery.answer?.give(Answer(.released, why: "the topic is no longer served here"))
        }
        return true
    }

    private func runHere(_ delivery: Delivery, _ handler: @escaping InlineHandler) {
        guard delivery.isClaimed else { return run(delivery, handler) }
        let claim = Claim { [self] verdict in
            if verdict == .granted { run(delivery, handler) } else { delivery.answer?.giveUp(verdict) }
        }
        delivery.answer?.claim(claim)
    }

    /// Stops taking messages in, releases what waits, and returns once no handler runs, or at `deadline`.
    package func withdraw(until deadline: Instant? = nil) async {
        let (waiting, doors, expired) = state.withLock { state in
            state.isWithdrawn = true
            defer {
                state.doors = [:]
                state.expired = []
            }
            let (items, doors) = state.queue.close()
            return (items, doors.compactMap { state.doors[$0] }, state.expired)
        }
        for slip in expired { slip.give(Self.expired) }
        for queued in waiting {
            queued.delivery.answer?.give(Answer(.released, why: "the topic was withdrawn"))
        }
        // What they send now is released, and may go to another member.
        for door in doors { door.call(topic, 0) }
        await withUnsafeContinuation { continuation in
            let isIdle = state.withLock { state in
                if !state.queue.isIdle { state.idle.append(continuation) }
                return state.queue.isIdle
            }
            if isIdle { continuation.resume() }
            if !isIdle, let deadline { wakeAt(deadline) { [weak self] in self?.waitNoLonger() } }
        }
    }

    private func waitNoLonger() {
        let idle = state.withLock { state in
            defer { state.idle = [] }
            return state.idle
        }
        for continuation in idle { continuation.resume() }
    }

    /// Who was called has nothing to send any more.
    func passed(_ sender: NodeIdentity) {
        state.withLock { $0.queue.pass(sender) }
        callWhoWaits()
    }

    /// Tells those at the door who may send again; what was promised and not used goes to the next.
    private func callWhoWaits() {
        let (calls, next) = state.withLock { state in
            let calls = state.queue.calls(now: clock()).compactMap { call in
                state.doors.removeValue(forKey: call.door).map { (slip: $0, count: call.count) }
            }
            guard !state.doors.isEmpty, !state.isWaking, let next = state.queue.nextDeadline else {
                return (calls, Instant?.none)
            }
            state.isWaking = true
            return (calls, next)
        }
        for (slip, count) in calls { slip.call(topic, count) }
        guard let next else { return }
        wakeAt(next) { [weak self] in
            self?.state.withLock { $0.isWaking = false }
            self?.callWhoWaits()
        }
    }

    private func startWorker() {
        guard case .asynchronous(let handler, let executor) = work else { return }
        // One task works through the queue, so that a busy topic starts no task per message.
        Task(executorPreference: executor) { await self.workThrough(handler) }
    }

    private func workThrough(_ handler: Handler) async {
        var isFirst = true
        while let next = nextOrRest(isFirst: isFirst) {
            isFirst = false
            if next.isClaimed, !PlantedBug.startsUnasked.isPlanted, let slip = next.slip {
                let verdict = await claim(slip)
                guard verdict == .granted else {
                    slip.giveUp(verdict)
                    continue
                }
            }
            let answer = await handle(next.message, handler)
            next.slip?.give(answer)
        }
    }

    private func claim(_ slip: AnswerSlip) async -> Claim.Verdict {
        await withUnsafeContinuation { continuation in
            slip.claim(Claim { continuation.resume(returning: $0) })
        }
    }

    private func handle(_ message: Message, _ handler: Handler) async -> Answer {
        if isLate(message) { return Self.expired }
        do { return Answer(try await handler(message)) } catch { return Answer(.rejected, why: "\(error)") }
    }

    private func run(_ delivery: Delivery, _ handler: (Message) throws -> Response) {
        var body = delivery.record.body
        var answer = Answer(.accepted)
        for index in 0..<delivery.record.count {
            guard let message = delivery.message(at: index, from: &body) else { break }
            if isLate(message) {
                answer = Self.expired
                continue
            }
            // Of a batch that was fanned out nobody waits for an answer.
            guard delivery.answer != nil else {
                _ = try? handler(message)
                continue
            }
            do { answer = Answer(try handler(message)) } catch { answer = Answer(.rejected, why: "\(error)") }
        }
        delivery.answer?.give(answer)
    }

    private static var expired: Answer {
        Answer(.expired, why: "its deadline passed in the receiver's queue")
    }

    private func isLate(_ message: Message) -> Bool {
        guard let deadline = message.deadline, clock() >= deadline else { return false }
        if PlantedBug.executesExpired.isPlanted { return false }
        counters.add(.messagesExpiredInQueue)
        return true
    }

    /// Answers some of what has expired, and the rest a moment later: thousands that expire at once must not
    /// keep the node's event loop from the messages of others.
    private func answerExpired(isPauseOver: Bool = false) {
        let slips = state.withLock { state -> [AnswerSlip] in
            if isPauseOver { state.isPausing = false }
            guard !state.isPausing, !state.expired.isEmpty else { return [] }
            state.isPausing = true
            // In proportion, where no credit bounds them: what waits here is bounded by its rate.
            let slips = Array(state.expired.prefix(max(Self.expiredAtOnce, state.expired.count / 256)))
            state.expired.removeFirst(slips.count)
            return slips
        }
        guard !slips.isEmpty else { return }
        for slip in slips { slip.give(Self.expired) }
        wakeAt(clock() + .milliseconds(1)) { [self] in answerExpired(isPauseOver: true) }
    }

    /// The next message; nil ends the worker.
    private func nextOrRest(isFirst: Bool) -> Next? {
        var isFirst = isFirst
        while true {
            let look = look(isFirst: isFirst)
            if look.hasDrained { drained() }
            if look.areSomeAtDoor { callWhoWaits() }
            if look.haveSomeExpired { answerExpired() }
            for continuation in look.idle { continuation.resume() }
            if look.next != nil || look.isLast { return look.next }
            isFirst = false
        }
    }

    /// What a worker handles next.
    private struct Next {
        var message: Message
        /// The slip to answer on, after the last of a delivery.
        var slip: AnswerSlip?
        var isClaimed: Bool
    }

    /// What a worker found in the queue.
    private struct Look {
        var next: Next?
        /// There is no more.
        var isLast = false
        var hasDrained = false
        var areSomeAtDoor = false
        var haveSomeExpired = false
        var idle: [UnsafeContinuation<Void, Never>] = []
    }

    private func look(isFirst: Bool) -> Look {
        state.withLock { state in
            var look = pop(&state, isFirst: isFirst)
            if state.wasFull, state.queue.bytes <= bytesMax / 2 {
                state.wasFull = false
                look.hasDrained = true
            }
            look.areSomeAtDoor = !state.doors.isEmpty
            look.haveSomeExpired = !state.expired.isEmpty
            guard state.queue.isIdle else { return look }
            look.idle = state.idle
            state.idle = []
            return look
        }
    }

    /// Puts aside what has expired, up to a number: the lock is not held for longer.
    private func pop(_ state: inout State, isFirst: Bool) -> Look {
        for number in 0..<Self.expiredAtOnce {
            let popped = state.queue.next(isFirst: isFirst && number == 0) { queued in
                let message = queued.delivery.message(at: queued.index, from: &queued.rest)
                queued.index += 1
                let isLast = message == nil || queued.index >= queued.delivery.record.count
                let slip = isLast ? queued.delivery.answer : nil
                let isClaimed = queued.delivery.isClaimed
                return (message.map { Next(message: $0, slip: slip, isClaimed: isClaimed) }, isLast)
            }
            guard let popped else { return Look(isLast: true) }
            guard let next = popped else { continue }
            guard isLate(next.message) else { return Look(next: next) }
            if let slip = next.slip { state.expired.append(slip) }
        }
        return Look()
    }
}
