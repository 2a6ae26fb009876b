package import NIOCore
import Synchronization

/// Items from any thread to one event loop, handed over in batches: one wake-up for all that came meanwhile.
package final class LoopMailbox<Item: Sendable>: Sendable {
    private let loop: any EventLoop
    private let drain: @Sendable ([Item]) -> Void
    private let waiting = Mutex(Waiting())

    private struct Waiting {
        var items: [Item] = []
        /// Room for the next items, so that no batch has to make its own.
        var room: [Item] = []
    }

    /// More room than this is given back.
    private static var roomMax: Int { 1024 }

    /// `drain` runs on `loop` with everything put since its last run, in order.
    package init(loop: any EventLoop, drain: @escaping @Sendable ([Item]) -> Void) {
        self.loop = loop
        self.drain = drain
    }

    /// Leaves an item. Called from any thread; never blocks for longer than another `put`.
    package func put(_ item: Item) {
        let wasEmpty = waiting.withLock { waiting in
            waiting.items.append(item)
            return waiting.items.count == 1
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
        var items = waiting.withLock { waiting in
            let items = waiting.items
            waiting.items = waiting.room
            waiting.room = []
            return items
        }
        guard !items.isEmpty else { return }
        drain(items)
        guard items.capacity <= Self.roomMax else { return }
        items.removeAll(keepingCapacity: true)
        let room = items
        waiting.withLock { $0.room = room }
    }
}
