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
        guard !own.isEmpty, let living = Self.living else { return }
        for path in own where !living.contains(path) { unlink(path) }
    }

    /// The paths of the sockets of this network that somebody has bound; nil: the system does not tell.
    static var living: Set<String>? {
        guard let table = try? String(contentsOfFile: "/proc/net/unix", encoding: .utf8) else { return nil }
        return Set(table.split(separator: "\n").compactMap { $0.split(separator: " ").last.map(String.init) })
    }
}
