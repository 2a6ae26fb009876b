import CastnetCore
import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// A connection without rules: sends what it is told, keeps what comes.
final class RawPeer: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer

    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    private struct State {
        var bytes = ByteBuffer()
        var isClosed = false
        var channel: (any Channel)?
    }
    private let state = Mutex(State())
    private let greeting: ByteBuffer

    private init(greeting: ByteBuffer) { self.greeting = greeting }

    /// Connects, and says `greeting`.
    static func dial(_ address: HostPort, greeting: ByteBuffer = ByteBuffer()) async throws -> RawPeer {
        let peer = RawPeer(greeting: greeting)
        _ = try await ClientBootstrap(group: group)
            .channelInitializer { $0.pipeline.addHandler(peer) }
            .connect(host: address.host, port: Int(address.port)).get()
        return peer
    }

    /// Listens; each connection hears `greeting`, and `accepted` of it. Returns the listener and its address.
    static func listen(
        greeting: ByteBuffer, accepted: @escaping @Sendable (RawPeer) -> Void = { _ in }
    ) async throws -> (any Channel, HostPort) {
        let channel = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                let peer = RawPeer(greeting: greeting)
                accepted(peer)
                return channel.pipeline.addHandler(peer)
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return (channel, HostPort(host: "127.0.0.1", port: UInt16(channel.localAddress?.port ?? 0)))
    }

    static func bytes(_ packets: [Packet]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for packet in packets { buffer.write(packet) }
        return buffer
    }

    func say(_ bytes: ByteBuffer) { state.withLock { $0.channel }?.writeAndFlush(bytes, promise: nil) }
    /// Ends this side; what the other says still comes.
    func endOutput() { state.withLock { $0.channel }?.close(mode: .output, promise: nil) }
    /// Ends the connection with a reset: what the other side has not read may be lost.
    func reset() {
        let channel = state.withLock { $0.channel }
        (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            .whenComplete { _ in channel?.close(promise: nil) }
    }
    func close() { state.withLock { $0.channel }?.close(promise: nil) }

    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// The packets that came so far.
    var packets: [Packet] {
        var bytes = state.withLock { $0.bytes }
        var decoder = PacketDecoder()
        decoder.feed(&bytes)
        var packets: [Packet] = []
        while let packet = try? decoder.next() { packets.append(packet) }
        return packets
    }

    var goodbye: Goodbye? {
        for case .goodbye(let goodbye) in packets { return goodbye }
        return nil
    }

    func channelActive(context: ChannelHandlerContext) {
        state.withLock { $0.channel = context.channel }
        if greeting.readableBytes > 0 { context.writeAndFlush(NIOAny(greeting), promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        _ = state.withLock { $0.bytes.writeBuffer(&bytes) }
    }

    func channelInactive(context: ChannelHandlerContext) { state.withLock { $0.isClosed = true } }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
