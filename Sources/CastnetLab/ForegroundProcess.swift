internal import Glibc

/// A child that shares this process's terminal, standard streams and process group, started with a plain
/// `posix_spawn`: the subprocess library always closes every other descriptor, and the private lab needs one
/// of them to reach the child.
struct ForegroundProcess {
    let pid: pid_t

    /// Starts a program with the environment given and no signal blocked or ignored.
    ///
    /// Descriptors without the close-on-exec flag are inherited.
    static func start(
        _ path: String, _ arguments: [String], environment: [String: String], blocking: [Int32] = []
    ) throws -> ForegroundProcess {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = sigset_t()
        sigemptyset(&mask)
        for signal in blocking { sigaddset(&mask, signal) }
        posix_spawnattr_setsigmask(&attributes, &mask)
        var defaults = sigset_t()
        sigemptyset(&defaults)
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE] { sigaddset(&defaults, signal) }
        posix_spawnattr_setsigdefault(&attributes, &defaults)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        let words = ([path] + arguments).map { strdup($0) }
        let values = environment.map { strdup("\($0.key)=\($0.value)") }
        defer { for string in words + values { free(string) } }
        var pid: pid_t = 0
        let code = posix_spawnp(&pid, path, nil, &attributes, words + [nil], values + [nil])
        guard code == 0 else {
            throw LabError.toolFailed(
                command: ([path] + arguments).joined(separator: " "), status: "did not start",
                stderr: String(cString: strerror(code)))
        }
        return ForegroundProcess(pid: pid)
    }

    /// Blocks the calling thread until this child ends; other children that end meanwhile are reaped too when
    /// `reapingAll`, which the first process of a pid namespace must do.
    func wait(reapingAll: Bool = false) -> LabExit {
        var status: Int32 = 0
        while true {
            let ended = waitpid(reapingAll ? -1 : pid, &status, 0)
            if ended == pid { return LabExit(waitStatus: status) }
            // ECHILD cannot happen before our own child was seen, unless somebody else took it.
            if ended == -1, errno != EINTR { return .exited(70) }
        }
    }
}
