#if Redis
    import CastnetCore
    import CastnetTestKit
    import NIOCore
    import NIOPosix
    import Testing

    @testable import CastnetRedis

    /// A server that says anything but what Redis would.
    @Suite("Redis, a broken server", .serialized, .timeLimit(.minutes(3)))
    struct HostileServerTests {
        /// Answers whatever arrives with the same bytes.
        private final class Answerer: ChannelInboundHandler, Sendable {
            typealias InboundIn = ByteBuffer
            private let answer: ByteBuffer
            private let closes: Bool

            init(_ answer: ByteBuffer, closes: Bool) {
                self.answer = answer
                self.closes = closes
            }

            func channelRead(context: ChannelHandlerContext, data: NIOAny) {
                context.writeAndFlush(NIOAny(answer), promise: nil)
                if closes { context.close(promise: nil) }
            }

            func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
        }

        private func serve(_ answer: ByteBuffer, closes: Bool = false) async throws -> any Channel {
            try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .childChannelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(Answerer(answer, closes: closes))
                    }
                }
                .bind(host: "127.0.0.1", port: 0).get()
        }

        private func outlive(_ answer: ByteBuffer, closes: Bool = false) async throws {
            let channel = try await serve(answer, closes: closes)
            let port = try #require(channel.localAddress?.port)
            let peer = StorePeer("peer", at: try RedisAddress("redis://:secret@127.0.0.1:\(port)"))
            try peer.publish()
            try await eventually("it gives up") { peer.log[.redisFailures] >= 1 }
            let start = clockNow()
            await peer.store.withdraw()
            #expect(clockNow() - start < .milliseconds(3500) * Patience.factor)
            #expect(peer.log.names.isEmpty)
            try await channel.close().get()
        }

        @Test(arguments: [
            "HTTP/1.1 400 Bad Request\r\n\r\n", "+OK\r\n", "-ERR no\r\n", "$-1\r\n", "*-1\r\n", ":7\r\n",
            "\r\n",
            "*0\r\n", "$99999999999999\r\nx", "$536870912\r\nx", "*2147483647\r\n", "*99999999999\r\n",
            "*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n*2\r\n:1\r\n", "$5\r\nab",
            "*3\r\n$1\r\na\r\n",
            "+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n", "-MOVED 1 127.0.0.1:1\r\n",
            "%1\r\n+a\r\n+b\r\n",
        ])
        func `an answer that makes no sense is a failure and nothing else`(_ answer: String) async throws {
            try await outlive(ByteBuffer(string: answer))
            try await outlive(ByteBuffer(string: answer), closes: true)
        }

        @Test func `an answer without end is cut off`() async throws {
            var endless = ByteBuffer(string: "$400000000\r\n")
            endless.writeRepeatingByte(0x41, count: 8 << 20)
            try await outlive(endless)
            try await outlive(ByteBuffer(repeating: 0x2B, count: 8 << 20))
            try await outlive(
                ByteBuffer(string: "*1000000\r\n" + String(repeating: "*1\r\n", count: 1 << 20)))
        }

        @Test func `random bytes never trap`() async throws {
            var random = SeededGenerator(seed: 23)
            let pieces = [
                "*", "$", "+", "-", ":", "\r\n", "0", "1", "3", "-1", "99", "subscribe", "OK", "\u{0}",
            ]
            for _ in 0..<40 {
                let text = (0..<Int.random(in: 1...40, using: &random))
                    .map { _ in pieces.randomElement(using: &random) ?? "" }.joined()
                try await outlive(ByteBuffer(string: text), closes: Bool.random(using: &random))
            }
        }
    }
#endif
