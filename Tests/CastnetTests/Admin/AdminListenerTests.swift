import Castnet
import Foundation
import NIOCore
import NIOPosix
import Testing

/// The admin page of a running node, asked byte by byte.
@Suite(.serialized, .timeLimit(.minutes(1))) struct AdminListenerTests {
    private func configuration(admin: String) throws -> Configuration {
        let text = """
            node: {name: asked, listen: "127.0.0.1:0", cluster: admin}
            directory: {beacon: off}
            admin: {listen: "\(admin)"}
            """
        let report = Configuration.parse(text, file: "admin.yaml")
        #expect(report.problems.isEmpty, "\(report.problems)")
        return try #require(report.configuration)
    }

    private func port(of node: Node) throws -> Int {
        let url = try #require(node.adminURL)
        return try #require(url.split(separator: ":").last.flatMap { Int($0) })
    }

    private func get(_ path: String, host: String = "127.0.0.1") -> String {
        "GET \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n"
    }

    @Test func theStatusIsOneJSONObject() async throws {
        try await Node.withNode(try configuration(admin: "127.0.0.1:0")) { node in
            try await node.serve(try Topic("echo")) { .reply($0.payload) }
            let answer = try await exchange(get("/status.json"), .tcp(try port(of: node)))
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
            let body = Data(answer.components(separatedBy: "\r\n\r\n").dropFirst().joined().utf8)
            let snapshot = try JSONDecoder().decode(NodeSnapshot.self, from: body)
            #expect(snapshot.node == "asked" && snapshot.uptime > 0)
            #expect(snapshot.topics.map(\.topic) == ["echo"] && snapshot.topics[0].server == "asked")
            #expect(snapshot.counters["link.opened"] == 0)
            let names = snapshot.limits.map(\.name)
            #expect(names.contains("connections") && names.contains("subscription-backlog"))
            let keys = try #require(try JSONSerialization.jsonObject(with: body) as? [String: Any]).keys
            #expect(keys.contains("uptime_s"))
        }
    }

    @Test func theMembersAreThoseOfTheDirectory() async throws {
        try await Node.withNode(try configuration(admin: "127.0.0.1:0")) { node in
            let answer = try await exchange(get("/members.json"), .tcp(try port(of: node)))
            let body = Data(answer.components(separatedBy: "\r\n\r\n").dropFirst().joined().utf8)
            let members = try JSONDecoder().decode([MemberSnapshot].self, from: body)
            #expect(members.map(\.node) == ["asked"] && members[0].state == "alive")
        }
    }

    @Test(
        "what is no request for this machine's page is refused",
        arguments: [
            ("GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n", "HTTP/1.1 403 "),
            ("POST /status.json HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 "),
            ("GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 "),
            ("no request at all\r\n\r\n", "HTTP/1.1 400 "),
        ])
    func refusals(request: String, status: String) async throws {
        try await Node.withNode(try configuration(admin: "127.0.0.1:0")) { node in
            let place = Place.tcp(try port(of: node))
            #expect(try await exchange(request, place).hasPrefix(status))
            #expect(try await exchange(get("/status.json"), place).hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test func aUnixSocketIsForItsUserAndGoesWithTheNode() async throws {
        let path = FileManager.default.temporaryDirectory.path + "/castnet-admin-\(getpid()).s"
        defer { unlink(path) }
        try await Node.withNode(try configuration(admin: "unix:\(path)")) { node in
            #expect(node.adminURL == "unix:\(path)")
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            let answer = try await exchange(get("/status.json", host: "localhost"), .unix(path))
            #expect(answer.hasPrefix("HTTP/1.1 200 "))
            // Another node does not take it away.
            let second = try Node(configuration: try configuration(admin: "unix:\(path)"))
            await #expect(throws: CastnetError.self) { try await second.start() }
            #expect(try await exchange(get("/status.json"), .unix(path)).hasPrefix("HTTP/1.1 200 "))
        }
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func itIsForThisMachineOnly() {
        let text = "node: {listen: \"127.0.0.1:0\"}\nadmin: {listen: \"0.0.0.0:7480\"}\n"
        let problems = Configuration.parse(text, file: "open.yaml").problems
        #expect(problems.count == 1 && "\(problems)".contains("admin.listen"), "\(problems)")
    }

    // MARK: A client

    private enum Place {
        case tcp(Int)
        case unix(String)
    }

    /// Sends `request` and collects what comes until the other side closes.
    private func exchange(_ request: String, _ place: Place) async throws -> String {
        let collector = Collector()
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(collector)
                }
            }
        let channel =
            switch place {
            case .tcp(let port): try await bootstrap.connect(host: "127.0.0.1", port: port).get()
            case .unix(let path): try await bootstrap.connect(unixDomainSocketPath: path).get()
            }
        try? await channel.writeAndFlush(ByteBuffer(string: request)).get()
        try? await channel.closeFuture.get()
        return try await channel.eventLoop.submit { String(buffer: collector.bytes) }.get()
    }

    private final class Collector: ChannelInboundHandler, @unchecked Sendable {
        typealias InboundIn = ByteBuffer
        /// Touched on the channel's loop only.
        var bytes = ByteBuffer()

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            bytes.writeImmutableBuffer(unwrapInboundIn(data))
        }
    }
}
