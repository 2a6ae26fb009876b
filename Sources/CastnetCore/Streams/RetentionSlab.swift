internal import NIOCore

/// Consecutive frames of a ``RetentionRing``, which come and go together.
struct RetentionSlab: Sendable {
    /// Consecutive frames that are kept alike.
    private struct Stretch: Sendable {
        let first: UInt64
        var count: UInt64 = 1
        let place: Place
    }

    private enum Place: Sendable {
        /// One frame, among the copied bytes.
        case copied(start: Int, length: Int)
        /// The first of parts of a message that stand one behind the other and are equally long.
        case parts(RetentionRing.Part, of: ByteBuffer)
    }

    /// The number of the first frame.
    var first: UInt64 = 1
    /// Bytes that the frames count for.
    var charge = 0
    var newestAt = Instant(nanoseconds: 0)
    private var copies = ByteBuffer()
    private var stretches: [Stretch] = []
    /// What would extend the last stretch.
    private var following: RetentionRing.Part?

    /// Drops the frames, but not the memory for others.
    mutating func empty() {
        charge = 0
        following = nil
        copies.clear()
        stretches.removeAll(keepingCapacity: true)
    }

    mutating func copy(_ buffer: ByteBuffer, at start: Int, length: Int, as sequence: UInt64) {
        let place = Place.copied(start: copies.writerIndex, length: length)
        stretches.append(Stretch(first: sequence, place: place))
        following = nil
        if let slice = buffer.getSlice(at: start, length: length) { copies.writeImmutableBuffer(slice) }
    }

    mutating func share(_ part: RetentionRing.Part, of payload: ByteBuffer, as sequence: UInt64) {
        stretches.append(Stretch(first: sequence, place: .parts(part, of: payload)))
        following = part.moved(by: 1)
    }

    /// Keeps one more frame of the last stretch; false: the part is none of it.
    mutating func extend(by part: RetentionRing.Part) -> Bool {
        guard part == following else { return false }
        stretches[stretches.count - 1].count += 1
        following = part.moved(by: 1)
        return true
    }

    /// Appends the frame of `header`, which is one of these.
    func append(_ header: FrameHeader, to buffer: inout ByteBuffer) -> Bool {
        let index = stretches.indices.partitioningIndex { stretches[$0].first > header.sequence } - 1
        guard index >= 0, header.sequence - stretches[index].first < stretches[index].count else {
            return false
        }
        switch stretches[index].place {
        case .copied(let start, let length):
            guard let slice = copies.getSlice(at: start, length: length) else { return false }
            buffer.writeImmutableBuffer(slice)
        case .parts(let first, let payload):
            let part = first.moved(by: Int(header.sequence - stretches[index].first))
            guard let data = payload.getSlice(at: part.start, length: part.length) else { return false }
            var builder = FrameBuilder(header, sizeMax: .max, into: &buffer)
            builder.continueChunk(part.number, offset: part.offset, length: part.length, into: &buffer)
            buffer.writeImmutableBuffer(data)
        }
        return true
    }
}

extension RetentionRing.Part {
    /// The part that stands `count` of these further on.
    fileprivate func moved(by count: Int) -> Self {
        var part = self
        part.offset += UInt64(count * length)
        part.start += count * length
        return part
    }
}

extension Range<Int> {
    /// The first index for which `isBehind` holds, if it holds for all that follow one for which it does; the
    /// end when there is none.
    func partitioningIndex(where isBehind: (Int) -> Bool) -> Int {
        var (low, high) = (lowerBound, upperBound)
        while low < high {
            let middle = low + (high - low) / 2
            if isBehind(middle) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
