package import CastnetCore
import Synchronization

/// Numbers and routes what this node sends; the one place where a message gets its number.
///
/// Called from any thread.
package final class Sender: Sendable {
    private let state: Mutex<State>

    private struct State {
        var router: Router
        var sequences: [Topic: UInt64] = [:]
    }

    package init(router: Router) { state = Mutex(State(router: router)) }

    /// The table in force.
    package var table: PolicyTable { state.withLock { $0.router.table } }

    /// The rule for a message.
    package func policy(for topic: Topic, kind: MessageKind, size: Int) -> Policy {
        state.withLock { $0.router.route(topic: topic, kind: kind, size: size) }
    }

    /// Reserves `count` numbers of a topic and calls `body` with the first while no other send of this node
    /// can take a number: what `body` queues is in order.
    package func numbered<Result>(
        _ topic: Topic, count: Int = 1, _ body: (_ first: UInt64) throws -> sending Result
    ) rethrows -> Result {
        try state.withLock { state in
            let first = state.sequences[topic, default: 0] + 1
            let result = try body(first)
            state.sequences[topic] = first + UInt64(count) - 1
            return result
        }
    }

    /// The same where `body` may find no room: nil takes no number, so that retrying leaves no gap.
    package func numberedIfRoom(
        _ topic: Topic, count: Int, _ body: (_ first: UInt64) -> Bool
    ) -> UInt64? {
        state.withLock { state in
            let first = state.sequences[topic, default: 0] + 1
            guard body(first) else { return nil }
            let last = first + UInt64(count) - 1
            state.sequences[topic] = last
            return last
        }
    }
}
