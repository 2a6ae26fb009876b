@preconcurrency internal import Dispatch
internal import Glibc
internal import Synchronization

/// SIGINT and SIGTERM as something to wait for instead of an end: from its making on, they no longer end the
/// process.
final class StopSignals: Sendable {
    private struct State {
        var seen: Int32?
        var waiter: CheckedContinuation<Int32?, Never>?
    }

    private let state = Mutex(State())
    /// Kept alive for the process: a cancelled source would leave the signals ignored.
    private let sources: [any DispatchSourceSignal]

    init() {
        let numbers = [SIGINT, SIGTERM]
        sources = numbers.map { number in
            signal(number, SIG_IGN)
            return DispatchSource.makeSignalSource(signal: number, queue: .global())
        }
        for (source, number) in zip(sources, numbers) {
            source.setEventHandler { [weak self] in self?.resolve(number) }
            source.resume()
        }
    }

    /// The first signal, or nil when none came within the time. One waiter at a time.
    func first(within limit: Duration) async -> Int32? {
        let timer = Task {
            try await Task.sleep(for: limit)
            self.resolve(nil)
        }
        defer { timer.cancel() }
        return await withCheckedContinuation { continuation in
            let seen = state.withLock { state -> Int32? in
                if state.seen == nil { state.waiter = continuation }
                return state.seen
            }
            if let seen { continuation.resume(returning: seen) }
        }
    }

    private func resolve(_ number: Int32?) {
        let waiter = state.withLock { state in
            if let number { state.seen = number }
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume(returning: number)
    }
}
