import NIOCore
import Testing

@testable import CastnetCore

@Suite struct TopicTurnsTests {
    private let start = Instant(nanoseconds: 1_000_000_000)
    private let header = FrameHeader(
        isHead: false, streamID: 1, sequence: 1, reportAddress: DatagramAddress(address: 1, port: 1),
        feedbackInterval: 10)

    private func casts(_ topic: String, _ count: Int, size: Int, from first: Int = 1) -> [OutboundCast] {
        (0..<count).map {
            OutboundCast(
                topic: Topic(unchecked: topic), sequence: UInt64(first + $0), sentAtMicroseconds: 0,
                payload: ByteBuffer(repeating: 7, count: size))
        }
    }

    /// Bytes of payload by topic in the frames of `time`, a frame whenever one may leave.
    private func send(
        _ sender: inout StreamSender, for time: Duration, frames perMillisecond: Int
    ) throws -> [Topic: Int] {
        var bytes: [Topic: Int] = [:]
        var decoder = FrameDecoder()
        for millisecond in 0..<Int64(time.seconds * 1000) {
            for _ in 0..<perMillisecond {
                var buffer = ByteBuffer()
                var builder = FrameBuilder(header, sizeMax: 1448, into: &buffer)
                var sent = StreamSender.Sent()
                let now = start + .milliseconds(millisecond)
                guard sender.isReady(now), sender.fill(&builder, &buffer, &sent, now: now) else { break }
                for record in try decoder.decode(buffer).records {
                    guard case .run(let run) = record else { continue }
                    bytes[run.topic, default: 0] += run.body.readableBytes - 2 * run.count
                }
            }
        }
        return bytes
    }

    @Test("a topic uses no more than its rate, and leaves the rest of the channel to the others")
    func rate() throws {
        var sender = StreamSender(frameSizeMax: 1448, openBytesMax: 1 << 20, topicRate: 100_000, now: start)
        sender.submit(casts("flood", 2000, size: 500), now: start)
        sender.submit(casts("small", 10, size: 100), now: start)
        let bytes = try send(&sender, for: .seconds(2), frames: 10)
        let flood = bytes[Topic(unchecked: "flood")] ?? 0
        #expect(bytes[Topic(unchecked: "small")] == 1000)
        #expect(flood > 170_000 && flood < 205_000, "\(flood) bytes in two seconds")
        #expect(sender.hasData && sender.restsUntil != nil)
    }

    @Test("a topic that paused does not make up for it")
    func noBurst() throws {
        var sender = StreamSender(frameSizeMax: 1448, openBytesMax: 1 << 20, topicRate: 100_000, now: start)
        sender.submit(casts("t", 4, size: 500), now: start)
        _ = try send(&sender, for: .milliseconds(100), frames: 10)
        #expect(!sender.hasData)
        sender.submit(casts("t", 400, size: 500, from: 5), now: start + .milliseconds(100))
        let bytes = try send(&sender, for: .milliseconds(200), frames: 10)[Topic(unchecked: "t")] ?? 0
        #expect(bytes < 22_000, "\(bytes) bytes in a tenth of a second")
    }

    @Test("topics without a rate take turns: a flood holds up nobody")
    func turns() throws {
        var sender = StreamSender(frameSizeMax: 1448, openBytesMax: 1 << 20, now: start)
        sender.submit(casts("flood", 4000, size: 500), now: start)
        sender.submit(casts("small", 10, size: 100), now: start)
        let bytes = try send(&sender, for: .milliseconds(1), frames: 20)
        #expect(bytes[Topic(unchecked: "small")] == 1000)
    }
}
