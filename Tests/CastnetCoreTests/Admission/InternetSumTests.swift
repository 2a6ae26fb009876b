import Testing

@testable import CastnetCore

/// The sum that is made of many bytes at a time must be the one of RFC 1071, word by word.
@Suite struct InternetSumTests {
    private func wordByWord(_ bytes: [UInt8]) -> UInt16 {
        var sum: UInt32 = 0
        for index in stride(from: 0, to: bytes.count, by: 2) {
            let low = index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0
            sum += UInt32(bytes[index]) << 8 | low
            sum = (sum & 0xffff) + (sum >> 16)
        }
        return UInt16(sum)
    }

    @Test("every length up to some blocks, and packets of real sizes")
    func lengths() {
        var generator = SeededGenerator(seed: 11)
        for length in Array(0...200) + [1252, 1444, 1472, 8972, 65_507] {
            let bytes = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
            #expect(bytes.span.internetSum == wordByWord(bytes), "\(length) bytes")
        }
    }

    @Test("sums that carry at every step")
    func carries() {
        for length in [1, 2, 63, 64, 65, 1472, 65_507] {
            let bytes = [UInt8](repeating: 0xff, count: length)
            #expect(bytes.span.internetSum == wordByWord(bytes), "\(length) bytes")
        }
    }

    @Test("a part that begins anywhere in memory")
    func unaligned() {
        let bytes = (0..<300).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        for start in 0..<17 {
            let part = Array(bytes[start..<start + 201])
            let sum = bytes.span.extracting(start..<start + 201).internetSum
            #expect(sum == wordByWord(part), "from \(start)")
        }
    }
}
