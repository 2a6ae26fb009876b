import DequeModule

/// The work of one topic at one node: what is taken in, what is handled next, and who hears of room.
///
/// At most `concurrency` messages are handled at a time. A message that finds no room is turned away unseen:
/// its sender waits at the node's door and is told when there is room. A *prompt* message finds room only
/// where a handler is free; the first one at the door has the next free handler promised for a moment.
///
/// Who waits at the door is known by a number of the caller (the link it came by).
package struct WorkQueue<Item: Sendable>: Sendable {
    /// Somebody at the door who may send again.
    package struct Call: Hashable, Sendable {
        package var door: UInt64
        /// How many messages; 0: as many as it likes.
        package var count: UInt32
    }

    private struct Promise: Sendable {
        var door: UInt64
        var until: Instant
    }

    /// How long a free handler is kept for a sender that was called.
    package static var promiseTime: Duration { .milliseconds(100) }

    private let concurrency: Int
    private var turns: SenderTurns<Item>
    /// Tasks that work through the queue, and how many of them have a message in hand.
    private var workers = 0
    private var handling = 0
    /// Who was turned away, in order: with prompt messages, and with others.
    private var atDoor = Deque<UInt64>()
    private var atFullQueue: [UInt64] = []
    private var promises: [Promise] = []

    package init(concurrency: Int, messagesMax: Int, bytesMax: Int) {
        self.concurrency = max(1, concurrency)
        turns = SenderTurns(messagesMax: messagesMax, bytesMax: bytesMax)
    }

    package var messages: Int { turns.messages }
    package var bytes: Int { turns.bytes }
    package var isIdle: Bool { workers == 0 }
    /// When ``timerFired(now:)`` is due.
    package var nextDeadline: Instant? { promises.first?.until }

    /// Handlers that nothing waits for and nobody was promised.
    private var freeCount: Int { concurrency - handling - turns.messages - promises.count }

    /// True where a message may be taken in; otherwise its sender is remembered at the door.
    package mutating func admits(_ sender: NodeIdentity, door: UInt64, isPrompt: Bool) -> Bool {
        guard isPrompt else {
            if turns.mayWait(sender) { return true }
            if !atFullQueue.contains(door) { atFullQueue.append(door) }
            return false
        }
        if let promised = promises.firstIndex(where: { $0.door == door }) {
            promises.remove(at: promised)
            return true
        }
        if freeCount > 0, atDoor.isEmpty { return true }
        if !atDoor.contains(door) { atDoor.append(door) }
        return false
    }

    /// Takes an item of so many messages in; returns how many workers to start.
    package mutating func append(_ item: Item, of sender: NodeIdentity, messages: Int, bytes: Int) -> Int {
        turns.append(item, of: sender, messages: messages, bytes: bytes)
        let started = max(0, min(turns.messages, concurrency - workers))
        workers += started
        return started
    }

    /// What a worker handles next: what `take` makes of the item in turn, of which it says whether it was the
    /// last. Nil ends the worker. `isFirst`: it has handled nothing yet.
    package mutating func next<Piece>(
        isFirst: Bool, _ take: (inout Item) -> (piece: Piece, isLast: Bool)
    ) -> Piece? {
        if !isFirst { handling -= 1 }
        guard let piece = turns.next(take) else {
            workers -= 1
            return nil
        }
        handling += 1
        return piece
    }

    /// Who may send again now that something has ended.
    package mutating func calls(now: Instant) -> [Call] {
        promises.removeAll { $0.until <= now }
        var calls: [Call] = []
        while freeCount > 0, let door = atDoor.popFirst() {
            promises.append(Promise(door: door, until: now + Self.promiseTime))
            calls.append(Call(door: door, count: 1))
        }
        if !atFullQueue.isEmpty, turns.hasRoom {
            calls += atFullQueue.map { Call(door: $0, count: 0) }
            atFullQueue = []
        }
        return calls
    }

    /// Who was called has nothing to send any more.
    package mutating func pass(door: UInt64) { promises.removeAll { $0.door == door } }

    /// Takes nothing more: returns what waits, and everybody at the door.
    package mutating func close() -> (items: [Item], doors: [UInt64]) {
        defer {
            atDoor = []
            atFullQueue = []
            promises = []
        }
        return (turns.removeAll(), Array(atDoor) + atFullQueue)
    }
}
