import DequeModule

/// The messages that a link has yet to begin, in order. A topic without credit, or held, waits by itself and
/// stops no other.
package struct SendQueue: Sendable {
    /// What becomes of a message that wants to begin.
    package enum Start: Sendable {
        case now
        /// It waits for credit, behind those of its topic that wait already.
        case lacksCredit
        /// It waits until its topic may go on.
        case held
    }

    private struct Waiting: Sendable {
        var id: UInt64
        var bytes: Int
    }

    /// Ready to go, in order. May hold some that have ended.
    private var ready = Deque<UInt64>()
    /// Those of topics that must wait, older than all of their topics in `ready`.
    private var waiting: [Topic: Deque<Waiting>] = [:]
    /// Topics of those that may go on.
    private var woken = Deque<Topic>()
    private var held: Set<Topic> = []
    /// Topics of which the peer has turned messages away.
    private var closed: Set<Topic> = []
    package var credit = CreditBook()
    package private(set) var waitingCount = 0

    package init() {}

    /// True while nothing is ready to go; what waits for credit does not count.
    package var isEmpty: Bool { ready.isEmpty && woken.isEmpty }

    package mutating func append(_ id: UInt64) { ready.append(id) }

    /// The next message to look at, of those that are still wanted. `hasCredit`: its credit is taken, and it
    /// begins now; otherwise `start` decides.
    package mutating func next(
        isWanted: (UInt64) -> Bool
    ) -> (id: UInt64, hasCredit: Bool)? {
        while let topic = woken.first {
            if let id = nextWaiting(of: topic, isWanted) { return (id, true) }
            woken.removeFirst()
        }
        while let id = ready.popFirst() {
            if isWanted(id) { return (id, false) }
        }
        return nil
    }

    private mutating func nextWaiting(of topic: Topic, _ isWanted: (UInt64) -> Bool) -> UInt64? {
        guard !held.contains(topic), !closed.contains(topic), var queue = waiting.removeValue(forKey: topic)
        else { return nil }
        defer { if !queue.isEmpty { waiting[topic] = queue } }
        while let first = queue.first {
            let isWanted = isWanted(first.id)
            if isWanted, !credit.take(topic, bytes: first.bytes) { return nil }
            queue.removeFirst()
            waitingCount -= 1
            if isWanted { return first.id }
        }
        return nil
    }

    /// Whether a message may begin now; if not, `next` returns it when it may.
    package mutating func start(_ id: UInt64, _ topic: Topic, bytes: Int) -> Start {
        let isHeld = held.contains(topic) || closed.contains(topic)
        if !isHeld, waiting[topic] == nil, credit.take(topic, bytes: bytes) { return .now }
        waiting[topic, default: []].append(Waiting(id: id, bytes: bytes))
        waitingCount += 1
        return isHeld ? .held : .lacksCredit
    }

    /// The peer takes more of a topic.
    package mutating func granted(_ grant: Credit) {
        guard let topic = try? Topic(grant.topic) else { return }
        credit.granted(grant, of: topic)
        wake(topic)
    }

    /// Nothing of `topic` begins until it is released.
    package mutating func hold(_ topic: Topic) { held.insert(topic) }

    package mutating func release(_ topic: Topic) {
        held.remove(topic)
        wake(topic)
    }

    /// The peer has turned a message away: it and what follows of its topic waits until ``reopen(_:)``.
    package mutating func putBack(_ id: UInt64, _ topic: Topic, bytes: Int) {
        closed.insert(topic)
        var queue = waiting.removeValue(forKey: topic) ?? []
        let place = queue.firstIndex { $0.id > id } ?? queue.endIndex
        queue.insert(Waiting(id: id, bytes: bytes), at: place)
        waiting[topic] = queue
        waitingCount += 1
    }

    package mutating func reopen(_ topic: Topic) {
        closed.remove(topic)
        wake(topic)
    }

    /// The peer grants no credit: nothing waits for it.
    package mutating func ignoreCredit() {
        credit.isKept = false
        for topic in waiting.keys { wake(topic) }
    }

    private mutating func wake(_ topic: Topic) {
        if waiting[topic] != nil, !woken.contains(topic) { woken.append(topic) }
    }

    /// Those that came here from another link are older than some that were here before them.
    package mutating func sort() {
        guard ready.count > 1 else { return }
        ready = Deque(PlantedBug.overtakes.isPlanted ? ready.sorted(by: >) : ready.sorted())
    }

    /// Drops what is no longer wanted, where much may have piled up; `open` is how many still are.
    package mutating func compact(open: Int, isWanted: (UInt64) -> Bool) {
        guard ready.count + waitingCount > 64 + 2 * open else { return }
        ready.removeAll { !isWanted($0) }
        for topic in Array(waiting.keys) {
            waiting[topic]?.removeAll { !isWanted($0.id) }
            if waiting[topic]?.isEmpty == true { waiting[topic] = nil }
        }
        waitingCount = waiting.values.reduce(0) { $0 + $1.count }
    }
}
