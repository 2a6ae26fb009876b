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

    /// Removes the sockets of processes of this network that are gone.
    func removeStale(host: UInt64) {
        let prefix = "\(hexadecimal(host))-"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        for name in names where name.hasPrefix(prefix) && name.hasSuffix(".s") {
            if Self.isAbandoned("\(path)/\(name)") { unlink("\(path)/\(name)") }
        }
    }

    /// Whether a dead process left this socket, so that it may go.
    ///
    /// A datagram socket cannot be connected to a stream socket, and the refusal says why: the wrong type
    /// where somebody has it bound, listening or not, and nobody hears of it. The system's list of sockets
    /// is no proof: it is read in pieces, and where others come and go one that stays may be missing.
    static func isAbandoned(_ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count <= pathMax else { return false }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let type = CInt(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
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
}
