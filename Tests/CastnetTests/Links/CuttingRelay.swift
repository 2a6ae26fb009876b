import CastnetCore
import NIOCore
import NIOPosix
import Synchronization

/// Passes bytes on between clients and one server, and cuts each connection after some bytes of the server.
///
/// It never swallows the server's first bytes: a real network delivers them before the end of the stream.
final class CuttingRelay: Sendable {
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let state: Mutex<State>
    private struct State {
        var target: HostPort
        var clients: [any Channel] = []
        var generator: SeededGenerator
        var cuts = 0
        var isCutting = true
        var onceAfter: Int?
    }

    init(to target: HostPort, seed: UInt64) {
        state = Mutex(State(target: target, generator: SeededGenerator(seed: seed)))
    }

    var cuts: Int { state.withLock { $0.cuts } }

    /// From now on connections live.
    func stopCutting() { state.withLock { $0.isCutting = false } }

    /// Of the next connections only the first is cut, after so many bytes of the server.
    func cutOnce(after bytes: Int) {
        state.withLock { state in
            state.isCutting = false
            state.onceAfter = bytes
        }
    }

    /// From now on connections go to another server.
    func redirect(to target: HostPort) { state.withLock { $0.target = target } }

    /// Cuts every connection there is, now.
    func cutAll() async throws {
        let clients = state.withLock { state in
            defer { state.clients = [] }
            return state.clients
        }
        for client in clients where client.isActive { try await client.close() }
    }

    func listen() async throws -> HostPort {
        let channel = try await ServerBootstrap(group: group)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { [self] client in
                let far = self.state.withLock { state in
                    state.clients.append(client)
                    return state.target
                }
                return ClientBootstrap(group: client.eventLoop)
                    .connect(host: far.host, port: Int(far.port))
                    .flatMap { server in
                        let limit = self.limit()
                        return client.pipeline.addHandler(Half(to: server, cutAfter: nil, relay: self))
                            .flatMap {
                                server.pipeline.addHandler(Half(to: client, cutAfter: limit, relay: self))
                            }
                            .flatMap { client.setOption(.autoRead, value: true) }
                    }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return HostPort(host: "127.0.0.1", port: UInt16(channel.localAddress?.port ?? 0))
    }

    func close() async throws { try await group.shutdownGracefully() }

    private func limit() -> Int? {
        state.withLock { state in
            if let once = state.onceAfter.take() { return once }
            return state.isCutting ? Int.random(in: 100...4000, using: &state.generator) : nil
        }
    }

    private func cut() { state.withLock { $0.cuts += 1 } }

    /// One direction of a connection.
    private final class Half: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        private let relay: CuttingRelay
        // Used on the connection's loop only.
        private var left: Int?

        init(to other: any Channel, cutAfter: Int?, relay: CuttingRelay) {
            self.other = other
            self.relay = relay
            left = cutAfter
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var bytes = unwrapInboundIn(data)
            guard let left else { return other.writeAndFlush(bytes, promise: nil) }
            let passed = bytes.readSlice(length: min(left, bytes.readableBytes)) ?? bytes
            self.left = left - passed.readableBytes
            let isCut = left <= passed.readableBytes
            let written = other.writeAndFlush(passed)
            guard isCut else { return }
            relay.cut()
            let channel = context.channel
            written.whenComplete { [other] _ in
                other.close(promise: nil)
                channel.close(promise: nil)
            }
        }

        func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
