package import CastnetCore
import Synchronization

/// What waits in one subscription, between the threads that deliver and the task that reads.
///
/// Bounded by bytes: nothing is dropped here. A full queue holds back the carriers (`isFull`, `queuedBytes`),
/// which stop reading or stop granting; they are called back once it is half empty again.
package final class SubscriptionQueue: Sendable {
    package let pattern: TopicPattern
    package let bytesMax: Int
    private let drained: @Sendable () -> Void
    private let state = Mutex(State())

    private struct State {
        var deliveries: [Delivery] = []
        var bytes = 0
        /// Whom to tell that the batch the reader has now was processed: said when it asks for the next one.
        var unsettled: [AnswerSlip] = []
        var wasFull = false
        var isFinished = false
        var reader: UnsafeContinuation<Void, Never>?
    }

    /// `drained` is called outside any lock when a queue that was full is half empty.
    package init(pattern: TopicPattern, bytesMax: Int, drained: @escaping @Sendable () -> Void = {}) {
        self.pattern = pattern
        self.bytesMax = bytesMax
        self.drained = drained
    }

    /// The bytes waiting.
    package var queuedBytes: Int { state.withLock { $0.bytes } }
    package var isFull: Bool { state.withLock { $0.bytes >= bytesMax } }

    /// Takes a delivery in; false once the subscription has ended. Called from any thread.
    @discardableResult
    package func push(_ delivery: Delivery) -> Bool { push(contentsOf: CollectionOfOne(delivery)) }

    /// The same for several, of which the reader hears once.
    @discardableResult
    package func push(contentsOf deliveries: some Collection<Delivery>) -> Bool {
        let (taken, reader) = state.withLock { state -> (Bool, UnsafeContinuation<Void, Never>?) in
            guard !state.isFinished else { return (false, nil) }
            state.deliveries.append(contentsOf: deliveries)
            state.bytes += deliveries.reduce(0) { $0 + $1.cost }
            if state.bytes >= bytesMax { state.wasFull = true }
            defer { state.reader = nil }
            return (true, state.reader)
        }
        reader?.resume()
        return taken
    }

    /// Ends the sequence once what waits has been read; what the reader already has counts as processed.
    package func finish() {
        let (reader, settled) = state.withLock { state in
            defer {
                state.isFinished = true
                state.reader = nil
                state.unsettled = []
            }
            return (state.reader, state.unsettled)
        }
        for slip in settled { slip.give(Answer(.accepted)) }
        reader?.resume()
    }

    /// Everything that waits, as one batch; suspends while there is nothing; nil at the end or on
    /// cancellation.
    ///
    /// One reader at a time: a second one makes the first return empty-handed.
    package func take() async -> [Delivery]? {
        while true {
            let (batch, isOver, hasDrained) = grab()
            if hasDrained { drained() }
            if let batch { return batch }
            if isOver || Task.isCancelled { return nil }
            await withTaskCancellationHandler {
                await withUnsafeContinuation { continuation in wait(continuation) }
            } onCancel: {
                wakeReader()
            }
        }
    }

    private func grab() -> (batch: [Delivery]?, isOver: Bool, hasDrained: Bool) {
        let settled = state.withLock { state in
            defer { state.unsettled = [] }
            return state.unsettled
        }
        for slip in settled { slip.give(Answer(.accepted)) }
        return state.withLock { state in
            guard !state.deliveries.isEmpty else { return (nil, state.isFinished, false) }
            let batch = state.deliveries
            let hadBeenFull = state.wasFull
            state.deliveries = []
            state.deliveries.reserveCapacity(Swift.min(batch.count, 256))
            state.bytes = 0
            state.wasFull = false
            for case let slip? in batch.lazy.map(\.answer) { state.unsettled.append(slip) }
            return (batch, false, hadBeenFull)
        }
    }

    /// Leaves the continuation to the next push, unless something happened meanwhile.
    private func wait(_ continuation: UnsafeContinuation<Void, Never>) {
        let ready = state.withLock { state -> UnsafeContinuation<Void, Never>? in
            if !state.deliveries.isEmpty || state.isFinished || Task.isCancelled { return continuation }
            defer { state.reader = continuation }
            return state.reader
        }
        ready?.resume()
    }

    private func wakeReader() {
        let reader = state.withLock { state -> UnsafeContinuation<Void, Never>? in
            defer { state.reader = nil }
            return state.reader
        }
        reader?.resume()
    }
}
