import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

/// Batches are packed when they are submitted: what arrives is as if each message had been submitted alone.
@Suite struct PackedCastsTests {
    private static let start = Instant(nanoseconds: 1_000_000_000)

    private func machine(_ name: String, stream: UInt64, frameSizeMax: Int) -> ChannelMachine {
        var machine = ChannelMachine(
            settings: ChannelSettings(name: "agents", group: "239.192.7.10", port: 7500),
            limits: LimitSettings(), identity: NodeIdentity(name: name, incarnation: Incarnation(1)),
            streamID: stream, reportAddress: DatagramAddress(address: 0x0A4D_0001, port: 9000),
            frameSizeMax: frameSizeMax, receiveBufferBytes: 4 << 20, configurationDigest: 1, seed: 1,
            now: Self.start)
        machine.listens(replays: false, now: Self.start)
        return machine
    }

    private func payload(_ number: Int, _ size: Int) -> ByteBuffer {
        ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: size)
    }

    /// Carries everything over; returns what arrived, by topic and in order.
    private func arrivals(
        _ batches: [(topic: Topic, payloads: [ByteBuffer])], frameSizeMax: Int
    ) -> [Topic: [(sequence: UInt64, payload: ByteBuffer)]] {
        var sender = machine("a", stream: 1, frameSizeMax: frameSizeMax)
        var member = machine("b", stream: 2, frameSizeMax: frameSizeMax)
        var sequences: [Topic: UInt64] = [:]
        var expectedBytes = 0
        for (topic, payloads) in batches {
            let first = sequences[topic, default: 0] + 1
            let casts = OutboundCast.packing(payloads[...], topic: topic, first: first, sentAtMicroseconds: 5)
            #expect(casts.reduce(0) { $0 + $1.count } == payloads.count)
            expectedBytes += payloads.reduce(0) { $0 + $1.readableBytes }
            sender.submit(casts, now: Self.start)
            sequences[topic] = first + UInt64(payloads.count) - 1
        }
        #expect(sender.queuedBytes == expectedBytes)
        var result: [Topic: [(sequence: UInt64, payload: ByteBuffer)]] = [:]
        var now = Self.start
        // As fast as the pace allows.
        for _ in 0..<10_000 where sender.queuedBytes > 0 {
            var frame = ByteBuffer()
            while sender.nextFrame(into: &frame, now: now) {
                #expect(frame.readableBytes <= frameSizeMax)
                member.frameReceived(frame, now: now)
                frame = ByteBuffer()
            }
            now = now + .milliseconds(1)
        }
        for record in member.takeDeliveries() {
            for message in record.messages {
                result[record.topic, default: []].append((message.sequence, message.payload))
            }
        }
        #expect(sender.queuedBytes == 0)
        return result
    }

    @Test func `sizes of every kind arrive in order, in frames of every size`() throws {
        var dice = SeededGenerator(seed: 42)
        for round in 0..<200 {
            var batches: [(topic: Topic, payloads: [ByteBuffer])] = []
            var sent: [Topic: [ByteBuffer]] = [:]
            for _ in 0..<Int.random(in: 1...4, using: &dice) {
                let isLong = Bool.random(using: &dice)
                let letter = Bool.random(using: &dice) ? "a" : "b"
                let segment = String(repeating: letter, count: isLong ? 63 : 1)
                let topic = try Topic(
                    isLong ? [segment, segment, segment, segment].joined(separator: ".") : segment)
                let sizeMax = [1, 64, OutboundCast.packedMax, 600][round % 4]
                let payloads = (0..<Int.random(in: 1...300, using: &dice)).map {
                    payload($0, Int.random(in: 0...sizeMax, using: &dice))
                }
                batches.append((topic, payloads))
                sent[topic, default: []] += payloads
            }
            let got = arrivals(batches, frameSizeMax: [480, 481, 700, 1448][round / 4 % 4])
            #expect(got.keys.count == sent.keys.count)
            // Told in a word: all bytes of all payloads are a long one.
            for (topic, payloads) in sent {
                let hasSame = got[topic]?.map(\.payload) == payloads
                #expect(hasSame, "round \(round): \(got[topic]?.count ?? 0) of \(payloads.count)")
                let isInOrder = got[topic]?.map(\.sequence) == (0..<payloads.count).map { UInt64($0) + 1 }
                #expect(isInOrder, "round \(round)")
            }
        }
    }

    @Test func `only neighbours that are small are packed`() {
        let max = OutboundCast.packedMax
        let sizes = [max + 1, max, 0, 3, max + 1, 5]
        let casts = OutboundCast.packing(
            sizes.enumerated().map { payload($0, $1) }[...], topic: Topic(unchecked: "t"), first: 7,
            sentAtMicroseconds: 5)
        #expect(casts.map(\.count) == [1, 3, 1, 1])
        #expect(casts.map(\.sequence) == [7, 8, 11, 12])
        #expect(casts.map(\.payloadBytes) == [max + 1, max + 3, max + 1, 5])
        #expect(casts[3].payload == payload(5, 5))
    }
}
