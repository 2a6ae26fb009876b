import DequeModule
package import NIOCore

/// What a node has answered and its peer has not confirmed, in the order of the answers on one link.
///
/// Bounded: past so many answers the oldest are forgotten, past so many bytes the oldest lose theirs.
struct AnswerLog: Sendable {
    struct Answer: Sendable {
        var head: ReplyHead
        /// Nil: not kept.
        var payload: ByteBuffer?

        /// The same, with no more memory behind its bytes than they need: a reply is often a part of what was
        /// read from a socket, and would hold all of that for as long as it is kept.
        var compacted: Self {
            guard let payload, payload.storageCapacity > 2 * payload.readableBytes + 64 else { return self }
            return Answer(head: head, payload: ByteBuffer(bytes: payload.readableBytesView))
        }
    }

    private static let answersMax = 4096
    private static let bytesMax = 1 << 20

    private(set) var answers = Deque<Answer>()
    /// Answers that were here and are not.
    private var gone: UInt64 = 0
    private var bytes = 0
    /// How many from the front have lost their bytes.
    private var emptied = 0
    /// The largest id that was forgotten before its answer was confirmed.
    private(set) var forgottenMax: UInt64 = 0

    mutating func append(_ answer: Answer) {
        answers.append(answer)
        bytes += answer.payload?.readableBytes ?? 0
        while bytes > Self.bytesMax { empty() }
        if answers.count > Self.answersMax {
            forgottenMax = max(forgottenMax, answers[0].head.id)
            removeFirst()
        }
    }

    /// The peer has the first `count` answers of the link.
    mutating func confirmed(_ count: UInt64) {
        while gone < count, !answers.isEmpty { removeFirst() }
    }

    func answer(to id: UInt64) -> Answer? { answers.last { $0.head.id == id } }

    private mutating func empty() {
        let count = answers[emptied].payload?.readableBytes ?? 0
        // An answer without bytes costs nothing to keep.
        if count > 0 { answers[emptied].payload = nil }
        bytes -= count
        emptied += 1
    }

    private mutating func removeFirst() {
        bytes -= answers.removeFirst().payload?.readableBytes ?? 0
        emptied = max(0, emptied - 1)
        gone += 1
    }
}

/// What a node remembers of the messages of one peer's persistent links, so that a message that comes again
/// after a link broke is not handled twice.
///
/// Messages are known by the peer's incarnation, which has a window of its own, and their ids, which that
/// incarnation never uses twice. One that is being handled is known until it is answered, an answer until the
/// peer confirms that it has it. Links have numbers of the caller.
package struct ReplayWindow: Sendable {
    /// What is known of a message that came again.
    package enum Verdict: Sendable {
        /// It never came here.
        case new
        /// It is being handled; its answer goes the new way.
        case running
        /// It has been handled; nil: the answer's bytes are kept no longer.
        case answered(ReplyHead, ByteBuffer?)
        /// It may have come and been forgotten.
        case forgotten
    }

    private var running: Set<UInt64> = []
    /// Messages that came again and had not come before: what their first link still has of them comes late.
    /// Bounded: a link can hold no more first copies than its credit allows, and ends soon where it is dead.
    private var overtaken: Set<UInt64> = []
    private var overtakenInOrder = Deque<UInt64>()
    private static let overtakenMax = 16_384
    /// The links by which messages came again that are being handled.
    private var ways: [UInt64: UInt64] = [:]
    private var logs: [UInt64: AnswerLog] = [:]
    /// Answers whose link has ended.
    private var orphans = AnswerLog()
    private var forgottenMax: UInt64
    /// The largest id there was.
    package private(set) var idMax: UInt64 = 0

    /// `forgotten`: ids up to this one may have come before there was this window.
    package init(forgotten: UInt64 = 0) { forgottenMax = forgotten }

    package var openLinks: Int { logs.count }

    package mutating func opened(_ link: UInt64) { logs[link] = AnswerLog() }

    /// A link has ended: what its peer has not confirmed stays known.
    package mutating func closed(_ link: UInt64) {
        guard let log = logs.removeValue(forKey: link) else { return }
        forgottenMax = max(forgottenMax, log.forgottenMax)
        for answer in log.answers { orphans.append(answer.compacted) }
        guard logs.count <= 1 else { return }
        overtaken = []
        overtakenInOrder = []
    }

    /// True for the first copy of a message of which the second was here before: its link was thought dead.
    package func isOvertaken(_ id: UInt64) -> Bool { !overtaken.isEmpty && overtaken.contains(id) }

    /// A message has come whole for the first time.
    package mutating func began(_ id: UInt64) {
        idMax = max(idMax, id)
        running.insert(id)
    }

    /// A message that came by `link` is handled, or was turned away; returns the link to say so on.
    package mutating func handled(_ id: UInt64, on link: UInt64) -> UInt64 {
        running.remove(id)
        return ways.isEmpty ? link : ways.removeValue(forKey: id) ?? link
    }

    /// The link by which to speak of a message that came by `link`.
    package func way(of id: UInt64, on link: UInt64) -> UInt64 { ways[id] ?? link }

    /// An answer is sent by a link, or would be if that had not ended. Every answer on a link is logged: the
    /// peer counts them.
    package mutating func answered(_ head: ReplyHead, _ payload: ByteBuffer, on link: UInt64) {
        let answer = AnswerLog.Answer(head: head, payload: payload)
        if logs[link]?.append(answer) == nil { orphans.append(answer.compacted) }
    }

    /// The peer has the first `count` answers of a link.
    package mutating func confirmed(_ count: UInt64, on link: UInt64) { logs[link]?.confirmed(count) }

    /// A message came again, by `link`.
    package mutating func again(_ id: UInt64, by link: UInt64) -> Verdict {
        if PlantedBug.handlesReplays.isPlanted { return .new }
        if running.contains(id) {
            ways[id] = link
            return .running
        }
        for log in [orphans] + logs.values {
            guard let known = log.answer(to: id) else { continue }
            return .answered(known.head, known.payload)
        }
        let forgotten = logs.values.reduce(max(forgottenMax, orphans.forgottenMax)) {
            max($0, $1.forgottenMax)
        }
        if id <= forgotten { return .forgotten }
        if logs.count > 1 { overtook(id) }
        return .new
    }

    private mutating func overtook(_ id: UInt64) {
        guard overtaken.insert(id).inserted else { return }
        overtakenInOrder.append(id)
        if overtakenInOrder.count > Self.overtakenMax { overtaken.remove(overtakenInOrder.removeFirst()) }
    }
}
