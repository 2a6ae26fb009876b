import CastnetCore
import CastnetMulticast
import Glibc
import NIOCore
import NIOPosix

/// The directory's multicast socket: many nodes of a host share its port, all hear each other and themselves.
///
/// Confined to its event loop, which makes it sendable.
final class BeaconSource: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    /// The kernel's `struct ip_mreqn`, addresses in network byte order.
    private struct Membership: Sendable {
        var group: UInt32
        var address: UInt32
        var index: Int32
    }

    private let group: SocketAddress
    private let received: (ByteBuffer, SocketAddress) -> Void
    /// Told once when the socket closed without being asked to.
    private let failed: (any Error) -> Void
    private var channel: (any Channel)?
    private var error: (any Error)?
    private var isClosing = false

    private init(
        group: SocketAddress, received: @escaping (ByteBuffer, SocketAddress) -> Void,
        failed: @escaping (any Error) -> Void
    ) {
        self.group = group
        self.received = received
        self.failed = failed
    }

    /// Opens the socket, joined to the group on `interface`. Fails with `multicastUnavailable`.
    static func open(
        on loop: any EventLoop, settings: DirectorySettings.BeaconSettings, interface: InterfaceChoice,
        received: @escaping @Sendable (ByteBuffer, SocketAddress) -> Void,
        failed: @escaping @Sendable (any Error) -> Void
    ) -> EventLoopFuture<BeaconSource> {
        let place = "\(settings.group):\(settings.port) on \(interface.name)"
        guard let group = try? SocketAddress(ipAddress: settings.group, port: Int(settings.port)),
            group.isMulticast, let value = DatagramAddress.address(settings.group)
        else {
            return loop.makeFailedFuture(
                CastnetError(.multicastUnavailable, "\(quoted(settings.group)) is no IPv4 multicast group"))
        }
        let source = BeaconSource(group: group, received: received, failed: failed)
        let membership = Membership(
            group: value.bigEndian, address: interface.address.bigEndian,
            index: Int32(bitPattern: interface.index))
        return DatagramBootstrap(group: loop)
            .channelOption(.socketOption(.so_reuseaddr), value: 1)
            .channelOption(.socketOption(.init(rawValue: SO_REUSEPORT)), value: 1)
            .channelOption(.socketOption(.so_rcvbuf), value: 1 << 20)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
            .channelOption(.maxMessagesPerRead, value: 64)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(source)
                }
            }
            // Bound to the group, not to every address: nothing else on the port is heard.
            .bind(to: group)
            .flatMap { channel in
                source.join(channel, membership).flatMapError { error in
                    source.isClosing = true
                    return channel.close().flatMapErrorThrowing { _ in }.flatMapThrowing { throw error }
                }
            }
            .map {
                source.channel = $0
                return source
            }
            .flatMapErrorThrowing { error in
                throw CastnetError(
                    .multicastUnavailable, "beacons cannot use \(place)", underlying: error)
            }
    }

    private func join(
        _ channel: any Channel, _ membership: Membership
    ) -> EventLoopFuture<any Channel> {
        guard let options = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeFailedFuture(
                CastnetError(.multicastUnavailable, "the channel has no socket options"))
        }
        let level = NIOBSDSocket.OptionLevel.ip
        @Sendable func set<Value: Sendable>(_ name: Int32, _ value: Value) -> EventLoopFuture<Void> {
            options.unsafeSetSocketOption(level: level, name: .init(rawValue: name), value: value)
        }
        // By interface number: NIO's own join refuses loopback, which lacks the multicast flag. Groups that
        // other sockets of this host joined elsewhere are not for this one (IP_MULTICAST_ALL).
        return set(Int32(IP_ADD_MEMBERSHIP), membership)
            .flatMap { set(Int32(IP_MULTICAST_IF), membership) }
            .flatMap { set(Int32(IP_MULTICAST_ALL), Int32(0)) }
            .flatMap { set(Int32(IP_MULTICAST_LOOP), Int32(1)) }
            .flatMap { set(Int32(IP_MULTICAST_TTL), Int32(1)) }
            .map { channel }
    }

    /// Queues a datagram for the group; false when it cannot be queued now.
    func send(_ datagram: ByteBuffer) -> Bool {
        guard let channel, channel.isWritable else { return false }
        // A datagram that is refused closes the channel; why, only its write is told.
        channel.write(AddressedEnvelope(remoteAddress: group, data: datagram))
            .whenFailure { [weak self] in self?.error = $0 }
        return true
    }

    func flush() { channel?.flush() }

    /// Closes after what is queued.
    func close() -> EventLoopFuture<Void>? {
        isClosing = true
        guard let channel else { return nil }
        self.channel = nil
        channel.flush()
        return channel.close().flatMapErrorThrowing { _ in }
    }

    // MARK: ChannelInboundHandler

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        received(envelope.data, envelope.remoteAddress)
    }

    /// Kept for ``channelInactive(context:)``, which says why.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { self.error = error }

    func channelInactive(context: ChannelHandlerContext) {
        channel = nil
        guard !isClosing else { return }
        isClosing = true
        failed(error ?? ChannelError.ioOnClosedChannel)
    }
}
