import CastnetCore
import CastnetMulticast
import Glibc
import NIOCore
import NIOPosix

/// The socket beacons travel on: one group and port for a cluster, shared by every node of a host.
///
/// Confined to the node's event loop. It moves bytes; what they mean is the directory machine's business.
final class BeaconSource: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>

    private let group: SocketAddress
    private var channel: (any Channel)?
    private let received: (ByteBuffer, HostPort?) -> Void

    private init(group: SocketAddress, received: @escaping (ByteBuffer, HostPort?) -> Void) {
        self.group = group
        self.received = received
    }

    /// Opens the socket on `interface` and joins the group. `received` is called on the loop.
    static func open(
        _ settings: DirectorySettings.BeaconSettings, interface: InterfaceChoice, loop: any EventLoop,
        received: @escaping (ByteBuffer, HostPort?) -> Void
    ) -> EventLoopFuture<BeaconSource> {
        do {
            let group = try SocketAddress(ipAddress: settings.group, port: Int(settings.port))
            let source = BeaconSource(group: group, received: received)
            // Bound to the group's address, so that other groups on the port stay out.
            return DatagramBootstrap(group: loop)
                .channelOption(.socketOption(.so_reuseaddr), value: 1)
                .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 2048))
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(source)
                    }
                }
                .bind(to: group)
                .flatMap { source.join($0, settings.group, interface) }
        } catch {
            return loop.makeFailedFuture(error)
        }
    }

    private func join(
        _ channel: any Channel, _ group: String, _ interface: InterfaceChoice
    ) -> EventLoopFuture<BeaconSource> {
        guard let options = channel as? any SocketOptionProvider else {
            return channel.eventLoop.makeFailedFuture(
                CastnetError(.multicastUnavailable, "the datagram channel takes no socket options"))
        }
        // Asked of the socket itself: NIO's own join refuses loopback, which lacks the MULTICAST flag and
        // works. The value is an ip_mreq: group and interface address in network byte order.
        let address = interface.address.bigEndian
        let membership = ((DatagramAddress.address(group) ?? 0).bigEndian, address)
        return options.unsafeSetSocketOption(
            level: NIOBSDSocket.OptionLevel(rawValue: CInt(IPPROTO_IP)),
            name: NIOBSDSocket.Option(rawValue: IP_ADD_MEMBERSHIP), value: membership
        )
        .flatMap {
            options.unsafeSetSocketOption(
                level: NIOBSDSocket.OptionLevel(rawValue: CInt(IPPROTO_IP)),
                name: NIOBSDSocket.Option(rawValue: IP_MULTICAST_IF), value: address)
        }
        .flatMap { options.setIPMulticastLoop(1) }
        .map {
            self.channel = channel
            return self
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let envelope = unwrapInboundIn(data)
        let from = envelope.remoteAddress.ipAddress.map {
            HostPort(host: $0, port: UInt16(envelope.remoteAddress.port ?? 0))
        }
        received(envelope.data, from)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A refused or unroutable datagram is the network's business: beacons are repeated.
    }

    func send(_ datagram: ByteBuffer) {
        channel?.writeAndFlush(AddressedEnvelope(remoteAddress: group, data: datagram), promise: nil)
    }

    func close() { channel?.close(promise: nil) }
}
