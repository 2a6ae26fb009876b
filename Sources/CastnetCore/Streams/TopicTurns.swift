internal import DequeModule
internal import NIOCore

/// The messages that wait in a channel, in one lane per topic: each topic is first in, first out, and the
/// topics take turns, so that a large message or a flood of one topic does not hold up the others. A topic
/// that has used its rate rests.
///
/// Memory: what was submitted and not yet cut. A lane without messages is kept while there are few, or while
/// it would be resting.
struct TopicTurns: Sendable {
    /// The message that is being cut into chunks, and how far it is. Its parts are read where they stand: a
    /// copy of it would count a reference for each.
    struct Cut: Sendable {
        /// 0: none is.
        var number: UInt64 = 0
        /// The encoded headers; the payload follows.
        var block = ByteBuffer()
        var payload = ByteBuffer()
        var offset = 0
        var total = 0
        var token: UInt64?
        var asksProcessed = false
        var isUnderWay: Bool { number > 0 }
    }

    struct Lane: Sendable {
        var topic: Topic
        /// What follows the message that is being cut.
        var queue = Deque<OutboundCast>()
        var cut = Cut()
        /// What it has used of its topic's rate.
        var pacer: Pacer
        var isEmpty: Bool { queue.isEmpty && !cut.isUnderWay }
    }

    private static let idleLanesMax = 256

    var lanes: [Lane] = []
    private var indices: [Topic: Int] = [:]
    private var free: [Int] = []
    /// Lanes with messages, the one whose turn it is in front.
    private var ready = Deque<Int>()
    /// Lanes whose large message waits until another one is complete.
    private var parked: [Int] = []
    /// Lanes with messages whose topics have used their rate.
    private var resting: [(index: Int, until: Instant)] = []
    /// Bytes a second for each topic; nil: no bound.
    private let rate: Double?
    private let startedAt: Instant
    private var lastUsed = 0
    /// Bytes cut in this turn.
    var spent = 0
    /// Bytes of payload queued and not yet cut.
    private(set) var queuedBytes = 0
    private(set) var queuedCount = 0

    init(rate: Int?, now: Instant) {
        self.rate = rate.map { Double(max(1, $0)) }
        startedAt = now
    }

    var isEmpty: Bool { queuedCount == 0 }
    /// When the first lane that rests may go on.
    var restsUntil: Instant? { resting.lazy.map(\.until).min() }
    /// The lane whose turn it is.
    var current: Int? { ready.first }
    /// True when another lane waits for its turn.
    var isContended: Bool { ready.count > 1 }

    mutating func submit(_ cast: OutboundCast, now: Instant) {
        queuedBytes += cast.payloadBytes
        queuedCount += cast.count
        let index = lane(of: cast.topic)
        let isNew = lanes[index].isEmpty
        lanes[index].queue.append(cast)
        guard isNew else { return }
        if rate != nil, let until = lanes[index].pacer.waitsUntil(now) {
            resting.append((index, until))
        } else {
            ready.append(index)
        }
    }

    private mutating func lane(of topic: Topic) -> Int {
        if lastUsed < lanes.count, lanes[lastUsed].topic == topic { return lastUsed }
        if let known = indices[topic] {
            lastUsed = known
            return known
        }
        if let reused = free.popLast() {
            lanes[reused].topic = topic
            lanes[reused].pacer = Pacer(now: startedAt)
            lastUsed = reused
        } else {
            lanes.append(Lane(topic: topic, pacer: Pacer(now: startedAt)))
            lastUsed = lanes.count - 1
        }
        indices[topic] = lastUsed
        return lastUsed
    }

    /// Ends the turn: the lane goes to the end of the line.
    mutating func rotate() {
        spent = 0
        if let index = ready.popFirst() { ready.append(index) }
    }

    /// The lane in front has no message any more.
    mutating func retireCurrent(now: Instant) {
        spent = 0
        guard let index = ready.popFirst(), indices.count > Self.idleLanesMax,
            lanes[index].pacer.waitsUntil(now) == nil
        else { return }
        indices[lanes[index].topic] = nil
        lanes[index].topic = Topic(unchecked: "")
        free.append(index)
        lastUsed = .max
    }

    /// The lane in front waits until ``unpark()``.
    mutating func parkCurrent() {
        spent = 0
        if let index = ready.popFirst() { parked.append(index) }
    }

    mutating func unpark() {
        ready.append(contentsOf: parked)
        parked.removeAll(keepingCapacity: true)
    }

    /// The lane in front has put `bytes` into a frame; true: it has used its topic's rate, and rests.
    mutating func pay(_ bytes: Int, now: Instant) -> Bool {
        guard let rate, let index = current else { return false }
        lanes[index].pacer.pay(bytes: bytes, rate: rate, now: now)
        guard !lanes[index].isEmpty, let until = lanes[index].pacer.waitsUntil(now) else { return false }
        spent = 0
        ready.removeFirst()
        resting.append((index, until))
        return true
    }

    /// Lanes that have rested long enough wait for their turn again.
    mutating func wake(now: Instant) {
        guard !resting.isEmpty else { return }
        ready.append(contentsOf: resting.lazy.filter { $0.until <= now }.map(\.index))
        resting.removeAll { $0.until <= now }
    }

    /// `messages` messages are complete, and `bytes` of payload were cut.
    mutating func took(messages: Int, bytes: Int) {
        queuedCount -= messages
        queuedBytes -= bytes
        spent += bytes + messages
    }
}
