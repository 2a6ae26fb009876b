import CastnetCore
import Foundation

/// Which host and network namespace this process runs in.
enum HostID {
    /// Equal for two processes exactly where a Unix-domain socket's path means the same socket to both: same
    /// boot of the same kernel, same network namespace. 0 where the system does not tell.
    static let current: UInt64 = {
        guard
            let boot = try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8),
            let namespace = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
        else { return 0 }
        return WireDigest(boot + namespace).value
    }()
}
