internal import Dispatch
internal import FoundationEssentials
internal import Glibc
internal import Synchronization

/// A lab in namespaces nobody else sees: mounts, network and processes, as root or, where the kernel lets
/// anybody make user namespaces, as anybody.
///
/// The kernel takes such a lab away with its last process, so nothing is left behind after any end, SIGKILL
/// included. Two stages run: the outer one, in the caller's own process, starts `unshare`, and the inner one
/// is the same executable as process 1 of the new pid namespace. They share a pipe, the lifeline: the outer
/// stage writes the signals to hand on, and its end, however it comes, closes the pipe, upon which the inner
/// stage exits and the kernel kills the rest. See docs/decisions/0001-one-lab-in-private-namespaces.md.
package enum PrivateLab {
    /// Set to 1 inside.
    package static let environmentKey = "CASTNET_LAB"
    /// Holds the hosts inside, as JSON.
    package static let hostsEnvironmentKey = "CASTNET_LAB_HOSTS"
    /// The prefix of the hosts made for `castnet lab run --hosts N`.
    package static let prefix = "castnet"

    /// Names the tmpfs on /run, which tells a private lab from an inherited environment variable.
    private static let runSource = "castnet-lab"

    // MARK: Asking

    /// True inside a private lab: the environment says so and /run is the lab's own.
    package static let isInside: Bool = {
        guard getenv(environmentKey).map({ String(cString: $0) }) == "1",
            let mounts = try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
        else { return false }
        return mounts.split(separator: "\n").contains { line in
            let fields = line.split(separator: " ")
            guard fields.count > 4, fields[4] == "/run",
                let dash = fields.firstIndex(of: "-"), fields.indices.contains(dash + 2)
            else { return false }
            return fields[dash + 2] == runSource
        }
    }()

    /// Why lab tests are skipped outside.
    package static let outsideReason =
        "needs a private lab: run `castnet lab run --hosts 0 -- swift test --skip-build`"

    /// Whether this user on this machine can have a private lab; tries it with a program that does nothing.
    package static func availability() async -> LabAvailability {
        do {
            _ = try await unshareArguments()
            return .available
        } catch {
            return .unavailable("\(error)")
        }
    }

    /// The way this kernel lets this user in: as root directly, otherwise through a user namespace.
    private static func unshareArguments() async throws -> [String] {
        for tool in ["unshare", "mount", "ip", "nft", "tc", "ethtool"] where Tool.path(of: tool) == nil {
            throw LabError.toolMissing(tool)
        }
        let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        var ways = [["--user", "--map-root-user"] + namespaces]
        if geteuid() == 0 { ways.insert(namespaces, at: 0) }
        var refusal = ""
        for way in ways {
            let attempt = try await Tool.capture("unshare", way + ["true"])
            if attempt.exit == .exited(0) { return way }
            refusal = attempt.stderr.trimmed
        }
        throw LabError.unavailable(
            "this kernel refuses namespaces to this user (\(refusal)); run as root")
    }

    // MARK: The outer stage

    /// Runs a command in a private lab with `hostCount` hosts and returns how it ended.
    ///
    /// Blocks the calling thread meanwhile and answers SIGINT, SIGTERM, SIGHUP and SIGQUIT for the whole
    /// process: they go to the command. `executable` must be a program that hands `lab run --lifeline …` to
    /// ``runInside(lifeline:hostCount:command:)``, which is the `castnet` command.
    package static func run(
        _ command: [String], hostCount: Int, executable: String = ownExecutable
    ) async throws -> LabExit {
        let way = try await unshareArguments()
        guard let unshare = Tool.path(of: "unshare") else { throw LabError.toolMissing("unshare") }

        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            throw LabError.unavailable("no pipe: \(String(cString: strerror(errno)))")
        }
        let (readEnd, writeEnd) = (ends[0], ends[1])
        // Only this process may hold the writing end: the pipe must close with it.
        _ = fcntl(writeEnd, F_SETFD, FD_CLOEXEC)
        let inner = ["lab", "run", "--lifeline", "\(readEnd)", "--hosts", "\(hostCount)", "--"] + command
        // `unshare` must outlive a Ctrl-C, which the terminal sends to every process of the group.
        let child = try ForegroundProcess.start(
            unshare, way + ["--", executable] + inner, environment: ownEnvironment, blocking: passedOn)
        close(readEnd)
        passSignals(to: writeEnd)
        return child.wait()
    }

    /// Signals that end a command and are handed on to the one in the lab.
    private static let passedOn = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

    /// Writes each signal that came from a process, not from the terminal, to the lifeline: the terminal's
    /// own signals have reached the command already, and twice Ctrl-C often means "now, not cleanly".
    private static func passSignals(to descriptor: Int32) {
        lifeline.store(descriptor, ordering: .sequentiallyConsistent)
        var action = sigaction()
        action.sa_flags = SA_SIGINFO | SA_RESTART
        action.__sigaction_handler.sa_sigaction = { number, info, _ in
            guard let info, info.pointee.si_code <= 0 else { return }
            var byte = UInt8(truncatingIfNeeded: number)
            _ = write(PrivateLab.lifeline.load(ordering: .relaxed), &byte, 1)
        }
        for number in passedOn { sigaction(number, &action, nil) }
    }

    /// Written before the handlers are installed, then only read, by handlers.
    private static let lifeline = Atomic<Int32>(-1)

    /// This executable's path.
    package static var ownExecutable: String {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
            ?? CommandLine.arguments[0]
    }

    private static var ownEnvironment: [String: String] { ProcessInfo.processInfo.environment }

    // MARK: The inner stage

    /// The inside of a private lab, as process 1: furnishes it, makes the hosts, runs the command and returns
    /// how it ended. The caller exits with that at once, which ends every process still in the lab.
    package static func runInside(
        lifeline: Int32, hostCount: Int, command: [String]
    ) async throws -> LabExit {
        guard getpid() == 1, let program = command.first else {
            throw LabError.invalid("--lifeline is for the inside of a private lab")
        }
        _ = fcntl(lifeline, F_SETFD, FD_CLOEXEC)
        DispatchQueue(label: "castnet.lab.lifeline").async { hold(lifeline) }
        try await furnish()
        // Without hosts there is no bridge either, and the command may make a lab of its own.
        let options = LabOptions(hostCount: hostCount, prefix: prefix)
        let hosts = hostCount == 0 ? [] : try await Lab.up(options).hosts

        var environment = ownEnvironment
        environment[environmentKey] = "1"
        environment[hostsEnvironmentKey] = try hosts.json()
        child.store(beingStarted, ordering: .sequentiallyConsistent)
        let process = try ForegroundProcess.start(
            program, Array(command.dropFirst()), environment: environment)
        child.store(process.pid, ordering: .sequentiallyConsistent)
        return process.wait(reapingAll: true)
    }

    /// The command's process once it runs; 0: not yet.
    private static let child = Atomic<Int32>(0)
    private static let beingStarted: Int32 = -1

    /// Hands on the signals that come down the lifeline; ends this process, and with it the lab, with the
    /// lifeline, or for a signal that comes before the command runs.
    private static func hold(_ lifeline: Int32) {
        var number: UInt8 = 0
        while true {
            let count = read(lifeline, &number, 1)
            if count == -1, errno == EINTR { continue }
            var pid = child.load(ordering: .sequentiallyConsistent)
            // The command may run, and be heard of, before its number is known here.
            while count == 1, pid == beingStarted {
                usleep(100)
                pid = child.load(ordering: .sequentiallyConsistent)
            }
            guard count == 1, pid > 0 else { _exit(count == 1 ? 128 + Int32(number) : 137) }
            kill(pid, Int32(number))
        }
    }

    /// Gives the lab its own /run, so that namespace names and lock files are not the machine's, and its own
    /// view of the network devices.
    private static func furnish() async throws {
        try await Tool.run("mount", ["-t", "tmpfs", "-o", "mode=755", runSource, "/run"])
        for directory in ["/run/lock", "/run/netns"] {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        }
        try await Tool.run("mount", ["-t", "sysfs", runSource, "/sys"])
        // Multicast over loopback works here as it does between hosts.
        let batch = "link set lo multicast on up\nroute add \(Lab.multicastRoute) dev lo\n"
        try await Tool.run("ip", ["-batch", "-"], input: batch)
    }
}

extension [LabHost] {
    /// What `CASTNET_LAB_HOSTS` holds: a list of objects with the keys of `castnet lab up --json`.
    package func json() throws -> String {
        let rows = map {
            ["host": $0.name, "netns": $0.netns, "interface": $0.interface, "address": $0.address]
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        return String(decoding: try encoder.encode(rows), as: UTF8.self)
    }
}
