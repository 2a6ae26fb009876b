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
            let (left, bound, listening) = (
                try boundSocket(in: directory, 3), try boundSocket(in: directory, 4),
                try boundSocket(in: directory, 5)
            )
            close(left.descriptor)
            try #require(listen(listening.descriptor, 4) == 0)
            directory.removeStale(host: own)
            for path in [dead, left.path] { #expect(!FileManager.default.fileExists(atPath: path)) }
            for path in [foreign, bound.path, listening.path] {
                #expect(FileManager.default.fileExists(atPath: path))
            }
            // The living hear nothing of it.
            var waiting = pollfd(fd: listening.descriptor, events: Int16(POLLIN), revents: 0)
            #expect(poll(&waiting, 1, 0) == 0)
            for socket in [bound, listening] { close(socket.descriptor) }
        }
    }

    private func boundSocket(
        in directory: SocketDirectory, _ number: UInt64
    ) throws -> (descriptor: CInt, path: String) {
        let path = directory.socket(
            of: NodeIdentity(name: "socket", incarnation: Incarnation(number)), host: 7)
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafeBytes(of: &address) {
            $0.withMemoryRebound(to: sockaddr.self) {
                bind(descriptor, $0.baseAddress, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
        return (descriptor, path)
    }

    @Test func pathsFitASocketsAddress() {
        let identity = NodeIdentity(name: String(repeating: "n", count: 64), incarnation: Incarnation(.max))
        let path = SocketDirectory.standard.socket(of: identity, host: .max)
        #expect(path.utf8.count <= SocketDirectory.pathMax)
    }
}
