internal import DequeModule

/// Which frame was the next to be sent at a moment: what a member that began to listen then is owed from.
///
/// Memory: a mark for every few milliseconds in which frames left, at most ``marksMax``; the older ones stand
/// for longer.
struct FrameTimes: Sendable {
    private struct Mark: Sendable {
        let at: Instant
        /// Frames that left before that may not have a mark of their own.
        var until: Instant
        /// The first frame sent at or after `at`.
        let first: UInt64
    }

    private var marks = Deque<Mark>()
    private static let step = Duration.milliseconds(2)
    private static let marksMax = 8192

    /// The frame leaves now.
    mutating func sent(_ frame: UInt64, now: Instant) {
        if let last = marks.last, now < last.until { return }
        if marks.count == Self.marksMax { thin() }
        marks.append(Mark(at: now, until: now + Self.step, first: frame))
    }

    /// Makes one mark of each two of the older half: it is for those that say they began long ago.
    private mutating func thin() {
        var thinned = Deque<Mark>()
        thinned.reserveCapacity(Self.marksMax)
        for index in stride(from: 0, to: Self.marksMax / 2, by: 2) {
            thinned.append(marks[index])
            thinned[thinned.count - 1].until = marks[index + 1].until
        }
        thinned.append(contentsOf: marks.suffix(Self.marksMax / 2))
        marks = thinned
    }

    /// The first frame that left at `moment` or later, or one that left a few milliseconds before; `next`
    /// when none has.
    func first(since moment: Instant, next: UInt64) -> UInt64 {
        let index = marks.indices.partitioningIndex { marks[$0].at > moment }
        guard index > 0 else { return marks.first?.first ?? next }
        // Within the time that the mark stands for more may have left after the moment.
        if moment < marks[index - 1].until { return marks[index - 1].first }
        return index < marks.count ? marks[index].first : next
    }
}
