internal import Subprocess
internal import Synchronization

/// What is known of a running program: its lines and its end. Shared by the task that reads the pipes and by
/// everybody who waits; the mutex makes that safe, and nobody is resumed under it.
final class ProcessRecord: Sendable {
    enum Stream: Int, Sendable { case output, errors }

    struct State {
        /// Indexed by `Stream`.
        var stores = [LineStore(), LineStore()]
        var exit: LabExit?
        /// Counts changes, so that a waiter cannot miss one between looking and sleeping.
        var version = 0
        var lastWaiter = 0
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
    }

    enum Step {
        case line(String)
        case ended
        case timedOut
    }

    private let state = Mutex(State())

    var exit: LabExit? { state.withLock(\.exit) }
    var linesDropped: Int { state.withLock { $0.stores[0].dropped + $0.stores[1].dropped } }

    func lines(_ stream: Stream) -> [String] {
        state.withLock { $0.stores[stream.rawValue].kept }
    }

    // MARK: Writing

    /// Reads one pipe to its end.
    func collect(
        _ pipe: SubprocessOutputSequence, _ stream: Stream
    ) async {
        do {
            for try await buffer in pipe {
                let bytes = buffer.withUnsafeBytes { [UInt8]($0) }
                change { $0.stores[stream.rawValue].append(bytes) }
            }
        } catch {
            change { $0.stores[stream.rawValue].append(Array("(reading the pipe failed: \(error))\n".utf8)) }
        }
        change { $0.stores[stream.rawValue].finish() }
    }

    func end(_ exit: LabExit) {
        change {
            for index in $0.stores.indices { $0.stores[index].finish() }
            $0.exit = exit
        }
    }

    private func change(_ body: (inout State) -> Void) {
        let woken = state.withLock { state in
            body(&state)
            state.version += 1
            defer { state.waiters.removeAll() }
            return Array(state.waiters.values)
        }
        for waiter in woken { waiter.resume() }
    }

    // MARK: Waiting

    /// The line at `position` or the first one still kept after it; `position` moves past it.
    func next(
        _ stream: Stream, from position: inout Int,
        until deadline: ContinuousClock.Instant?
    ) async throws -> Step {
        while true {
            let start = position
            let (found, version) = state.withLock { state -> ((Int, Step)?, Int) in
                let store = state.stores[stream.rawValue]
                if let (index, line) = store.line(from: start) { return ((index + 1, .line(line)), 0) }
                return (store.isFinished ? (start, .ended) : nil, state.version)
            }
            if let (next, step) = found {
                position = next
                return step
            }
            guard try await sleep(unlessChangedSince: version, until: deadline) else { return .timedOut }
        }
    }

    func waitForExit(until deadline: ContinuousClock.Instant) async throws -> LabExit? {
        while true {
            let (exit, version) = state.withLock { ($0.exit, $0.version) }
            if let exit { return exit }
            guard try await sleep(unlessChangedSince: version, until: deadline) else { return nil }
        }
    }

    /// Sleeps until the next change; false when the deadline came first.
    private func sleep(
        unlessChangedSince version: Int, until deadline: ContinuousClock.Instant?
    ) async throws -> Bool {
        try Task.checkCancellation()
        if let deadline, deadline <= .now { return false }
        let id = state.withLock { state in
            state.lastWaiter += 1
            return state.lastWaiter
        }
        let timer = deadline.map { deadline in
            Task {
                try await Task.sleep(until: deadline, clock: .continuous)
                self.wake(id)
            }
        }
        defer { timer?.cancel() }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isStale = state.withLock { state in
                    if state.version != version || Task.isCancelled { return true }
                    state.waiters[id] = continuation
                    return false
                }
                if isStale { continuation.resume() }
            }
        } onCancel: {
            wake(id)
        }
        try Task.checkCancellation()
        return true
    }

    private func wake(_ id: Int) {
        state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
    }
}

/// The last lines of one stream, within bounds.
struct LineStore {
    /// Lines forgotten from the front: the index of `lines[head]` in the whole stream.
    private(set) var dropped = 0
    private(set) var isFinished = false
    private var lines: [String] = []
    private var head = 0
    private var bytes = 0
    private var partial: [UInt8] = []

    /// A longer line is cut into several.
    static let lineBytesMax = 1 << 20

    var kept: [String] { Array(lines[head...]) }

    /// The first line at or after a position of the whole stream, with its position.
    func line(from position: Int) -> (Int, String)? {
        let index = max(position, dropped)
        let slot = head + index - dropped
        return slot < lines.count ? (index, lines[slot]) : nil
    }

    mutating func append(_ chunk: [UInt8]) {
        guard !isFinished else { return }
        var rest = chunk[...]
        while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
            partial += rest[..<newline]
            closeLine()
            rest = rest[(newline + 1)...]
        }
        partial += rest
        if partial.count > Self.lineBytesMax { closeLine() }
    }

    mutating func finish() {
        guard !isFinished else { return }
        if !partial.isEmpty { closeLine() }
        isFinished = true
    }

    private mutating func closeLine() {
        bytes += partial.count
        lines.append(String(decoding: partial, as: UTF8.self))
        partial.removeAll(keepingCapacity: true)
        while lines.count - head > LabProcess.linesMax || bytes > LabProcess.bytesMax {
            bytes -= lines[head].utf8.count
            lines[head] = ""
            head += 1
            dropped += 1
        }
        // Give the front back once it is half of the array: amortised constant work for a line.
        if head > 1024, head > lines.count / 2 {
            lines.removeFirst(head)
            head = 0
        }
    }
}
