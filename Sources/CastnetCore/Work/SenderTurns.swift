import DequeModule

/// What waits for a topic's handlers: first in, first out for each sender, and the senders take turns, so
/// that one that floods waits behind itself and holds up nobody else.
///
/// Bounded by messages and bytes: each sender may fill all but a ninth of what the others leave free, so that
/// the next one always finds room.
package struct SenderTurns<Item: Sendable>: Sendable {
    private struct Waiting: Sendable {
        var item: Item
        var messages: Int
        var bytes: Int
    }

    private struct Lane: Sendable {
        var sender: NodeIdentity
        var queue = Deque<Waiting>()
        var messages = 0
        var bytes = 0
    }

    /// What a sender may have waiting for each message or byte that is free.
    private static var shareOfFree: Int { 8 }
    private static var idleLanesMax: Int { 64 }

    private let messagesMax: Int
    private let bytesMax: Int
    private var lanes: [Lane] = []
    private var indices: [NodeIdentity: Int] = [:]
    /// Lanes with something, the one whose turn it is in front.
    private var ready = Deque<Int>()
    private var lastUsed = 0
    package private(set) var messages = 0
    package private(set) var bytes = 0

    package init(messagesMax: Int, bytesMax: Int) {
        self.messagesMax = max(1, messagesMax)
        self.bytesMax = max(1, bytesMax)
    }

    package var isEmpty: Bool { ready.isEmpty }
    /// Half of the room is free again: senders that found none may try.
    package var hasRoom: Bool { messages <= messagesMax / 2 && bytes <= bytesMax / 2 }

    /// True where one more message of `sender` may wait.
    package mutating func mayWait(_ sender: NodeIdentity) -> Bool {
        if messages == 0 { return true }
        let lane = lanes[index(of: sender)]
        return lane.messages < Self.shareOfFree * (messagesMax - messages)
            && lane.bytes < Self.shareOfFree * (bytesMax - bytes)
    }

    package mutating func append(_ item: Item, of sender: NodeIdentity, messages count: Int, bytes size: Int)
    {
        let index = index(of: sender)
        if lanes[index].queue.isEmpty { ready.append(index) }
        lanes[index].queue.append(Waiting(item: item, messages: count, bytes: size))
        add(count, size, to: index)
    }

    /// What `take` makes of the next item in turn. An item of several messages is taken one by one, and stays
    /// until `isLast`.
    package mutating func next<Piece>(
        _ take: (inout Item) -> (piece: Piece, isLast: Bool)
    ) -> Piece? {
        guard let index = ready.popFirst() else { return nil }
        let (piece, isLast) = take(&lanes[index].queue[0].item)
        if isLast {
            let done = lanes[index].queue.removeFirst()
            add(-done.messages, -done.bytes, to: index)
        } else {
            lanes[index].queue[0].messages -= 1
            add(-1, 0, to: index)
        }
        if !lanes[index].queue.isEmpty { ready.append(index) }
        return piece
    }

    package mutating func removeAll() -> [Item] {
        var items: [Item] = []
        while let item = next({ ($0, isLast: true) }) { items.append(item) }
        return items
    }

    private mutating func add(_ count: Int, _ size: Int, to index: Int) {
        lanes[index].messages += count
        lanes[index].bytes += size
        messages += count
        bytes += size
    }

    private mutating func index(of sender: NodeIdentity) -> Int {
        if lastUsed < lanes.count, lanes[lastUsed].sender == sender { return lastUsed }
        if indices[sender] == nil, lanes.count >= Self.idleLanesMax + ready.count {
            forgetIdle()
        }
        lastUsed = indices[sender] ?? lanes.count
        if lastUsed == lanes.count {
            lanes.append(Lane(sender: sender))
            indices[sender] = lastUsed
        }
        return lastUsed
    }

    /// Senders come and go.
    private mutating func forgetIdle() {
        let turns = ready.map { lanes[$0].sender }
        lanes.removeAll { $0.queue.isEmpty }
        indices = Dictionary(uniqueKeysWithValues: lanes.enumerated().map { ($1.sender, $0) })
        ready = Deque(turns.compactMap { indices[$0] })
    }
}
