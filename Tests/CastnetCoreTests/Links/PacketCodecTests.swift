import CastnetCore
import CastnetTestKit
import Foundation
import NIOCore
import Testing

@Suite("Packets")
struct PacketCodecTests {
    @Test("each packet has its bytes", arguments: PacketVectors.all)
    func vectors(vector: PacketVectors.Vector) throws {
        #expect(PacketVectors.hex(vector.packet) == vector.hex)
        var decoder = PacketDecoder()
        var bytes = PacketVectors.buffer(hex: vector.hex)
        decoder.feed(&bytes)
        let packet = try decoder.next()
        #expect(packet == vector.packet)
        let end = try decoder.next()
        #expect(end == nil)
    }

    @Test("the document prints the same bytes")
    func document() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../../docs/wire-links.md").standardizedFileURL
        let text = try String(contentsOf: path, encoding: .utf8)
        let printed = text.filter { !$0.isWhitespace }
        for vector in PacketVectors.all { #expect(printed.contains(vector.hex), "\(vector.name)") }
    }

    private static let stream: [UInt8] = {
        var buffer = ByteBuffer()
        for packet in PacketVectors.session {
            buffer.write(packet)
            buffer.writeBytes(PacketVectors.unknown)
        }
        return Array(buffer.readableBytesView)
    }()

    private func decode(_ segments: [ArraySlice<UInt8>], unknown: Int? = nil) throws -> [Packet] {
        var decoder = PacketDecoder()
        var packets: [Packet] = []
        for segment in segments {
            var bytes = ByteBuffer(bytes: segment)
            decoder.feed(&bytes)
            while let packet = try decoder.next() { packets.append(packet) }
        }
        #expect(decoder.waitingBytes == 0)
        #expect(decoder.unknownCount == unknown ?? PacketVectors.session.count)
        return packets
    }

    @Test("a session decodes the same cut at every byte, and cut once at any place")
    func everySplit() throws {
        let stream = Self.stream
        #expect(try decode(stream.indices.map { stream[$0...$0] }) == PacketVectors.session)
        for cut in stream.indices {
            let parts = [stream[..<cut], stream[cut...]]
            if try decode(parts) != PacketVectors.session { Issue.record("cut at \(cut)") }
        }
    }

    @Test("two packets and an unknown one decode the same, in whatever three pieces they come")
    func everyTwoCuts() throws {
        var pieces = 0
        // Between two packets the decoder is as new: two cuts meet nothing but what lies in a row.
        for (first, second) in zip(PacketVectors.session, PacketVectors.session.dropFirst()) {
            var buffer = ByteBuffer()
            buffer.write(first)
            buffer.writeBytes(PacketVectors.unknown)
            buffer.write(second)
            let bytes = Array(buffer.readableBytesView)
            for start in bytes.indices {
                for end in stride(from: start, to: bytes.count, by: Patience.factor) {
                    let parts = [bytes[..<start], bytes[start..<end], bytes[end...]]
                    pieces += 1
                    if try decode(parts, unknown: 1) != [first, second] {
                        Issue.record("\(first), \(second) cut at \(start), \(end)")
                    }
                }
            }
        }
        #expect(pieces > 50_000 / Patience.factor)
    }

    @Test("a length past the limit is refused before its bytes come")
    func tooLong() {
        for length in [UInt32(Packet.bytesMax + 1), .max, 0x4745_5420] {
            var decoder = PacketDecoder()
            var bytes = ByteBuffer(integer: length)
            decoder.feed(&bytes)
            #expect(throws: WireError.tooLong) { _ = try decoder.next() }
        }
    }

    @Test("an unknown kind is skipped, unless it says it is critical")
    func critical() throws {
        var decoder = PacketDecoder()
        var bytes = ByteBuffer(bytes: [0, 0, 0, 2, 0x6F, 0, 0, 0, 0, 2, 0x7F, 0x80])
        decoder.feed(&bytes)
        #expect(throws: WireError.unknownKind) { _ = try decoder.next() }
        #expect(decoder.unknownCount == 1)
    }

    @Test("texts too long for their field are cut between characters")
    func cutText() throws {
        let why = String(repeating: "äöü€", count: 2000)
        var buffer = ByteBuffer()
        buffer.write(Packet.reply(ReplyHead(id: 1, outcome: .rejected, why: why, total: 0), ByteBuffer()))
        buffer.write(Packet.goodbye(Goodbye(.protocolError, why)))
        var decoder = PacketDecoder()
        decoder.feed(&buffer)
        guard case .reply(let head, _) = try decoder.next(), let cut = head.why else {
            Issue.record("no reply")
            return
        }
        #expect(why.hasPrefix(cut))
        #expect((4090...4096).contains(cut.utf8.count))
        guard case .goodbye = try decoder.next() else {
            Issue.record("no goodbye")
            return
        }
    }

    @Test("the chunk head written alone and its bytes are a chunk")
    func chunkHead() {
        var buffer = ByteBuffer()
        buffer.writeChunkHead(8, isReply: false, count: 4)
        buffer.writeString("more")
        #expect(
            PacketVectors.hex(buffer)
                == PacketVectors.hex(.chunk(id: 8, isReply: false, ByteBuffer(string: "more"))))
    }

    @Test("200,000 hostile streams give packets or errors, never more")
    func fuzz() {
        let seed = UInt64(ProcessInfo.processInfo.environment["CASTNET_SEED"] ?? "") ?? 20_26
        var generator = SeededGenerator(seed: seed)
        let packets = PacketVectors.all.map {
            Array(PacketVectors.buffer(hex: PacketVectors.hex($0.packet)).readableBytesView)
        }
        var errors = 0
        for _ in 0..<200_000 {
            var bytes = packets.randomElement(using: &generator) ?? []
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                case 2 where bytes.count > 4: bytes.remove(at: place)
                default: bytes.insert([0, 0xFF, 0x80, 1].randomElement(using: &generator) ?? 0, at: place)
                }
            }
            var decoder = PacketDecoder()
            var buffer = ByteBuffer(bytes: bytes)
            decoder.feed(&buffer)
            do {
                while let packet = try decoder.next() {
                    // What decodes can be written, and says the same again.
                    var copy = ByteBuffer()
                    copy.write(packet)
                    var second = PacketDecoder()
                    second.feed(&copy)
                    let again = try second.next()
                    if again != packet { Issue.record("seed \(seed): \(packet)") }
                }
            } catch { errors += 1 }
        }
        #expect(errors > 10_000, "seed \(seed)")
    }
}
