import DequeModule
package import NIOCore

/// What a node remembers of the messages of one peer's persistent links, so that a message that comes again
/// after a link broke is not executed twice.
///
/// Messages are known by the peer's incarnation, which has a window of its own, and their ids, which that
/// incarnation never uses twice. Bounded: of those that are answered the newest are kept, with their answers
/// as far as there is room for bytes; those that are being handled are kept until they are answered.
package struct ReplayWindow<Way: Sendable>: Sendable {
    /// What is known of a message that came again.
    package enum Verdict: Sendable {
        /// It never came here.
        case new
        /// It is being handled; its answer goes the new way.
        case running
        /// It has been handled; nil: the answer itself is kept no longer.
        case answered(ReplyHead, ByteBuffer?)
        /// It may have come and been forgotten.
        case forgotten
    }

    private struct Answered {
        var head: ReplyHead
        var payload: ByteBuffer?
    }

    private let answeredMax: Int
    private let bytesMax: Int
    /// Where the answer of each message that is being handled goes.
    private var running: [UInt64: Way] = [:]
    private var answered = Deque<Answered>()
    /// Answers before this place in `answered` have lost their bytes.
    private var emptied = 0
    private var bytes = 0
    /// The largest id that was forgotten, and the largest there was.
    private var forgottenMax: UInt64
    package private(set) var idMax: UInt64 = 0

    /// `forgotten`: ids up to this one may have come before there was this window.
    package init(forgotten: UInt64 = 0, answeredMax: Int = 1024, bytesMax: Int = 256 << 10) {
        forgottenMax = forgotten
        self.answeredMax = answeredMax
        self.bytesMax = bytesMax
    }

    /// A message has come whole.
    package mutating func began(_ id: UInt64, from way: Way) {
        idMax = max(idMax, id)
        running[id] = way
    }

    /// A message is answered. Returns where the answer goes: the way of its newest copy.
    package mutating func answer(_ head: ReplyHead, _ payload: ByteBuffer) -> Way? {
        let way = running.removeValue(forKey: head.id)
        answered.append(Answered(head: head, payload: payload))
        bytes += payload.readableBytes
        while bytes > bytesMax, emptied < answered.count { empty() }
        if answered.count > answeredMax, let oldest = answered.popFirst() {
            bytes -= oldest.payload?.readableBytes ?? 0
            emptied = max(0, emptied - 1)
            forgottenMax = max(forgottenMax, oldest.head.id)
        }
        return way
    }

    private mutating func empty() {
        bytes -= answered[emptied].payload?.readableBytes ?? 0
        // An answer without bytes costs nothing to keep.
        if answered[emptied].payload?.readableBytes ?? 0 > 0 { answered[emptied].payload = nil }
        emptied += 1
    }

    /// A message came again, by `way`.
    package mutating func again(_ id: UInt64, by way: Way) -> Verdict {
        if running[id] != nil {
            running[id] = way
            return .running
        }
        if let known = answered.last(where: { $0.head.id == id }) {
            return .answered(known.head, known.payload)
        }
        return id <= forgottenMax ? .forgotten : .new
    }
}
