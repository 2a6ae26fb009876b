import CastnetCore
import Foundation
import NIOCore
import Testing

/// Frames and reports: the vectors of docs/wire-frames.md, round trips, and whatever bytes a peer may send.
@Suite struct FrameCodecTests {
    private let header = FrameHeader(
        isHead: false, streamID: 0x1122_3344_5566_7788, sequence: 7,
        reportAddress: DatagramAddress(address: 0x0A4D_000B, port: 9000), feedbackInterval: 10)
    private let identity = NodeIdentity(name: "api-1", incarnation: Incarnation(0x0102_0304_0506_0708))

    private func bytes(_ hex: String) -> ByteBuffer {
        let digits = hex.filter { !$0.isWhitespace }
        var buffer = ByteBuffer()
        var index = digits.startIndex
        while index < digits.endIndex {
            let end = digits.index(index, offsetBy: 2)
            buffer.writeInteger(UInt8(digits[index..<end], radix: 16) ?? 0)
            index = end
        }
        return buffer
    }

    private func hex(_ buffer: ByteBuffer) -> String {
        buffer.readableBytesView.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private static let headerHex =
        "ffff434e 0100 000a 1122334455667788 0000000000000007 0a4d000b2328 0000"
        + " 00000000000000000000000000000000"

    private func runFrame() -> ByteBuffer {
        var buffer = ByteBuffer()
        var builder = FrameBuilder(header, sizeMax: 1448, into: &buffer)
        guard
            var run = builder.beginRun(
                topic: Topic(unchecked: "agents.l2"), firstSequence: 5, sentAt: 1_700_000_000_000_000,
                length: 2,
                into: &buffer)
        else { return buffer }
        _ = builder.add(ByteBuffer(string: "hi"), to: &run, into: &buffer)
        _ = builder.add(ByteBuffer(), to: &run, into: &buffer)
        _ = builder.add(ByteBuffer(string: "you"), to: &run, into: &buffer)
        builder.end(run, in: &buffer)
        return buffer
    }

    private static let runHex =
        headerHex
        + "01 0028 00 09 6167656e74732e6c32 0000000000000005 00060a24181e4000 0003 0002 6869 0000 0003 796f75"

    private func chunkFrame(change: CarrierChange? = nil) -> ByteBuffer {
        var buffer = ByteBuffer()
        var builder = FrameBuilder(header, sizeMax: 1448, into: &buffer)
        builder.announce(
            AnnounceRecord(
                identity: identity, digest: 9, oldest: 3, firstOpenMessage: 2, ageMilliseconds: 1500),
            into: &buffer)
        let start = ChunkStart(
            topic: Topic(unchecked: "a"), sequence: 4, sentAtMicroseconds: 6, total: 10, headersLength: 0,
            carrierChange: change)
        builder.chunk(
            ChunkRecord(number: 2, offset: 0, start: start, data: ByteBuffer(string: "abcd")), into: &buffer)
        builder.chunk(
            ChunkRecord(number: 1, offset: 20, start: nil, data: ByteBuffer(string: "z")), into: &buffer)
        return buffer
    }

    private static let chunkHex =
        headerHex
        + "03 002a 05 6170692d31 0102030405060708 0000000000000009 0000000000000003 0000000000000002 000005dc"
        + "02 0035 01 0000000000000002 0000000000000000 00 01 61 0000000000000004 0000000000000006"
        + "000000000000000a 00000000 00 61626364" + "02 0012 00 0000000000000001 0000000000000014 7a"

    private func headFrame() -> ByteBuffer {
        var head = header
        head.isHead = true
        var buffer = ByteBuffer()
        var builder = FrameBuilder(head, sizeMax: 1448, into: &buffer)
        builder.head(HeadRecord(next: 7, oldest: 2, firstOpenMessage: 3), into: &buffer)
        return buffer
    }

    private static let headHex =
        "ffff434e 0101 000a 1122334455667788 0000000000000007 0a4d000b2328 0000"
        + " 00000000000000000000000000000000 04 0018 0000000000000007 0000000000000002 0000000000000003"

    private func report() -> Report {
        var report = Report(member: identity, subscriptionEpoch: 2)
        report.streams = [
            Report.StreamPosition(
                streamID: 0x1122_3344_5566_7788, first: 3, received: 7, limit: 100, processed: 5, gaps: 1,
                refused: 2, processedBits: [0x40])
        ]
        return report
    }

    private static let reportHex =
        "43520100 00000000 00000000000000000000000000000000 05 6170692d31 0102030405060708 0000000000000002"
        + "01 0033 1122334455667788 0000000000000007 0000000000000064 0000000000000005 00000001"
        + "0000000000000003 00000002 00 01 40"

    @Test("frames and reports are exactly the bytes of the document")
    func vectors() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(contentsOf: root.appendingPathComponent("docs/wire-frames.md"), encoding: .utf8)
        let document = text.filter { !$0.isWhitespace }
        var written = ByteBuffer()
        report().write(into: &written)
        for (frame, expected) in [
            (runFrame(), Self.runHex), (chunkFrame(), Self.chunkHex), (headFrame(), Self.headHex),
            (written, Self.reportHex),
        ] {
            #expect(hex(frame) == hex(bytes(expected)))
            #expect(document.contains(hex(frame)), "the document says otherwise")
        }
    }

