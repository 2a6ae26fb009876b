#if Redis
    internal import CastnetCore
    internal import Glibc
    internal import Synchronization

    /// What a node leaves for its Redis thread: the newest own record, and the wish to end. Any thread; a
    /// pipe ends the thread's waiting.
    final class RedisMailbox: Sendable {
        private struct State {
            var record: NodeRecord?
            var isStopping = false
            var isEnded = false
            var waiting: [CheckedContinuation<Void, Never>] = []
            /// The pipe's ends while the thread runs, else -1.
            var (wakeIn, wakeOut) = (Int32(-1), Int32(-1))
        }

        private let state = Mutex(State())

        /// Opens the pipe; throws where the process has no descriptors left.
        func open() throws(RedisError) -> Int32 {
            var ends: [Int32] = [-1, -1]
            guard unsafe pipe(&ends) == 0 else { throw RedisError("no pipe: error \(errno)") }
            for end in ends {
                _ = fcntl(end, F_SETFD, FD_CLOEXEC)
                _ = fcntl(end, F_SETFL, O_NONBLOCK)
            }
            let (wakeOut, wakeIn) = (ends[0], ends[1])
            state.withLock { ($0.wakeOut, $0.wakeIn) = (wakeOut, wakeIn) }
            return wakeOut
        }

        func put(_ record: NodeRecord) { change { $0.record = record } }

        func stop() { change { $0.isStopping = true } }

        /// One byte in the pipe does for all that waits.
        private func change(_ body: (inout State) -> Void) {
            state.withLock { state in
                let isEmpty = state.record == nil && !state.isStopping
                body(&state)
                guard isEmpty, state.wakeIn >= 0 else { return }
                var byte: UInt8 = 1
                _ = unsafe write(state.wakeIn, &byte, 1)
            }
        }

        func take() -> (record: NodeRecord?, isStopping: Bool) {
            state.withLock { state in
                defer { state.record = nil }
                return (state.record, state.isStopping)
            }
        }

        /// The thread is done: whoever waits for that goes on.
        func end() {
            let waiting = state.withLock { state in
                for end in [state.wakeIn, state.wakeOut] where end >= 0 { close(end) }
                (state.wakeIn, state.wakeOut) = (-1, -1)
                state.isEnded = true
                return giveUp(&state)
            }
            for continuation in waiting { continuation.resume() }
        }

        /// Until the thread is done, or ``release()``.
        func ended() async {
            await withCheckedContinuation { continuation in
                let isEnded = state.withLock { state in
                    if !state.isEnded { state.waiting.append(continuation) }
                    return state.isEnded
                }
                if isEnded { continuation.resume() }
            }
        }

        /// Lets go who waits for the end, though it has not come.
        func release() {
            let waiting = state.withLock { giveUp(&$0) }
            for continuation in waiting { continuation.resume() }
        }

        private func giveUp(_ state: inout State) -> [CheckedContinuation<Void, Never>] {
            defer { state.waiting = [] }
            return state.waiting
        }
    }
#endif
