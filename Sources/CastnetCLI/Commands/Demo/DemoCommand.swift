internal import ArgumentParser
internal import Castnet
internal import CastnetLab
internal import Foundation

/// `castnet demo`: the main job on a local bridge, all three carriers between real hosts.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Run the main job on a local bridge: every carrier, a verdict per step.",
        discussion: "It lives in a private lab: nothing stays behind, not even after SIGKILL.")

    @OptionGroup var common: CommonOptions

    @Flag(help: "Keep the hosts and files up after the last step, until Ctrl-C.")
    var keep = false

    mutating func run() async throws {
        let (json, keep) = (common.json, keep)
        guard PrivateLab.isInside else {
            let command =
                [PrivateLab.ownExecutable, "demo"] + (json ? ["--json"] : []) + (keep ? ["--keep"] : [])
            let exit = try await LabCommand.reporting {
                try await PrivateLab.run(command, hostCount: 0)
            }
            throw ExitCode(exit.code)
        }
        let failed = try await LabCommand.reporting {
            let agents = (1...6).map { "agent\($0)" }
            let computes = (1...10).map { "compute\($0)" }
            let options = LabOptions(hosts: ["api", "scheduler"] + agents + computes)
            return try await Lab.with(options) { lab in
                let demo = try Demo(lab: lab, agents: agents, computes: computes, json: json)
                defer { if !keep { demo.removeFiles() } }
                let failed = try await demo.run()
                if keep {
                    Diagnostics.print("hosts \(lab.prefix)-…, files in \(demo.folder): Ctrl-C ends the demo")
                    _ = await StopSignals().first(within: .seconds(86_400))
                }
                return failed
            }
        }
        if failed > 0 { throw ExitStatus.incomplete.code }
    }
}
