import Testing

@testable import CastnetCore

@Suite struct ReorderBufferTests {
    private func held(_ sequence: UInt64) -> ReorderBuffer.Held {
        ReorderBuffer.Held(sequence: sequence, records: [], bytes: 10, repaired: .none)
    }

    /// Against a set of numbers: every arrival order gives the same frames, in order, once.
    @Test(
        "frames in any order come out in order, with what is gone left out",
        arguments: 0..<200 as Range<UInt64>)
    func anyOrder(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let first = UInt64.random(in: 1...1000, using: &generator)
        let count = UInt64.random(in: 1...60, using: &generator)
        var buffer = ReorderBuffer(first: first)
        var next = first
        var out: [UInt64] = []
        var gone: Set<UInt64> = []
        var open = Set(first..<first + count)
        while let sequence = open.randomElement(using: &generator) {
            open.remove(sequence)
            #expect(buffer.wants(sequence))
            _ = buffer.extend(to: sequence)
            if Int.random(in: 0..<6, using: &generator) == 0, sequence < buffer.end {
                buffer.giveUp(sequence...sequence).forEach { gone.formUnion($0) }
            } else {
                buffer.filled(sequence)
                buffer.hold(held(sequence))
            }
            if sequence < buffer.end { #expect(!buffer.wants(sequence)) }
            while let frame = buffer.pop(&next) {
                next += 1
                out.append(frame.sequence)
            }
            let missing = Set(buffer.missing.flatMap { Array($0) })
            #expect(missing == open.filter { $0 < buffer.end }, "seed \(seed)")
        }
        #expect(out == out.sorted() && Set(out).count == out.count)
        #expect(Set(out).isDisjoint(with: gone))
        #expect(out.count + gone.count == Int(count), "seed \(seed)")
        #expect(buffer.isEmpty)
    }

    @Test("a hole of any size is one range, and filling it from the inside cuts it")
    func ranges() {
        var buffer = ReorderBuffer(first: 5)
        let nothing = buffer.extend(to: 5)
        let much = buffer.extend(to: 1_000_000)
        #expect(!nothing && much)
        #expect(buffer.missing == [5...999_999])
        buffer.filled(500)
        #expect(buffer.missing == [5...499, 501...999_999])
        #expect(!buffer.wants(500) && buffer.wants(499) && buffer.wants(1_000_000))
        let gone = buffer.giveUp(400...600)
        #expect(gone == [400...499, 501...600])
        #expect(buffer.missing == [5...399, 601...999_999])
        // What is known to exist and what nobody knew of join up.
        _ = buffer.extend(to: 1_000_100)
        #expect(buffer.missing == [5...399, 601...1_000_099])
    }
}
