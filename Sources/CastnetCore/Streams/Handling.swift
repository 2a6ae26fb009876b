/// Which of the messages that a stream's sender asks about a member has handled.
///
/// Memory: one entry per frame in which such a message ended, until it was handled; their messages wait in a
/// subscription, which is bounded.
struct Handling: Sendable {
    /// Messages that are not handled yet, by the frame in which they ended.
    private var open: [UInt64: Int] = [:]
    /// Messages that will never be handled.
    private(set) var refused: UInt32 = 0

    var isEmpty: Bool { open.isEmpty }

    private static let bitsMax: UInt64 = 256

    mutating func began(_ frames: inout [UInt64]) {
        for frame in frames { open[frame, default: 0] += 1 }
        frames.removeAll(keepingCapacity: true)
    }

    mutating func ended(_ frame: UInt64, isHandled: Bool) {
        guard let count = open[frame] else { return }
        open[frame] = count > 1 ? count - 1 : nil
        if !isHandled { refused &+= 1 }
    }

    /// What a report says where `next` is the next frame expected: every message that ended below the floor
    /// was handled, and those of the frames behind it whose bit is set.
    func report(next: UInt64) -> (floor: UInt64, bits: [UInt8]) {
        guard let floor = open.keys.min(), floor < next else { return (next, []) }
        let count = min(next - floor, Self.bitsMax)
        var bits = [UInt8](repeating: 0, count: Int(count + 7) / 8)
        for offset in 0..<count where open[floor + offset] == nil {
            bits[Int(offset) / 8] |= 0x80 >> UInt8(offset % 8)
        }
        return (floor, bits)
    }
}
