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
/// Messages wait here while `concurrency` handlers run; a message whose deadline passed in the queue is not
/// executed. At most `backlogMax` messages wait: calls and casts past that are released, fanouts hold back
/// their carrier (`isFull`).
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
    private let backlogMax: Int
    private let bytesMax: Int
    private let drained: @Sendable () -> Void
    private let work: Work
    private let clock: @Sendable () -> Instant
    private let counters: NodeCounters
    private let state = Mutex(State())

    private struct State {
        var queue = Deque<Delivery>()
        /// What is left of the first delivery in the queue: the next message's place and the bytes from
        /// there.
        var index = 0
        var rest = ByteBuffer()
        /// Messages in the queue.
        var queued = 0
        var queuedBytes = 0
        var wasFull = false
        var running = 0
        var isWithdrawn = false
        var idle: [UnsafeContinuation<Void, Never>] = []
    }

    /// `drained` is called outside any lock when a queue that held `bytesMax` bytes is half empty.
    package init(
        topic: Topic, server: String, concurrency: Int, backlogMax: Int, work: Work, bytesMax: Int,
        counters: NodeCounters, clock: @escaping @Sendable () -> Instant,
        drained: @escaping @Sendable () -> Void = {}
    ) {
        self.topic = topic
        self.server = server
        self.concurrency = concurrency
        self.backlogMax = backlogMax
        self.bytesMax = bytesMax
        self.drained = drained
        self.work = work
        self.counters = counters
        self.clock = clock
    }

    package var queuedBytes: Int { state.withLock { $0.queuedBytes } }

    /// Takes a delivery in and sees that it is handled. Called from any thread.
    ///
    /// `acknowledging`: the message is settled once it is in the queue, whatever the handler says later.
    package func submit(_ delivery: Delivery, acknowledging: Bool = false) {
        if case .inline(let handler) = work {
            run(delivery) { message in try handler(message) }
            return
        }
        enum Decision { case start(Int), refuse(String) }
        let decision = state.withLock { state -> Decision in
            if state.isWithdrawn { return .refuse("the topic is no longer served here") }
            if delivery.kind != .fanout, state.queued >= backlogMax { return .refuse("backlog full") }
            if state.queue.isEmpty { state.rest = delivery.record.body }
            var queued = delivery
            if acknowledging { queued.answer = delivery.answer?.finishing }
            state.queue.append(queued)
            state.queued += delivery.record.count
            state.queuedBytes += delivery.cost
            if state.queuedBytes >= bytesMax { state.wasFull = true }
            let workers = min(state.queued, concurrency - state.running)
            state.running += workers
            return .start(workers)
        }
        switch decision {
        case .start(let workers):
            if acknowledging { delivery.answer?.acknowledge() }
            for _ in 0..<workers { startWorker() }
        case .refuse(let why):
            counters.add(.limitBacklogHit)
            delivery.answer?.give(Answer(.released, why: why))
        }
    }

    /// Stops taking messages in, releases what waits, and returns once no handler runs.
    package func withdraw() async {
        let waiting = state.withLock { state in
            state.isWithdrawn = true
            defer {
                state.queue = Deque()
                state.index = 0
                state.rest = ByteBuffer()
                state.queued = 0
                state.queuedBytes = 0
            }
            return state.queue
        }
        for delivery in waiting { delivery.answer?.give(Answer(.released, why: "the topic was withdrawn")) }
        await withUnsafeContinuation { continuation in
            let isIdle = state.withLock { state in
                if state.running > 0 { state.idle.append(continuation) }
                return state.running == 0
            }
            if isIdle { continuation.resume() }
        }
    }

    private func startWorker() {
        guard case .asynchronous(let handler, let executor) = work else { return }
        // One task works through the queue, so that a busy topic starts no task per message.
        Task(executorPreference: executor) { await self.workThrough(handler) }
    }

    private func workThrough(_ handler: Handler) async {
        while let (message, slip) = nextOrRest() {
            let answer = await handle(message, handler)
            slip?.give(answer)
        }
    }

    private func handle(_ message: Message, _ handler: Handler) async -> Answer {
        if let deadline = message.deadline, clock() >= deadline { return expired() }
        do { return Answer(try await handler(message)) } catch { return Answer(.rejected, why: "\(error)") }
    }

    private func run(_ delivery: Delivery, _ handler: (Message) throws -> Response) {
        var body = delivery.record.body
        var answer = Answer(.accepted)
        for index in 0..<delivery.record.count {
            guard let message = delivery.message(at: index, from: &body) else { break }
            if let deadline = message.deadline, clock() >= deadline {
                answer = expired()
                continue
            }
            do { answer = Answer(try handler(message)) } catch { answer = Answer(.rejected, why: "\(error)") }
        }
        delivery.answer?.give(answer)
    }

    private func expired() -> Answer {
        counters.add(.messagesExpiredInQueue)
        return Answer(.expired, why: "its deadline passed in the receiver's queue")
    }

    /// The next message, and the slip to answer on after the last of its delivery; nil ends the worker.
    private func nextOrRest() -> (Message, AnswerSlip?)? {
        enum Next { case message(Message, AnswerSlip?), rest([UnsafeContinuation<Void, Never>]) }
        var hasDrained = false
        let next = state.withLock { state -> Next in
            let popped = Self.popMessage(&state)
            if state.wasFull, state.queuedBytes <= bytesMax / 2 {
                state.wasFull = false
                hasDrained = true
            }
            if let (message, slip) = popped { return .message(message, slip) }
            state.running -= 1
            guard state.running == 0 else { return .rest([]) }
            defer { state.idle = [] }
            return .rest(state.idle)
        }
        if hasDrained { drained() }
        switch next {
        case .message(let message, let slip): return (message, slip)
        case .rest(let idle):
            for continuation in idle { continuation.resume() }
            return nil
        }
    }

    private static func popMessage(_ state: inout State) -> (Message, AnswerSlip?)? {
        while let delivery = state.queue.first {
            let message = delivery.message(at: state.index, from: &state.rest)
            state.index += 1
            let isLast = state.index >= delivery.record.count || message == nil
            if isLast {
                state.queue.removeFirst()
                state.queuedBytes -= delivery.cost
                state.index = 0
                state.rest = state.queue.first?.record.body ?? ByteBuffer()
            }
            if let message {
                state.queued -= 1
                return (message, isLast ? delivery.answer : nil)
            }
        }
        state.queued = 0
        return nil
    }
}
