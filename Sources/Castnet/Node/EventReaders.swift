import Synchronization

/// Who reads one kind of a node's events: each reader has its own stream, and the newest 1,024 wait for a
/// slow one. Any thread.
final class EventReaders<Event: Sendable>: Sendable {
    private struct State {
        var readers: [UInt64: AsyncStream<Event>.Continuation] = [:]
        var next: UInt64 = 0
        var isOver = false
    }
    private let state = Mutex(State())

    /// Events from now on; ends when the node has stopped.
    func stream() -> AsyncStream<Event> {
        AsyncStream(bufferingPolicy: .bufferingNewest(1024)) { continuation in
            let key = state.withLock { state -> UInt64? in
                guard !state.isOver else { return nil }
                state.next += 1
                state.readers[state.next] = continuation
                return state.next
            }
            guard let key else { return continuation.finish() }
            continuation.onTermination = { [weak self] _ in
                self?.state.withLock { $0.readers[key] = nil }
            }
        }
    }

    func yield(_ event: Event) {
        for reader in state.withLock({ Array($0.readers.values) }) { reader.yield(event) }
    }

    func finish() {
        let readers = state.withLock { state in
            state.isOver = true
            return Array(state.readers.values)
        }
        for reader in readers { reader.finish() }
    }
}
