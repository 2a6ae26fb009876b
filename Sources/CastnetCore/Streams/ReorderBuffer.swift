internal import DequeModule

/// Frames that came before their turn, the holes in front of them, and what of those is gone for good.
///
/// Numbers below `end` are known to exist. Each of them from the stream's position on is either held, gone
/// or missing. Memory: the held frames, which the owner bounds by refusing to hold more; a frame that was
/// refused is missing.
struct ReorderBuffer: Sendable {
    struct Held: Sendable {
        var sequence: UInt64
        var records: [FrameRecord]
        var bytes: Int
        var repaired: RepairPath
    }

    /// The first number that nothing is known of.
    private(set) var end: UInt64
    /// What is neither here nor given up, in order and apart from one another.
    private(set) var missing: [ClosedRange<UInt64>] = []
    private var held = Deque<Held>()
    private var gone = Deque<ClosedRange<UInt64>>()

    init(first: UInt64) { end = first }

    var isEmpty: Bool { held.isEmpty && missing.isEmpty && gone.isEmpty }
    var heldCount: Int { held.count }

    /// Every number below `next` exists; true: some of them are missing that nobody knew of.
    mutating func extend(to next: UInt64) -> Bool {
        guard next > end else { return false }
        defer { end = next }
        if let last = missing.last, last.upperBound + 1 == end {
            missing[missing.count - 1] = last.lowerBound...next - 1
        } else {
            missing.append(end...next - 1)
        }
        return true
    }

    /// The numbers from `first` on exist, too, before everything known so far.
    mutating func precede(with range: ClosedRange<UInt64>) { missing.insert(range, at: 0) }

    /// True when the frame is one that is missing, or the first that nothing is known of.
    func wants(_ sequence: UInt64) -> Bool { sequence >= end || hole(of: sequence) != nil }

    /// The frame is in its owner's hands.
    mutating func filled(_ sequence: UInt64) {
        if sequence == end { return end += 1 }
        guard let index = hole(of: sequence) else { return }
        cut(sequence...sequence, from: index)
    }

    /// Keeps a frame that was ``filled(_:)`` until it is its turn.
    mutating func hold(_ frame: Held) {
        if let last = held.last, last.sequence > frame.sequence {
            held.insert(frame, at: place(of: frame.sequence))
        } else {
            held.append(frame)
        }
    }

    /// Gives up what is missing of `range`; the parts that were.
    mutating func giveUp(_ range: ClosedRange<UInt64>) -> [ClosedRange<UInt64>] {
        let parts = missing.filter { $0.overlaps(range) }.map { $0.clamped(to: range) }
        missing.subtract(range)
        gone += parts
        gone.sort { $0.lowerBound < $1.lowerBound }
        return parts
    }

    /// The frame whose turn it is at `next`; moves `next` behind what is gone.
    mutating func pop(_ next: inout UInt64) -> Held? {
        while let first = gone.first, first.lowerBound <= next {
            next = max(next, first.upperBound + 1)
            gone.removeFirst()
        }
        guard held.first?.sequence == next else { return nil }
        return held.popFirst()
    }

    /// What is known to exist from `first` on, but for what was given up.
    func undeclared(from first: UInt64) -> [ClosedRange<UInt64>] {
        guard first < end else { return [] }
        var (rest, from) = ([ClosedRange<UInt64>](), first)
        for range in gone where range.upperBound >= from {
            if range.lowerBound > from { rest.append(from...range.lowerBound - 1) }
            from = range.upperBound + 1
        }
        if from < end { rest.append(from...end - 1) }
        return rest
    }

    /// Drops everything held; the bytes it had.
    mutating func clear(to next: UInt64) -> Int {
        let bytes = held.reduce(0) { $0 + $1.bytes }
        self = ReorderBuffer(first: max(next, end))
        return bytes
    }

    // MARK: Searching

    private func hole(of sequence: UInt64) -> Int? {
        let index = missing.indices.partitioningIndex { missing[$0].upperBound >= sequence }
        return index < missing.count && missing[index].contains(sequence) ? index : nil
    }

    private func place(of sequence: UInt64) -> Int {
        held.indices.partitioningIndex { held[$0].sequence >= sequence }
    }

    private mutating func cut(_ part: ClosedRange<UInt64>, from index: Int) {
        var rest = [missing[index]]
        rest.subtract(part)
        missing.replaceSubrange(index...index, with: rest)
    }
}
