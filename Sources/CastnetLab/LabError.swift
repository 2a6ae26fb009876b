/// What went wrong while building, changing or using a lab; always names the command or the value at fault.
package enum LabError: Error, Sendable, CustomStringConvertible {
    /// This machine or this user cannot have a lab.
    case unavailable(String)
    /// A tool ran and failed.
    case toolFailed(command: String, status: String, stderr: String)
    /// A tool is not installed.
    case toolMissing(String)
    /// A caller's value is out of range; the text says what is allowed.
    case invalid(String)
    /// There is no such lab or host.
    case notFound(String)
    /// Something did not happen in time.
    case timedOut(String)

    package var description: String {
        switch self {
        case .unavailable(let why): "no lab here: \(why)"
        case .toolFailed(let command, let status, let stderr):
            "`\(command)` \(status)" + (stderr.isEmpty ? "" : ": \(stderr)")
        case .toolMissing(let name):
            "`\(name)` is not installed (Debian: iproute2, nftables, ethtool, util-linux)"
        case .invalid(let text), .notFound(let text), .timedOut(let text): text
        }
    }
}
