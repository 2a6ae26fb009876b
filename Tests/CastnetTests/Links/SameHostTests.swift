import CastnetCore
import Foundation
import NIOCore
import Testing

@testable import Castnet

/// Nodes of one host reach each other over Unix-domain sockets, as far as both want that.
@Suite(.serialized, .timeLimit(.minutes(1))) struct SameHostTests {
    private func configuration(_ name: String, unix: String = "auto") throws -> Configuration {
        let text = """
            node: {name: \(name), listen: "127.0.0.1:0", interface: lo, cluster: same-host, unix: \(unix)}
            directory: {beacon: {group: 239.192.0.1, port: 18140}}
            policies: [{match: "**", carrier: persistent}]
            """
        let report = Configuration.parse(text, file: "same-host.yaml")
        #expect(report.problems.isEmpty, "\(report.problems)")
        return try #require(report.configuration)
    }

    @Test(
        "a link is a Unix-domain socket where both sides have one",
        arguments: [("auto", "auto", "unix"), ("off", "auto", "127.0.0.1"), ("auto", "off", "127.0.0.1")])
    func carrier(server: String, client: String, address: String) async throws {
        let topic = try Topic("echo")
        try await Node.withNode(try configuration("server", unix: server)) { node in
            try await node.serve(topic) { .reply($0.payload) }
            try await Node.withNode(try configuration("client", unix: client)) { client in
                let reply = try await client.call(topic, ByteBuffer(string: "ping"))
                #expect(reply.payload == ByteBuffer(string: "ping"))
                #expect(try await client.snapshot().links.map(\.address) == [address])
                #expect(try await node.snapshot().links.map(\.address) == [address])
            }
        }
    }

    @Test func aSocketThatIsGoneIsNoObstacle() async throws {
        let topic = try Topic("echo")
        try await Node.withNode(try configuration("server")) { server in
            try await server.serve(topic) { .reply($0.payload) }
            let path = try #require(try await server.loop.submit { server.shell.unicast.unixPath }.get())
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
            #expect(mode == 0o600)
            #expect(unlink(path) == 0)
            try await Node.withNode(try configuration("client")) { client in
                let reply = try await client.call(topic, ByteBuffer())
                #expect(reply.carrier == .persistent)
                let links = try await client.snapshot().links
                #expect(links.map(\.address) == ["127.0.0.1"])
            }
        }
    }

    // MARK: The directory

    private func withDirectory(_ body: (SocketDirectory) throws -> Void) throws {
        let path = FileManager.default.temporaryDirectory.path + "/castnet-sockets-\(getpid())"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try body(SocketDirectory(path: path))
    }

    @Test func theDirectoryIsItsUsersAlone() throws {
        try withDirectory { directory in
            try FileManager.default.createDirectory(
                atPath: directory.path, withIntermediateDirectories: false,
                attributes: [.posixPermissions: 0o777])
            try directory.prepare()
            let mode = try FileManager.default.attributesOfItem(atPath: directory.path)[.posixPermissions]
            #expect(mode as? Int == 0o700)
        }
        try withDirectory { directory in
            try Data().write(to: URL(fileURLWithPath: directory.path))
            #expect(throws: CastnetError.self) { try directory.prepare() }
        }
        try withDirectory { directory in
            try FileManager.default.createSymbolicLink(atPath: directory.path, withDestinationPath: "/tmp")
            #expect(throws: CastnetError.self) { try directory.prepare() }
        }
    }

    @Test func whatTheDeadLeftIsRemovedAndTheLivingStay() throws {
        try withDirectory { directory in
            try directory.prepare()
            let (own, other) = (UInt64(7), UInt64(8))
            let dead = directory.socket(
                of: NodeIdentity(name: "dead", incarnation: Incarnation(1)), host: own)
            let foreign = directory.socket(
                of: NodeIdentity(name: "elsewhere", incarnation: Incarnation(2)), host: other)
            for path in [dead, foreign] { try Data().write(to: URL(fileURLWithPath: path)) }
            directory.removeStale(host: own)
            #expect(!FileManager.default.fileExists(atPath: dead))
            #expect(FileManager.default.fileExists(atPath: foreign))
        }
    }

    @Test func pathsFitASocketsAddress() {
        let identity = NodeIdentity(name: String(repeating: "n", count: 64), incarnation: Incarnation(.max))
        let path = SocketDirectory.standard.socket(of: identity, host: .max)
        #expect(path.utf8.count <= SocketDirectory.pathMax)
    }
}
