package import NIOCore
import Synchronization

/// Items from any thread to one event loop, handed over in batches: one wake-up for all that came meanwhile.
package final class LoopMailbox<Item: Sendable>: Sendable {
    private let loop: any EventLoop
    private let drain: @Sendable ([Item]) -> Void
    private let waiting = Mutex<[Item]>([])

    /// `drain` runs on `loop` with everything put since its last run, in order.
    package init(loop: any EventLoop, drain: @escaping @Sendable ([Item]) -> Void) {
        self.loop = loop
        self.drain = drain
    }

    /// Leaves an item. Called from any thread; never blocks for longer than another `put`.
    package func put(_ item: Item) {
        let wasEmpty = waiting.withLock { waiting in
            waiting.append(item)
            return waiting.count == 1
        }
        guard wasEmpty else { return }
        loop.execute { self.run() }
    }

    /// Hands over what has been put so far, now. Called on `loop`, but not by what `drain` calls.
    ///
    /// Whoever put an item into one mailbox and caused an item in another has no promise that the first one's
    /// turn comes first: its wake-up may be the duty of a thread that was stopped before it could ask for it.
    package func catchUp() { run() }

    private func run() {
        let items = waiting.withLock { waiting in
            let items = waiting
            waiting = []
            return items
        }
        if !items.isEmpty { drain(items) }
    }
}
