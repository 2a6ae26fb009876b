import CastnetCore
import Foundation
import NIOCore
import NIOFoundationCompat
import NIOHTTP1
import NIOPosix

/// What an administrator's request asks for.
enum AdminRequest: Hashable {
    case status
    case members
    case refused(HTTPResponseStatus, why: String)

    /// Reads a request's head.
    ///
    /// A page of the World Wide Web that an administrator looks at may make the browser ask here under a name
    /// of its own: only requests for this machine by number, or for `localhost`, are answered.
    init(_ head: HTTPRequestHead) {
        guard Self.isHere(head.headers.first(name: "host")) else {
            self = .refused(.forbidden, why: "the host must be an address or localhost")
            return
        }
        guard head.method == .GET else {
            self = .refused(.methodNotAllowed, why: "\(head.method.rawValue): only GET")
            return
        }
        switch head.uri.prefix(while: { $0 != "?" }) {
        case "/status.json": self = .status
        case "/members.json": self = .members
        default: self = .refused(.notFound, why: "there are /status.json and /members.json")
        }
    }

    private static func isHere(_ host: String?) -> Bool {
        guard let host, !host.isEmpty else { return true }
        let name = HostPort(host)?.host ?? host.trimmingCharacters(in: ["[", "]"])
        return name == "localhost" || (try? SocketAddress(ipAddress: name, port: 0)) != nil
    }
}

/// The admin page: HTTP on loopback or a Unix-domain socket, for `castnet status` and other programs.
///
/// Confined to the node's event loop. At most ``connectionsMax`` connections, of which each is closed after
/// its answer, or when no request comes within ``requestDeadline``.
final class AdminListener: @unchecked Sendable {
    static let connectionsMax = 16
    static let requestDeadline = TimeAmount.seconds(5)

    private let loop: any EventLoop
    private let address: AdminSettings.Address
    private let content: (AdminRequest) throws -> Data?
    private var channel: (any Channel)?
    private var connections = 0

    /// `content` makes the JSON that answers a request, on the loop.
    init(
        loop: any EventLoop, address: AdminSettings.Address, content: @escaping (AdminRequest) throws -> Data?
    ) {
        self.loop = loop
        self.address = address
        self.content = content
    }

    /// Where it listens: a URL as `--admin` takes it.
    private(set) var url = ""

    func bind() -> EventLoopFuture<Void> {
        let bootstrap = ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 64)
            .restingWithoutDescriptors()
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try accept(channel) }
            }
        let bound =
            switch address {
            case .tcp(let address): bootstrap.bind(host: address.host, port: Int(address.port))
            case .unix(let path):
                // What a dead process left may go, a living one's may not.
                bootstrap.bind(
                    unixDomainSocketPath: path,
                    cleanupExistingSocketFile: SocketDirectory.isAbandoned(path))
            }
        return bound.flatMapThrowing { [self] channel in
            self.channel = channel
            switch address {
            case .tcp(let address):
                let port = channel.localAddress?.port ?? Int(address.port)
                url = "http://\(HostPort(host: address.host, port: UInt16(clamping: port)))"
            case .unix(let path):
                // Nobody but this user.
                guard chmod(path, 0o600) == 0 else {
                    throw CastnetError(
                        .unreachable, "admin.listen: \(path): \(String(cString: strerror(errno)))")
                }
                url = "unix:\(path)"
            }
        }.flatMapErrorThrowing { error in
            if error is CastnetError { throw error }
            throw CastnetError(.unreachable, "admin.listen: cannot listen there", underlying: error)
        }
    }

    private func accept(_ channel: any Channel) throws {
        guard connections < Self.connectionsMax else {
            throw CastnetError(.limitReached, "\(Self.connectionsMax) connections to the admin page")
        }
        connections += 1
        channel.closeFuture.whenComplete { [self] _ in connections -= 1 }
        try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
        try channel.pipeline.syncOperations.addHandler(AdminHandler(owner: self))
    }

    fileprivate func answer(_ request: AdminRequest) -> (HTTPResponseStatus, Data) {
        if case .refused(let status, let why) = request { return (status, Data("\(why)\n".utf8)) }
        do {
            guard let page = try content(request) else {
                return (.serviceUnavailable, Data("the node has stopped\n".utf8))
            }
            return (.ok, page)
        } catch {
            return (.internalServerError, Data("\(error)\n".utf8))
        }
    }

    func close() -> EventLoopFuture<Void> {
        guard let channel else { return loop.makeSucceededVoidFuture() }
        channel.close(promise: nil)
        if case .unix(let path) = address { unlink(path) }
        return channel.closeFuture
    }
}

/// One connection to the admin page: one request, one answer.
private final class AdminHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let owner: AdminListener
    private var request: AdminRequest?
    private var timer: Scheduled<Void>?

    init(owner: AdminListener) { self.owner = owner }

    func handlerAdded(context: ChannelHandlerContext) {
        let channel = context.channel
        timer = context.eventLoop.scheduleTask(in: AdminListener.requestDeadline) {
            channel.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { timer?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): request = AdminRequest(head)
        case .body: break
        case .end:
            guard let request = request.take() else { return }
            write(owner.answer(request), to: context)
        }
    }

    private func write(_ answer: (status: HTTPResponseStatus, body: Data), to context: ChannelHandlerContext)
    {
        let isJSON = answer.status == .ok
        let head = HTTPResponseHead(
            version: .http1_1, status: answer.status,
            headers: [
                "content-type": isJSON ? "application/json" : "text/plain; charset=utf-8",
                "content-length": "\(answer.body.count)", "connection": "close", "cache-control": "no-store",
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(data: answer.body)))), promise: nil)
        let channel = context.channel
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in channel.close(promise: nil) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
