import CastnetCore
import NIOCore
import Synchronization
import Testing

@testable import Castnet

@Suite struct SubscriptionQueueTests {
    private func deliveries(_ count: Int) throws -> [Delivery] {
        let topic = try Topic("news")
        let sender = NodeIdentity(name: "far", incarnation: Incarnation(1))
        return (1...count).map { number in
            Delivery(
                InboundRecord(
                    topic: topic, from: sender, firstSequence: UInt64(number), sentAtMicroseconds: 0,
                    body: ByteBuffer(repeating: 1, count: 10)),
                kind: .fanout, carrier: .multicast)
        }
    }

    private func queue(
        bytesMax: Int, drained: @escaping @Sendable () -> Void = {}
    ) throws -> SubscriptionQueue {
        SubscriptionQueue(pattern: try TopicPattern("news"), bytesMax: bytesMax, drained: drained)
    }

    @Test func whatComesTogetherIsReadTogetherAndInOrder() async throws {
        let queue = try queue(bytesMax: 1 << 20)
        #expect(queue.push(contentsOf: try deliveries(5)))
        let batch = try #require(await queue.take())
        #expect(batch.map(\.record.firstSequence) == [1, 2, 3, 4, 5])
        #expect(queue.queuedBytes == 0)
    }

    @Test func aWaitingReaderIsWokenByTheFirstOfMany() async throws {
        let queue = try queue(bytesMax: 1 << 20)
        async let batch = queue.take()
        #expect(queue.push(contentsOf: try deliveries(3)))
        #expect(await batch?.count == 3)
    }

    @Test func allOfABatchCountAgainstTheLimit() async throws {
        let drained = Mutex(0)
        let queue = try queue(bytesMax: 3 * (10 + 96)) { drained.withLock { $0 += 1 } }
        #expect(queue.push(contentsOf: try deliveries(2)))
        #expect(!queue.isFull)
        #expect(queue.push(contentsOf: try deliveries(1)))
        #expect(queue.isFull)
        _ = await queue.take()
        #expect(drained.withLock { $0 } == 1)
    }

    @Test func whatHasEndedTakesNone() async throws {
        let queue = try queue(bytesMax: 1 << 20)
        queue.finish()
        #expect(!queue.push(contentsOf: try deliveries(2)))
        #expect(await queue.take() == nil)
    }
}

@Suite struct MessageBatchTests {
    private func batch() throws -> MessageBatch {
        let topic = try Topic("news")
        let sender = NodeIdentity(name: "far", incarnation: Incarnation(1))
        var run = ByteBuffer()
        for text in ["one", "", "three"] {
            run.writeInteger(UInt16(text.utf8.count))
            run.writeString(text)
        }
        let records = [
            InboundRecord(
                topic: topic, from: sender, firstSequence: 1, sentAtMicroseconds: 0, count: 3, body: run,
                isRun: true),
            InboundRecord(
                topic: topic, from: sender, firstSequence: 4, sentAtMicroseconds: 0,
                body: ByteBuffer(string: "alone")),
        ]
        return MessageBatch(records.map { Delivery($0, kind: .fanout, carrier: .multicast) })
    }

    @Test func everyWayThroughABatchMeetsTheSameMessages() throws {
        let batch = try batch()
        let wanted = ["one", "", "three", "alone"]
        #expect(batch.count == 4)
        #expect(batch.map { String(buffer: $0.payload) } == wanted)
        var payloads: [String] = []
        batch.forEachPayload { payloads.append(String(buffer: $0)) }
        #expect(payloads == wanted)
        var bytes: [String] = []
        batch.forEachBytes { span in
            bytes.append(
                String(
                    decoding: span.byteOffsets.map { span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) },
                    as: UTF8.self))
        }
        #expect(bytes == wanted)
    }

    @Test func aRunThatIsCutShortEndsWhereItIsCut() throws {
        let record = InboundRecord(
            topic: try Topic("news"), from: NodeIdentity(name: "far", incarnation: Incarnation(1)),
            firstSequence: 1, sentAtMicroseconds: 0, count: 2, body: ByteBuffer(bytes: [0, 1, 7, 0, 9, 1]),
            isRun: true)
        let batch = MessageBatch([Delivery(record, kind: .fanout, carrier: .multicast)])
        var lengths: [Int] = []
        batch.forEachBytes { lengths.append($0.byteCount) }
        #expect(lengths == [1])
    }
}
