package import NIOCore

/// The single messages of a record, in order; each shares the frame's memory.
package struct InboundMessages: Sequence, IteratorProtocol, Sendable {
    private var rest: ByteBuffer
    private var left: Int
    private var sequence: UInt64
    private let isRun: Bool

    init(_ record: InboundRecord) {
        rest = record.body
        left = record.count
        sequence = record.firstSequence
        isRun = record.isRun
    }

    /// The next message and its number; nil after the last.
    package mutating func next() -> (sequence: UInt64, payload: ByteBuffer)? {
        guard left > 0 else { return nil }
        left -= 1
        defer { sequence &+= 1 }
        guard isRun else { return (sequence, rest) }
        // The decoder has checked the lengths; a record made otherwise ends here instead of trapping.
        guard let length = rest.readInteger(as: UInt16.self),
            let payload = rest.readSlice(length: Int(length))
        else {
            left = 0
            return nil
        }
        return (sequence, payload)
    }
}

extension InboundRecord {
    /// The single messages.
    package var messages: InboundMessages { InboundMessages(self) }
}
