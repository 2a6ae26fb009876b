internal import Glibc
internal import Subprocess
internal import SystemPackage

/// A system program the lab drives: `ip`, `nft`, `tc`, `ethtool`, `mount`, `unshare`.
enum Tool {
    /// Where administrators' programs live; an ordinary user's PATH often lacks them.
    private static let systemDirectories = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"]

    /// Output kept from one call; a listing of a full lab stays far below.
    private static let outputBytesMax = 4 << 20

    /// The absolute path of an executable, or nil where it is not installed.
    static func path(of name: String) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        let path = getenv("PATH").map { String(cString: $0) } ?? ""
        return (path.split(separator: ":").map(String.init) + systemDirectories)
            .map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    /// Runs a program to its end and returns what it printed; failure is an error that quotes its stderr.
    ///
    /// A signal to this process's group, a Ctrl-C for instance, does not reach the program: changes to the
    /// lab are made whole, and those that undo a fault run just after such a signal.
    @discardableResult
    static func run(_ name: String, _ arguments: [String], input: String = "") async throws -> String {
        let output = try await capture(name, arguments, input: input, ownGroup: true)
        guard output.exit == .exited(0) else {
            throw LabError.toolFailed(
                command: ([name] + arguments).joined(separator: " "), status: output.exit.description,
                stderr: blamed(output.stderr, input: input))
        }
        return output.stdout
    }

    /// Runs a program to its end, whatever its exit code.
    static func capture(
        _ name: String, _ arguments: [String], input: String = "", environment: [String: String] = [:],
        ownGroup: Bool = false
    ) async throws -> LabOutput {
        guard let path = path(of: name) else { throw LabError.toolMissing(name) }
        var options = PlatformOptions()
        if ownGroup { options.processGroupID = 0 }
        let result = try await Subprocess.run(
            .path(FilePath(path)), arguments: Arguments(arguments), environment: .inheriting(environment),
            platformOptions: options, input: .string(input), output: .string(limit: outputBytesMax),
            error: .string(limit: outputBytesMax))
        return LabOutput(
            stdout: result.standardOutput, stderr: result.standardError,
            exit: LabExit(result.terminationStatus))
    }

    /// `ip -batch` names only a line number; put the line itself beside it.
    private static func blamed(_ stderr: String, input: String) -> String {
        let text = stderr.trimmed
        guard let mark = text.range(ofLast: "Command failed -:"),
            let number = Int(text[mark...].prefix(while: \.isNumber))
        else { return text }
        let lines = input.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.indices.contains(number - 1) else { return text }
        return "\(text) (\(lines[number - 1]))"
    }
}

/// What a finished program printed and how it ended.
package struct LabOutput: Sendable {
    package let stdout: String
    package let stderr: String
    package let exit: LabExit
}

/// How a program ended.
package enum LabExit: Sendable, Hashable, CustomStringConvertible {
    case exited(Int32)
    case killed(signal: Int32)

    init(_ status: TerminationStatus) {
        switch status {
        case .exited(let code): self = .exited(code)
        case .signaled(let signal): self = .killed(signal: signal)
        }
    }

    /// Reads what `waitpid` wrote.
    init(waitStatus: Int32) {
        let signal = waitStatus & 0x7f
        self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .killed(signal: signal)
    }

    /// The code a shell would show: 128 + signal for a killed program.
    package var code: Int32 {
        switch self {
        case .exited(let code): code
        case .killed(let signal): 128 + signal
        }
    }

    package var description: String {
        switch self {
        case .exited(let code): "ended with \(code)"
        case .killed(let signal): "was killed by signal \(signal)"
        }
    }
}

extension Environment {
    /// This process's environment with a few values set.
    static func inheriting(_ values: [String: String]) -> Environment {
        var updates: [Environment.Key: String?] = [:]
        for (key, value) in values { updates[.init(stringLiteral: key)] = value }
        return .inherit.updating(updates)
    }
}

extension String {
    /// Without white space at both ends.
    var trimmed: String {
        let start = drop(while: \.isWhitespace)
        guard let last = start.lastIndex(where: { !$0.isWhitespace }) else { return "" }
        return String(start[...last])
    }

    /// The place just after the last occurrence of `text`.
    func range(ofLast text: String) -> String.Index? {
        var found: String.Index?
        var rest = startIndex
        while let range = self[rest...].firstRange(of: text) {
            found = range.upperBound
            rest = range.upperBound
        }
        return found
    }
}
