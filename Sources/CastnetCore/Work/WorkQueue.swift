import DequeModule

/// The work of one topic at one node: what is taken in, what is handled next, and who hears of room.
///
/// At most `concurrency` messages are handled at a time. A message that finds no room is turned away unseen:
/// its sender waits at the node's door and is told when there is room. A *prompt* message finds room only
/// where a handler is free; the first one at the door has the next free handler promised for a moment.
///
/// A sender waits for a free handler as one, however many links it has; room in the queue is waited for by
/// each link, which holds back what follows on it.
package struct WorkQueue<Item: Sendable>: Sendable {
    /// What waits.
    package enum Door: Hashable, Sendable {
        /// For a free handler.
        case sender(NodeIdentity)
        /// For room in the queue; the number of a link.
        case link(UInt64)
    }

    /// Who waited and may send again.
    package struct Call: Hashable, Sendable {
        package var door: Door
        /// How many messages; 0: as many as it likes.
        package var count: UInt32
    }

    private struct Promise: Sendable {
        var sender: NodeIdentity
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
    private var atDoor = Deque<NodeIdentity>()
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
    package mutating func admits(_ sender: NodeIdentity, link: UInt64, isPrompt: Bool) -> Bool {
        guard isPrompt else {
            // What was turned away comes first once there is room.
            if atFullQueue.contains(link) { return false }
            if turns.mayWait(sender) { return true }
            atFullQueue.append(link)
            return false
        }
        if let promised = promises.firstIndex(where: { $0.sender == sender }) {
            promises.remove(at: promised)
            return true
        }
        if freeCount > 0, atDoor.isEmpty { return true }
        if !atDoor.contains(sender) { atDoor.append(sender) }
        return false
    }

    /// Takes an item of so many messages in; returns how many workers to start.
    package mutating func append(_ item: Item, of sender: NodeIdentity, messages: Int, bytes: Int) -> Int {
        turns.append(item, of: sender, messages: messages, bytes: bytes)
        let most = PlantedBug.overworks.isPlanted ? concurrency + 1 : concurrency
        let started = max(0, min(turns.messages, most - workers))
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
        while freeCount > 0, let sender = atDoor.popFirst() {
            promises.append(Promise(sender: sender, until: now + Self.promiseTime))
            calls.append(Call(door: .sender(sender), count: 1))
        }
        if !atFullQueue.isEmpty, turns.hasRoom {
            calls += atFullQueue.map { Call(door: .link($0), count: 0) }
            atFullQueue = []
        }
        return calls
    }

    /// Who was called has nothing to send any more.
    package mutating func pass(_ sender: NodeIdentity) { promises.removeAll { $0.sender == sender } }

    /// Takes nothing more: returns what waits, and everybody at the door.
    package mutating func close() -> (items: [Item], doors: [Door]) {
        defer {
            atDoor = []
            atFullQueue = []
            promises = []
        }
        return (turns.removeAll(), atDoor.map { .sender($0) } + atFullQueue.map { .link($0) })
    }
}
