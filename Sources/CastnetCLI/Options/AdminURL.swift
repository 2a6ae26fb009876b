internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore
internal import NIOFoundationCompat
internal import NIOHTTP1
internal import NIOPosix

/// `--admin URL`: the admin page of a running node, and how to ask it.
struct AdminURL: ExpressibleByArgument, Sendable {
    let place: AdminSettings.Address

    /// What a node may take to answer.
    private static let patience = TimeAmount.seconds(5)
    private static let answerMax = 64 << 20

    init?(argument: String) {
        if argument.hasPrefix("unix:"), argument.count > 5 {
            place = .unix(String(argument.dropFirst(5)))
        } else if argument.hasPrefix("http://"),
            let address = HostPort(argument.dropFirst(7).trimmingSuffix("/"))
        {
            place = .tcp(address)
        } else {
            return nil
        }
    }

    /// Asks for a page and decodes it. Throws `unreachable` where nobody answers, or with something else.
    func get<Content: Decodable>(_ path: String) async throws -> Content {
        do {
            let (status, body) = try await request(path)
            guard status == .ok else {
                throw CastnetError(.unreachable, "\(self): \(status.code) \(String(buffer: body))")
            }
            return try JSONDecoder().decode(Content.self, from: body)
        } catch let error as CastnetError {
            throw error
        } catch {
            throw CastnetError(.unreachable, "\(self) does not answer as a node does", underlying: error)
        }
    }

    private func request(_ path: String) async throws -> (HTTPResponseStatus, ByteBuffer) {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let answer = loop.makePromise(of: (HTTPResponseStatus, ByteBuffer).self)
        let bootstrap = ClientBootstrap(group: loop).connectTimeout(Self.patience)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(
                        AdminAnswer(path: path, bytesMax: Self.answerMax, answer))
                }
            }
        let connected =
            switch place {
            case .tcp(let address): bootstrap.connect(host: address.host, port: Int(address.port))
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        connected.whenFailure { answer.fail($0) }
        let timer = loop.scheduleTask(in: Self.patience) {
            answer.fail(CastnetError(.unreachable, "\(self) does not answer in time"))
        }
        defer { timer.cancel() }
        return try await answer.futureResult.get()
    }
}

extension AdminURL: CustomStringConvertible {
    var description: String {
        switch place {
        case .tcp(let address): "http://\(address)"
        case .unix(let path): "unix:\(path)"
        }
    }
}

extension Substring {
    fileprivate func trimmingSuffix(_ suffix: String) -> String {
        String(hasSuffix(suffix) ? dropLast(suffix.count) : self)
    }
}

/// Sends one request and collects its answer.
private final class AdminAnswer: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let path: String
    private let bytesMax: Int
    private let answer: EventLoopPromise<(HTTPResponseStatus, ByteBuffer)>
    private var status = HTTPResponseStatus.internalServerError
    private var body = ByteBuffer()

    init(
        path: String, bytesMax: Int, _ answer: EventLoopPromise<(HTTPResponseStatus, ByteBuffer)>
    ) {
        self.path = path
        self.bytesMax = bytesMax
        self.answer = answer
    }

    func channelActive(context: ChannelHandlerContext) {
        let headers: HTTPHeaders = ["host": "localhost", "connection": "close"]
        let head = HTTPRequestHead(version: .http1_1, method: .GET, uri: path, headers: headers)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): status = head.status
        case .body(let bytes):
            body.writeImmutableBuffer(bytes)
            if body.readableBytes > bytesMax {
                answer.fail(CastnetError(.tooLarge, "an answer of more than \(bytesMax) bytes"))
                context.close(promise: nil)
            }
        case .end:
            answer.succeed((status, body))
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        answer.fail(CastnetError(.unreachable, "the connection ended before the answer"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        answer.fail(error)
        context.close(promise: nil)
    }
}
