package import NIOCore

/// Puts messages or replies together that came in several packets on one link.
///
/// Memory: what has arrived, never what a length claims; ``heldBytes`` says how much it is, and the caller
/// refuses to begin a message when that is too much.
package struct PartAssembler<Head: Sendable>: ~Copyable {
    /// What a chunk did.
    package enum Result: Sendable {
        case more
        case whole(Head, ByteBuffer, since: Instant)
        /// It belongs to nothing that was begun, or to what was given up.
        case stray
        /// It goes past the total its head claimed.
        case inconsistent
    }

    private struct Begun {
        var head: Head
        var total: Int
        var bytes: ByteBuffer
        var since: Instant
    }

    private var begun: [UInt64: Begun] = [:]
    /// Bytes of unfinished messages.
    package private(set) var heldBytes = 0

    package init() {}

    package var isEmpty: Bool { begun.isEmpty }
    /// Unfinished messages.
    package var count: Int { begun.count }

    /// Begins a message whose first bytes are less than `total`; false when `id` was begun before.
    package mutating func begin(_ id: UInt64, _ head: Head, first: ByteBuffer, total: Int, now: Instant)
        -> Bool
    {
        guard begun[id] == nil else { return false }
        heldBytes += first.readableBytes
        var bytes = first
        if first.storageCapacity > 4096 + 2 * first.readableBytes {
            // It would keep all that was read with it.
            bytes = ByteBuffer(bytes: first.readableBytesView)
        }
        begun[id] = Begun(head: head, total: total, bytes: bytes, since: now)
        return true
    }

    package mutating func chunk(_ id: UInt64, _ bytes: ByteBuffer) -> Result {
        guard var entry = begun.removeValue(forKey: id) else { return .stray }
        let have = entry.bytes.readableBytes + bytes.readableBytes
        guard have <= entry.total else {
            heldBytes -= entry.bytes.readableBytes
            return .inconsistent
        }
        heldBytes += bytes.readableBytes
        if entry.bytes.writableBytes < bytes.readableBytes {
            // Room doubles with what really came; the claimed total only stops it from going further.
            entry.bytes.reserveCapacity(
                minimumWritableBytes: min(entry.total, have * 2) - have + bytes.readableBytes)
        }
        entry.bytes.writeImmutableBuffer(bytes)
        guard have == entry.total else {
            begun[id] = entry
            return .more
        }
        heldBytes -= have
        return .whole(entry.head, entry.bytes, since: entry.since)
    }

    /// Gives a message up; nil when it was not begun.
    @discardableResult
    package mutating func forget(_ id: UInt64) -> Head? {
        guard !begun.isEmpty, let entry = begun.removeValue(forKey: id) else { return nil }
        heldBytes -= entry.bytes.readableBytes
        return entry.head
    }

    /// Gives everything up.
    package mutating func forgetAll() {
        begun = [:]
        heldBytes = 0
    }
}
