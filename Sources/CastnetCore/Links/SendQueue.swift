import DequeModule

/// The messages that a link has yet to begin, in order. A topic without credit, or held, waits by itself and
/// stops no other.
package struct SendQueue: Sendable {
    /// Ready to go, in order. May hold some that have ended.
    private var ready = Deque<UInt64>()
    /// Those of topics that must wait.
    private var waiting: [Topic: Deque<UInt64>] = [:]
    private var held: Set<Topic> = []
    package var credit = CreditBook()
    package private(set) var waitingCount = 0

    package init() {}

    /// True while nothing is ready to go; what waits for credit does not count.
    package var isEmpty: Bool { ready.isEmpty }

    package mutating func append(_ id: UInt64) { ready.append(id) }

    /// The next that is ready.
    package mutating func next() -> UInt64? { ready.popFirst() }

    /// Whether a message may begin now; if not it waits, behind those of its topic that wait already.
    package mutating func begins(_ id: UInt64, _ topic: Topic, bytes: Int) -> Bool {
        let isFree = (waiting.isEmpty && held.isEmpty) || (waiting[topic] == nil && !held.contains(topic))
        if isFree, credit.take(topic, bytes: bytes) { return true }
        waiting[topic, default: []].append(id)
        waitingCount += 1
        return false
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

    /// The peer grants no credit: nothing waits for it.
    package mutating func ignoreCredit() {
        credit.isKept = false
        for topic in Array(waiting.keys) { wake(topic) }
    }

    /// What waits is older than everything of its topic that is ready.
    private mutating func wake(_ topic: Topic) {
        guard !held.contains(topic), let ids = waiting.removeValue(forKey: topic) else { return }
        waitingCount -= ids.count
        ready.prepend(contentsOf: ids)
    }

    /// Those that came here from another link are older than some that were here before them.
    package mutating func sort() { if ready.count > 1 { ready = Deque(ready.sorted()) } }

    /// Drops what is no longer wanted, where much may have piled up; `open` is how many still are.
    package mutating func compact(open: Int, isWanted: (UInt64) -> Bool) {
        guard ready.count + waitingCount > 64 + 2 * open else { return }
        ready.removeAll { !isWanted($0) }
        for topic in Array(waiting.keys) {
            waiting[topic]?.removeAll { !isWanted($0) }
            if waiting[topic]?.isEmpty == true { waiting[topic] = nil }
        }
        waitingCount = waiting.values.reduce(0) { $0 + $1.count }
    }
}
