import NIOCore
import Testing

@testable import CastnetCore

/// What is read off a frame where it lies must be what its decoder says of it.
@Suite struct PartFrameTests {
    private static let topic = Topic(unchecked: "agents.l2")

    private func frame(
        isHead: Bool = false, _ body: (inout FrameBuilder, inout ByteBuffer) -> Void
    ) -> ByteBuffer {
        var buffer = ByteBuffer()
        let header = FrameHeader(
            isHead: isHead, streamID: 7, sequence: 9,
            reportAddress: DatagramAddress(address: 0x0A01_0203, port: 4711), feedbackInterval: 12)
        var builder = FrameBuilder(header, sizeMax: 1200, into: &buffer)
        body(&builder, &buffer)
        return buffer
    }

    private func part(_ length: Int, offset: UInt64 = 800) -> ByteBuffer {
        frame { builder, buffer in
            builder.chunk(
                ChunkRecord(
                    number: 3, offset: offset, start: nil, data: ByteBuffer(repeating: 5, count: length)),
                into: &buffer)
        }
    }

    /// What the decoder makes of a frame that is nothing but a part; nil: it is another, or none.
    private func decoded(_ buffer: ByteBuffer) -> (header: FrameHeader, chunk: ChunkRecord)? {
        var decoder = FrameDecoder()
        guard let frame = try? decoder.decode(buffer), !frame.header.isAgain, frame.records.count == 1,
            case .chunk(let chunk) = frame.records[0], chunk.start == nil
        else { return nil }
        return (frame.header, chunk)
    }

    private func expectSame(_ buffer: ByteBuffer) {
        let part = PartFrame(buffer.readableBytesSpan)
        guard let (header, chunk) = decoded(buffer) else {
            #expect(part == nil)
            return
        }
        #expect(part?.header == header && part?.number == chunk.number && part?.offset == chunk.offset)
        #expect(chunk.data.readableBytes == buffer.readableBytes - PartFrame.headLength)
    }

    @Test("a part is recognised, with everything the decoder reads of it", arguments: [1, 2, 700, 1100])
    func parts(length: Int) {
        let buffer = part(length)
        #expect(PartFrame(buffer.readableBytesSpan) != nil)
        expectSame(buffer)
    }

    @Test("every other frame is left to the decoder")
    func others() {
        let start = ChunkStart(
            topic: Self.topic, sequence: 1, sentAtMicroseconds: 1, total: 5000, headersLength: 0)
        let data = ByteBuffer(repeating: 5, count: 100)
        let others = [
            ByteBuffer(), frame { _, _ in },
            frame { builder, buffer in
                builder.chunk(ChunkRecord(number: 3, offset: 0, start: start, data: data), into: &buffer)
            },
            frame { builder, buffer in
                builder.chunk(ChunkRecord(number: 3, offset: 9, start: nil, data: data), into: &buffer)
                builder.chunk(ChunkRecord(number: 4, offset: 0, start: start, data: data), into: &buffer)
            },
            frame(isHead: true) { builder, buffer in
                builder.head(HeadRecord(next: 9, oldest: 1, firstOpenMessage: 1), into: &buffer)
            },
        ]
        for buffer in others {
            #expect(PartFrame(buffer.readableBytesSpan) == nil)
            expectSame(buffer)
        }
    }

    @Test("cut, lengthened or with any bit turned it is judged as the decoder judges it")
    func mutants() {
        let sound = part(64)
        for length in 0..<sound.readableBytes { expectSame(sound.getSlice(at: 0, length: length)!) }
        var longer = sound
        longer.writeInteger(UInt8(0))
        expectSame(longer)
        for bit in 0..<PartFrame.headLength * 8 {
            var mutant = sound
            let byte: UInt8 = mutant.getInteger(at: bit / 8)!
            mutant.setInteger(byte ^ 1 << UInt8(bit % 8), at: bit / 8)
            expectSame(mutant)
        }
    }
}
