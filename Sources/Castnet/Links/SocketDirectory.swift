import CastnetCore
import Foundation

/// Where the nodes of one user on one host have their Unix-domain sockets: a directory that nobody else may
/// enter.
///
/// A socket's name says which network it belongs to (``HostID``), so that nodes in several network namespaces
/// share a directory and each only cleans up behind its own kind.
struct SocketDirectory {
    let path: String

    /// The longest path that a socket's address holds.
    static let pathMax = 107

    /// The user's own runtime directory where the system has one, otherwise a directory in the temporary one.
    static var standard: SocketDirectory {
        let environment = ProcessInfo.processInfo.environment
        let name = "castnet-\(geteuid())"
        let parents = [environment["XDG_RUNTIME_DIR"], environment["TMPDIR"]].compactMap { $0 }
        // A socket's name has 35 bytes.
        let fitting = parents.first {
            $0.hasPrefix("/") && $0.utf8.count + name.utf8.count + 38 <= pathMax && isDirectory($0)
        }
        return SocketDirectory(path: "\(fitting ?? "/tmp")/\(name)")
    }

    private static func isDirectory(_ path: String) -> Bool {
        var facts = stat()
        return stat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
    }

    /// Makes the directory, or makes sure that it is this user's alone.
    func prepare() throws {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw problem(String(cString: strerror(errno))) }
        var facts = stat()
        guard lstat(path, &facts) == 0 else { throw problem(String(cString: strerror(errno))) }
        guard facts.st_mode & S_IFMT == S_IFDIR else { throw problem("is no directory") }
        guard facts.st_uid == geteuid() else { throw problem("belongs to user \(facts.st_uid)") }
        if facts.st_mode & 0o077 != 0, chmod(path, 0o700) != 0 {
            throw problem("is open to others: \(String(cString: strerror(errno)))")
        }
    }

    private func problem(_ why: String) -> CastnetError { CastnetError(.unreachable, "\(path): \(why)") }

    /// The place of a node's socket.
    func socket(of identity: NodeIdentity, host: UInt64) -> String {
        "\(path)/\(hexadecimal(host))-\(hexadecimal(identity.incarnation.value)).s"
    }

    /// Removes the sockets of processes of this network that are gone. The list of living sockets is read
    /// after the directory: one that was made meanwhile is in it.
    func removeStale(host: UInt64) {
        let prefix = "\(hexadecimal(host))-"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        let own = names.filter { $0.hasPrefix(prefix) && $0.hasSuffix(".s") }.map { "\(path)/\($0)" }
        guard !own.isEmpty, let bound = Self.bound else { return }
        for path in own where Self.isAbandoned(path, bound: bound) { unlink(path) }
    }

    /// Whether a dead process left this socket, so that it may go.
    static func isAbandoned(_ path: String) -> Bool {
        guard let bound else { return false }
        return isAbandoned(path, bound: bound)
    }

    /// The list alone does not do: it is read in pieces, and where sockets come and go meanwhile one that
    /// stays may be missing. Nor does the refusal: a socket that does not listen yet refuses, too.
    private static func isAbandoned(_ path: String, bound: Set<String>) -> Bool {
        !bound.contains(path) && refuses(path)
    }

    /// Whether nobody listens behind the path, which a connection that is tried tells.
    private static func refuses(_ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count <= pathMax else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // Non-blocking: a listener with a full backlog lives.
        let type = CInt(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = Glibc.socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        let result = withUnsafeBytes(of: &address) {
            $0.withMemoryRebound(to: sockaddr.self) {
                connect(descriptor, $0.baseAddress, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return result != 0 && errno == ECONNREFUSED
    }

    /// The paths of the sockets of this network that somebody has bound; nil: the system does not tell.
    private static var bound: Set<String>? {
        guard let table = try? String(contentsOfFile: "/proc/net/unix", encoding: .utf8) else { return nil }
        return Set(table.split(separator: "\n").compactMap { $0.split(separator: " ").last.map(String.init) })
    }
}
