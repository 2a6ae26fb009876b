import NIOCore
import Testing

@testable import CastnetCore

@Suite struct RetentionRingTests {
    private let start = Instant(nanoseconds: 1_000_000_000)

    private func frame(_ number: UInt64, length: Int) -> ByteBuffer {
        ByteBuffer(bytes: (0..<length).map { UInt8(truncatingIfNeeded: Int(number) &* 31 &+ $0) })
    }

    private func keep(_ number: UInt64, _ frame: ByteBuffer, in ring: inout RetentionRing, now: Instant) {
        var buffer = ByteBuffer(string: "before")
        buffer.writeImmutableBuffer(frame)
        ring.keep(buffer, at: 6, length: frame.readableBytes, now: now)
    }

    private func header(_ number: UInt64) -> FrameHeader {
        FrameHeader(
            isHead: false, streamID: 7, sequence: number,
            reportAddress: DatagramAddress(address: 1, port: 2), feedbackInterval: 10)
    }

    private func kept(_ number: UInt64, in ring: RetentionRing) -> ByteBuffer? {
        var buffer = ByteBuffer(string: "x")
        guard ring.append(header(number), to: &buffer) else {
            return buffer.readableBytes == 1 ? nil : buffer
        }
        return buffer.getSlice(at: 1, length: buffer.readableBytes - 1)
    }

    @Test("the newest frames are kept, as many as fit, with their bytes")
    func newest() {
        var ring = RetentionRing(bytesMax: 64 << 10, ageMax: .seconds(30))
        #expect(ring.oldest == 1)
        #expect(kept(1, in: ring) == nil)
        for number in 1...2000 as ClosedRange<UInt64> {
            keep(number, frame(number, length: 1 + Int(number * 37 % 1400)), in: &ring, now: start)
            #expect(ring.bytes <= 64 << 10)
        }
        #expect(ring.oldest > 1900 && ring.oldest < 1960, "\(ring.oldest)")
        #expect(kept(ring.oldest - 1, in: ring) == nil)
        #expect(kept(2001, in: ring) == nil)
        for number in ring.oldest...2000 {
            #expect(kept(number, in: ring) == frame(number, length: 1 + Int(number * 37 % 1400)))
        }
    }

    @Test("parts of messages come back as the frames they were, also when other frames stood between them")
    func parts() throws {
        var ring = RetentionRing(bytesMax: 1 << 20, ageMax: .seconds(30))
        let payloads = (1...3 as ClosedRange<UInt64>).map { frame($0, length: 20_000) }
        var sent: [ByteBuffer] = []
        var offsets = [100, 100, 100]
        for number in 1...60 as ClosedRange<UInt64> {
            let message = [0, 0, 0, 1, 1, 0, 2, 2, 2, 2][Int(number % 10)]
            guard number % 7 != 0 else {
                sent.append(frame(number, length: 300))
                keep(number, sent[sent.count - 1], in: &ring, now: start)
                continue
            }
            let length = number % 11 == 0 ? 900 : 500
            let part = RetentionRing.Part(
                number: UInt64(message), offset: UInt64(offsets[message] + 3), length: length,
                start: offsets[message])
            var bytes = ByteBuffer()
            var builder = FrameBuilder(header(number), sizeMax: 1448, into: &bytes)
            builder.continueChunk(part.number, offset: part.offset, length: length, into: &bytes)
            let data = payloads[message].getSlice(at: part.start, length: length)
            bytes.writeImmutableBuffer(try #require(data))
            offsets[message] += length
            sent.append(bytes)
            guard !ring.keep(part, length: bytes.readableBytes, now: start) else { continue }
            let isKept = ring.keep(part, of: payloads[message], length: bytes.readableBytes, now: start)
            #expect(isKept)
        }
        for number in 1...60 as ClosedRange<UInt64> {
            #expect(kept(number, in: ring) == sent[Int(number) - 1], "frame \(number)")
        }
    }

    @Test("a payload is not shared that would keep much more memory than its own")
    func wasteful() throws {
        var ring = RetentionRing(bytesMax: 1 << 20, ageMax: .seconds(30))
        let part = RetentionRing.Part(number: 1, offset: 0, length: 500, start: 0)
        let payload = try #require(frame(1, length: 1 << 16).getSlice(at: 0, length: 2000))
        let isKept = ring.keep(part, of: payload, length: 550, now: start)
        #expect(!isKept && ring.bytes == 0)
    }

    @Test("frames go when they are too old, and numbers go on")
    func age() {
        var ring = RetentionRing(bytesMax: 1 << 20, ageMax: .seconds(2))
        for number in 1...10 as ClosedRange<UInt64> {
            keep(number, frame(number, length: 100), in: &ring, now: start)
        }
        ring.expire(now: start + .milliseconds(1999))
        #expect(ring.oldest == 1)
        ring.expire(now: start + .seconds(2))
        #expect(ring.oldest == 11 && ring.bytes == 0)
        keep(11, frame(11, length: 5), in: &ring, now: start + .seconds(3))
        #expect(kept(11, in: ring) == frame(11, length: 5))
    }

    @Test("what every member has goes, but for the newest of it")
    func trimmed() {
        var ring = RetentionRing(bytesMax: 1 << 20, ageMax: .seconds(30))
        for number in 1...600 as ClosedRange<UInt64> {
            keep(number, frame(number, length: 1000), in: &ring, now: start)
        }
        ring.trim(before: 1, keepingOneIn: 32)
        #expect(ring.oldest == 1)
        ring.trim(before: 300, keepingOneIn: 32)
        #expect(ring.oldest > 200 && ring.oldest <= 300)
        ring.trim(before: 601, keepingOneIn: 32)
        #expect(ring.bytes > 32 << 10 && ring.bytes < 160 << 10 && ring.oldest > 400)
    }

    @Test("a frame larger than all retention stays until the next")
    func tooLarge() {
        var ring = RetentionRing(bytesMax: 100, ageMax: .seconds(30))
        for number in 1...3 as ClosedRange<UInt64> {
            keep(number, frame(number, length: 1000), in: &ring, now: start)
            #expect(ring.oldest == number)
        }
    }
}
