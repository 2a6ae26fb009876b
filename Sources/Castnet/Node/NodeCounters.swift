package import CastnetCore
import Synchronization

/// A node's counters, added to from any thread.
package final class NodeCounters: Sendable {
    private let counts = Mutex(CounterSet())

    package init() {}

    package func add(_ counter: Counter, _ amount: Int = 1) { counts.withLock { $0.add(counter, amount) } }

    package var values: CounterSet { counts.withLock { $0 } }
}
