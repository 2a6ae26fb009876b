public import CastnetCore

/// The fanouts that match a pattern, as a bounded asynchronous sequence for one reader.
///
/// Memory: at most `limits.subscription-backlog` bytes wait here; a reader that is slower than its senders
/// holds them back, nothing is dropped. It ends when the node stops, when ``cancel()`` is called or when the
/// last copy is gone.
public struct Subscription: AsyncSequence, Sendable {
    /// What the sequence yields.
    public typealias Element = Message

    /// Ends the subscription with the last copy of its handle.
    private final class Handle: Sendable {
        let queue: SubscriptionQueue
        let withdraw: @Sendable () -> Void

        init(queue: SubscriptionQueue, withdraw: @escaping @Sendable () -> Void) {
            self.queue = queue
            self.withdraw = withdraw
        }

        deinit { cancel() }

        func cancel() {
            queue.finish()
            withdraw()
        }
    }

    private let handle: Handle

    package init(queue: SubscriptionQueue, withdraw: @escaping @Sendable () -> Void) {
        handle = Handle(queue: queue, withdraw: withdraw)
    }

    /// The pattern subscribed.
    public var pattern: TopicPattern { handle.queue.pattern }

    /// Ends the subscription; what has arrived can still be read.
    public func cancel() { handle.cancel() }

    /// Reads the messages, or whole batches.
    public func makeAsyncIterator() -> Iterator { Iterator(subscription: self) }

    /// Reads a subscription; it owns the batch it is in, so that most messages cost no suspension.
    public struct Iterator: AsyncIteratorProtocol {
        private let subscription: Subscription
        private var batch = MessageBatch([]).makeIterator()

        fileprivate init(subscription: Subscription) { self.subscription = subscription }

        /// The next message; nil at the end or when the task was cancelled.
        public mutating func next() async -> Message? {
            while true {
                if let message = batch.next() { return message }
                guard let deliveries = await subscription.handle.queue.take() else { return nil }
                batch = MessageBatch(deliveries).makeIterator()
            }
        }

        /// Everything that waits, at least one message; nil at the end or when the task was cancelled.
        ///
        /// Do not mix with ``next()``: messages left of its batch are skipped.
        public mutating func nextBatch() async -> MessageBatch? {
            await subscription.handle.queue.take().map(MessageBatch.init)
        }
    }
}
