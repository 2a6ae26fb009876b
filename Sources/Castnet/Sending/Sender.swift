package import CastnetCore
import Synchronization

/// Numbers and routes what this node sends; the one place where a message gets its number.
///
/// Called from any thread. Of at most `topicsMax` topics the numbers are remembered; past that all go on
/// behind the largest, so that no number comes twice.
package final class Sender: Sendable {
    private let state: Mutex<State>

    private struct State {
        var router: Router
        let topicsMax: Int
        /// The last number of each topic, and of those not here.
        var sequences: [Topic: UInt64] = [:]
        var floor: UInt64 = 0

        mutating func took(upTo last: UInt64, of topic: Topic) {
            if sequences.count >= topicsMax, sequences[topic] == nil {
                floor = sequences.values.max() ?? floor
                sequences.removeAll(keepingCapacity: true)
            }
            sequences[topic] = last
        }
    }

    package init(router: Router, topicsMax: Int = 65_536) {
        state = Mutex(State(router: router, topicsMax: topicsMax))
    }

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
            let first = state.sequences[topic, default: state.floor] + 1
            let result = try body(first)
            state.took(upTo: first + UInt64(count) - 1, of: topic)
            return result
        }
    }

    /// The same where `body` may find no room: nil takes no number, so that retrying leaves no gap.
    package func numberedIfRoom(
        _ topic: Topic, count: Int, _ body: (_ first: UInt64) -> Bool
    ) -> UInt64? {
        state.withLock { state in
            let first = state.sequences[topic, default: state.floor] + 1
            guard body(first) else { return nil }
            let last = first + UInt64(count) - 1
            state.took(upTo: last, of: topic)
            return last
        }
    }
}
