package import NIOCore
import NIOPosix

/// Opens connections: with the sockets of the system, or with those of a simulation.
package protocol Connector: Sendable {
    /// A connection to `address` that `loop` serves and whose peer may end its side alone.
    func connect(to address: PeerAddress, on loop: any EventLoop) -> EventLoopFuture<any Channel>
}

struct SocketConnector: Connector {
    private static let dialDeadline = TimeAmount.seconds(5)

    func connect(to address: PeerAddress, on loop: any EventLoop) -> EventLoopFuture<any Channel> {
        // Whether a peer that ends did so in order tells what it has not started.
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(Self.dialDeadline)
            .channelOption(.allowRemoteHalfClosure, value: true)
        return switch address {
        case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
        case .tcp(let address):
            bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .connect(host: address.host, port: Int(address.port))
        }
    }
}