    @Test("the document's bytes decode to what was meant")
    func decodedVectors() throws {
        var decoder = FrameDecoder()
        let run = try decoder.decode(bytes(Self.runHex))
        #expect(run.header == header)
        guard case .run(let record) = run.records.first else { return #expect(Bool(false), "no run") }
        #expect(record.topic.name == "agents.l2" && record.count == 3 && record.firstSequence == 5)
        let chunks = try decoder.decode(bytes(Self.chunkHex)).records
        guard case .announce(let announcement) = chunks[0], case .chunk(let first) = chunks[1],
            case .chunk(let second) = chunks[2]
        else { return #expect(Bool(false), "other records") }
        #expect(announcement.identity == identity && announcement.digest == 9)
        #expect(first.start?.total == 10 && first.number == 2 && first.data == ByteBuffer(string: "abcd"))
        #expect(second.start == nil && second.offset == 20)
        let head = try decoder.decode(bytes(Self.headHex))
        guard case .head(let end) = head.records.first else { return #expect(Bool(false), "no head") }
        #expect(end == HeadRecord(next: 7, oldest: 2, firstOpenMessage: 3) && head.header.isHead)
        #expect(try Report(reading: bytes(Self.reportHex)) == report())
    }

    @Test("a carrier change travels in the first chunk")
    func carrierChange() throws {
        var decoder = FrameDecoder()
        let change = CarrierChange(stream: 77, last: 12)
        let records = try decoder.decode(chunkFrame(change: change)).records
        guard case .chunk(let chunk) = records[1] else { return #expect(Bool(false), "no chunk") }
        #expect(chunk.start?.carrierChange == change)
    }

    @Test("unknown records are stepped over")
    func unknownRecords() throws {
        var frame = bytes(Self.headerHex + "c8 0003 010203")
        var rest = bytes(String(Self.runHex.dropFirst(Self.headerHex.count)))
        frame.writeBuffer(&rest)
        var decoder = FrameDecoder()
        #expect(try decoder.decode(frame).records.count == 1)
    }

    @Test(
        "each kind of bad frame has its reason",
        arguments: [
            ("00", WireError.truncated), ("ffff434f" + headerHex.dropFirst(8), .magic),
            ("434e" + headerHex.dropFirst(4), .magic),
            ("ffff434e 02" + headerHex.dropFirst(11), .version),
            (headerHex.replacing("2328 0000", with: "2328 0001"), .key),
            (headerHex.replacing("0000000000000007", with: "0000000000000000"), .range),
            (headerHex.replacing("0000000000000007", with: "ffffffffffffffff"), .range),
            (headerHex + "01", .truncated), (headerHex + "01 0005 00", .truncated),
            (headerHex + "01 0003 05 01 61", .name), (headerHex + "01 0003 00 01 20", .name),
            (headerHex + "03 0002 01 20", .name),
            (headerHex + "01 0015 00 01 61 0000000000000001 0000000000000001 0000", .range),
            (headerHex + "01 0015 00 01 61 0000000000000001 0000000000000001 0001", .truncated),
            (headerHex + "01 0018 00 01 61 0000000000000001 0000000000000001 0001 0000 00", .trailing),
            (headerHex + "02 0011 00 0000000000000001 0000000000000005", .inconsistent),
            (headerHex + "02 0012 00 0000000000000001 0000000000000000 61", .inconsistent),
            (headerHex + "04 0018 0000000000000007 0000000000000002 0000000000000003", .inconsistent),
            (
                headHex.replacing(
                    "0000000000000007 0000000000000002", with: "0000000000000008 0000000000000002"),
                .inconsistent
            ),
        ] as [(String, WireError)])
    func badFrames(hex: String, reason: WireError) {
        var decoder = FrameDecoder()
        var found: WireError?
        do { _ = try decoder.decode(bytes(hex)) } catch { found = error }
        #expect(found == reason, "\(hex)")
    }

    @Test("no bytes make the decoders trap; what decodes stays inside the input")
    func fuzz() {
        var generator = SeededGenerator(seed: 20_261)
        var decoder = FrameDecoder()
        let seeds = [
            runFrame(), chunkFrame(), chunkFrame(change: CarrierChange(stream: 1, last: 2)), headFrame(),
            bytes(Self.reportHex),
        ]
        var decoded = 0
        for round in 0..<200_000 {
            var input = seeds[round % seeds.count]
            if round % 8 == 0 {
                let count = Int.random(in: 0...80, using: &generator)
                input = ByteBuffer()
                for _ in 0..<count { input.writeInteger(UInt8(truncatingIfNeeded: generator.next())) }
            } else {
                for _ in 0..<Int.random(in: 1...3, using: &generator) {
                    let word = generator.next()
                    let at = Int(word % UInt64(input.readableBytes))
                    input.setInteger(UInt8(truncatingIfNeeded: word >> 32), at: at)
                }
                if round % 5 == 0 {
                    input.moveWriterIndex(to: Int.random(in: 0...input.readableBytes, using: &generator))
                }
            }
            if let frame = try? decoder.decode(input) {
                decoded += 1
                for record in frame.records {
                    if case .run(let run) = record { #expect(run.body.readableBytes <= input.readableBytes) }
                }
            }
            _ = try? Report(reading: input)
        }
        #expect(decoded > 10_000)
    }
}
