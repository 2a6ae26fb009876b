package import CastnetCore
package import NIOCore
import Synchronization

/// Where senders wait for room: a full channel or too many copies under way.
///
/// Called from any thread. Nobody waits past a deadline.
package final class SpaceGate: Sendable {
    private let loop: any EventLoop
    private let state = Mutex(State())

    private struct State {
        /// Counts openings, so that one that came between a refusal and the wait is not missed.
        var openings: UInt64 = 0
        var waiting: [UnsafeContinuation<Void, Never>] = []
    }

    package init(loop: any EventLoop) { self.loop = loop }

    /// Take it before asking for room; pass it to ``wait(since:until:)`` when there was none.
    package var openings: UInt64 { state.withLock { $0.openings } }

    /// Lets everybody try again.
    package func open() {
        let waiting = state.withLock { state in
            state.openings += 1
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Suspends until the gate opened after `openings`; throws `expired` at the deadline.
    package func wait(since openings: UInt64, until deadline: Instant, for what: @autoclosure () -> String)
        async throws
    {
        if MonotonicClock.now >= deadline {
            throw CastnetError(.expired, "the deadline passed while waiting for room in \(what())")
        }
        // A timer of our own opens the gate at the deadline: the others merely try again.
        let timer = loop.scheduleTask(deadline: deadline.nioDeadline) { self.open() }
        defer { timer.cancel() }
        await withUnsafeContinuation { continuation in
            let isOpen = state.withLock { state in
                if state.openings == openings { state.waiting.append(continuation) }
                return state.openings != openings
            }
            if isOpen { continuation.resume() }
        }
        try Task.checkCancellation()
    }
}
