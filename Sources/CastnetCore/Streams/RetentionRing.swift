internal import DequeModule
internal import NIOCore

/// The frames a sender can send again: the newest ones, as many as bytes and age allow.
///
/// A frame that carries nothing but the middle of a large message is kept as a place in that message, whose
/// memory is shared; any other is copied. Both stand in slabs, each for many frames, which go whole and are
/// used again. Memory: what `bytesMax` says, each frame counted with what a packet buffer costs beyond it,
/// and messages of which only a part is kept.
struct RetentionRing: Sendable {
    /// The middle of a message, alone in its frame.
    struct Part: Hashable, Sendable {
        var number: UInt64
        var offset: UInt64
        var length: Int
        /// Where in the payload it begins.
        var start: Int
    }

    private let bytesMax: Int
    private let ageMax: Duration
    private let slabCharge: Int
    private var full = Deque<RetentionSlab>()
    /// The slab of the newest frames.
    private var open = RetentionSlab()
    private var spare: RetentionSlab?
    private var next: UInt64 = 1
    /// Bytes counted against the limit.
    private(set) var bytes = 0

    private static let slabsAtLeast = 16
    private static let slabChargeMax = 1 << 20

    init(bytesMax: Int, ageMax: Duration) {
        self.bytesMax = bytesMax
        self.ageMax = ageMax
        slabCharge = min(Self.slabChargeMax, bytesMax / Self.slabsAtLeast)
    }

    /// The oldest frame that is kept; the next to be sent when none is.
    var oldest: UInt64 { full.first?.first ?? open.first }

    /// True when the next frame begins a slab: the moment to ``trim(before:keepingOneIn:)``.
    var isSlabFull: Bool { open.charge >= slabCharge }

    // MARK: Keeping

    /// Keeps the next frame as a copy of `length` bytes of `buffer` from `start` on.
    mutating func keep(_ buffer: ByteBuffer, at start: Int, length: Int, now: Instant) {
        makeRoom(now: now)
        open.copy(buffer, at: start, length: length, as: next)
        count(length, now: now)
    }

    /// Keeps the next frame, `length` bytes in all, as the part of a message that follows the one kept last;
    /// false: it does not, so its payload is wanted, see ``keep(_:of:length:now:)``.
    mutating func keep(_ part: Part, length: Int, now: Instant) -> Bool {
        makeRoom(now: now)
        guard open.extend(by: part) else { return false }
        count(length, now: now)
        return true
    }

    /// Keeps the next frame as a part of a message with this payload; false: that would cost more than it is
    /// worth.
    mutating func keep(_ part: Part, of payload: ByteBuffer, length: Int, now: Instant) -> Bool {
        // Memory that the message itself does not use would stay with it.
        guard payload.storageCapacity / 2 <= payload.readableBytes else { return false }
        makeRoom(now: now)
        open.share(part, of: payload, as: next)
        count(length, now: now)
        return true
    }

    private mutating func makeRoom(now: Instant) {
        guard isSlabFull else { return }
        full.append(open)
        open = spare.take() ?? RetentionSlab()
        open.first = next
        expire(now: now)
    }

    /// Drops what every member has, but for the newest of it: this share of the bytes allowed. Not all that
    /// may be kept should be when nobody can want it: memory written once in a long while is in no cache.
    mutating func trim(before wanted: UInt64, keepingOneIn share: Int) {
        while full.count > 1, bytes > bytesMax / share, full[1].first <= wanted { dropOldest() }
    }

    private mutating func count(_ length: Int, now: Instant) {
        let charge = length + ChannelPlan.bufferOverhead
        bytes += charge
        open.charge += charge
        open.newestAt = now
        next += 1
        while bytes > bytesMax, !full.isEmpty { dropOldest() }
    }

    /// Drops what is too old.
    mutating func expire(now: Instant) {
        while let oldest = full.first, now >= oldest.newestAt + ageMax { dropOldest() }
        guard full.isEmpty, open.first < next, now >= open.newestAt + ageMax else { return }
        bytes = 0
        open.empty()
        open.first = next
    }

    private mutating func dropOldest() {
        guard var slab = full.popFirst() else { return }
        bytes -= slab.charge
        // What is shared goes now, not when the slab is wanted again.
        slab.empty()
        spare = slab
    }

    // MARK: Giving back

    /// Appends the frame of `header`; false: it is not kept any more, or was never sent.
    func append(_ header: FrameHeader, to buffer: inout ByteBuffer) -> Bool {
        let sequence = header.sequence
        guard sequence >= oldest, sequence < next else { return false }
        if sequence >= open.first { return open.append(header, to: &buffer) }
        let index = full.indices.partitioningIndex { full[$0].first > sequence } - 1
        return full[index].append(header, to: &buffer)
    }
}
