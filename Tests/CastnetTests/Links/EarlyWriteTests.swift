import CastnetCore
import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import Castnet

/// How the packets of one wake-up are written: some at once, the others in ever larger pieces.
@Suite struct EarlyWriteTests {
    private final class Dialler: MemberSource, MessageSink, Connector, @unchecked Sendable {
        let loop = EmbeddedEventLoop()
        let channel: EmbeddedChannel
        private(set) lazy var answers = AnswerDesk(loop: loop) { _ in }
        private(set) var unicast: Unicast!
        let far = Member(
            identity: NodeIdentity(name: "far", incarnation: Incarnation(1)), server: "far",
            addresses: [HostPort(host: "10.0.0.2", port: 7000)])

        init() throws {
            channel = EmbeddedChannel(loop: loop)
            unicast = Unicast(
                loop: loop, identity: NodeIdentity(name: "near", incarnation: Incarnation(1)),
                configuration: Configuration(), counters: NodeCounters(), members: self, sink: self, seed: 7,
                log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, connector: self)
        }

        func connect(to address: PeerAddress, on loop: any EventLoop) -> EventLoopFuture<any Channel> {
            do {
                channel.connect(to: try SocketAddress(ipAddress: "10.0.0.2", port: 7000), promise: nil)
                return loop.makeSucceededFuture(channel)
            } catch { return loop.makeFailedFuture(error) }
        }

        func members(serving topic: Topic) -> [Member] { [far] }
        func received(_ delivery: Delivery, settle: Settlement) -> Reception { .taken }
        func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {}

        func send(_ count: Int, bytes: Int = 1) throws {
            let message = OutboundMessage(
                kind: .call, topic: try Topic("work"), sequence: 1, sentAtMicroseconds: 0,
                deadline: MonotonicClock.now(of: loop) + .seconds(30), settle: .processed,
                payload: ByteBuffer(repeating: 1, count: bytes), route: Route(carrier: .persistent),
                mandatory: false)
            for _ in 0..<count { unicast.send(message, completion: .copy(receipt: nil, far.identity)) }
        }

        /// How many messages each write since the last look had.
        func writes() throws -> [Int] {
            var counts: [Int] = []
            while var bytes = try channel.readOutbound(as: ByteBuffer.self) {
                var decoder = PacketDecoder()
                decoder.feed(&bytes)
                var count = 0
                while let packet = try decoder.next() {
                    if case .message = packet { count += 1 }
                }
                counts.append(count)
            }
            return counts
        }

        /// Until the two have met: one message, answered by the hello of the far end.
        func open() throws {
            try send(1)
            unicast.flushLinks()
            loop.run()
            var hello = Hello(
                purpose: .persistent, cluster: Configuration().node.cluster, node: far.identity,
                messageMax: 1 << 20)
            hello.features = []
            var bytes = ByteBuffer()
            bytes.write(.hello(hello))
            try channel.writeInbound(bytes)
            loop.run()
            _ = try writes()
        }
    }

    @Test func theFirstOfManyLeaveWhileTheOthersAreMade() throws {
        let dialler = try Dialler()
        try dialler.open()
        try dialler.send(70)
        #expect(try dialler.writes() == [8, 16, 32])
        dialler.unicast.flushLinks()
        #expect(try dialler.writes() == [14])
    }

    @Test func largeOnesLeaveOneByOneHoweverManyThereAre() throws {
        let dialler = try Dialler()
        try dialler.open()
        try dialler.send(100, bytes: Packet.chunkBytes)
        #expect(try dialler.writes() == Array(repeating: 1, count: 100))
    }

    @Test func fewLeaveTogether() throws {
        let dialler = try Dialler()
        try dialler.open()
        for _ in 1...3 {
            try dialler.send(7)
            #expect(try dialler.writes() == [])
            dialler.unicast.flushLinks()
            #expect(try dialler.writes() == [7])
        }
    }
}
