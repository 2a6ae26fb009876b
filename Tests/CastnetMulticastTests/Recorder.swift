import CastnetCore
import CastnetMulticast
import NIOCore
import Synchronization

/// A sink that keeps everything and lets a test wait for it.
final class Recorder: ChannelSink {
    struct State {
        var messages: [(sequence: UInt64, payload: ByteBuffer)] = []
        var events: [StreamEvent] = []
        var backlog = 0
    }
    let state = Mutex(State())

    func delivered(_ records: [InboundRecord]) {
        state.withLock { state in
            for record in records {
                var body = record.body
                guard record.isRun else {
                    state.messages.append((record.firstSequence, body))
                    continue
                }
                for offset in 0..<record.count {
                    guard let length = body.readInteger(as: UInt16.self) else { break }
                    let payload = body.readSlice(length: Int(length)) ?? ByteBuffer()
                    state.messages.append((record.firstSequence + UInt64(offset), payload))
                }
            }
        }
    }

    func happened(_ events: [StreamEvent]) { state.withLock { $0.events += events } }
    func spaceAvailable() {}
    func backlogBytes() -> Int { state.withLock { $0.backlog } }

    var count: Int { state.withLock { $0.messages.count } }
    var losses: [Loss] {
        state.withLock { $0.events.compactMap { if case .loss(let loss) = $0 { loss } else { nil } } }
    }

    /// Waits until `condition` holds, at most `seconds`.
    func wait(
        _ seconds: Int = 20, for condition: @escaping @Sendable (borrowing State) -> Bool
    ) async -> Bool {
        await Wait.eventually(seconds) { self.state.withLock { condition($0) } }
    }
}
