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
