internal import ArgumentParser
internal import Castnet
internal import CastnetLab

/// `castnet lab run`: a command in a private lab that vanishes with it.
struct LabRun: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a command in a private lab of which nothing stays behind, not even after SIGKILL.",
        discussion: """
            The command finds CASTNET_LAB=1 and CASTNET_LAB_HOSTS, a JSON list of the hosts, in its \
            environment, and reaches a host with `castnet lab exec h1 -- …`. The exit code is the command's.
            """
    )

    @OptionGroup var common: CommonOptions

    @Option(help: "How many hosts to make: h1, h2, …")
    var hosts = 4

    @Option(help: .private)
    var lifeline: Int32?

    @Argument(parsing: .postTerminator, help: "The command and its arguments.")
    var command: [String]

    func validate() throws {
        guard !command.isEmpty else { throw ValidationError("a command is missing after --") }
        guard (0...LabOptions.hostsMax).contains(hosts) else {
            throw ValidationError("--hosts \(hosts); allowed are 0 to \(LabOptions.hostsMax)")
        }
    }

    mutating func run() async throws {
        let (hosts, command, lifeline) = (hosts, command, lifeline)
        let exit = try await LabCommand.reporting {
            if let lifeline {
                return try await PrivateLab.runInside(
                    lifeline: lifeline, hostCount: hosts, command: command)
            }
            return try await PrivateLab.run(command, hostCount: hosts)
        }
        throw ExitCode(exit.code)
    }
}
