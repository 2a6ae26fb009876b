internal import ArgumentParser
internal import Castnet

/// The `castnet` command. Each subcommand lives in a file of its own; names, exit codes and JSON keys are a
/// contract with operators' scripts.
@main
struct CastnetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "castnet",
        abstract: "A brokerless messaging transport: one policy table, three carriers.",
        subcommands: [
            CheckCommand.self,
            ExplainCommand.self,
            BenchCommand.self,
            DemoCommand.self,
            LabCommand.self,
            ServeCommand.self,
            SendCommand.self,
            MembersCommand.self,
            StatusCommand.self,
            TopCommand.self,
        ]
    )

    @OptionGroup var common: CommonOptions

    mutating func run() async throws {
        throw CleanExit.helpRequest(self)
    }

    static func main() async {
        ProcessHeap.keepFreedMemory()
        do {
            var command = try await asyncParseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            exit(withAny: error)
        }
    }

    /// Ends the process: our own errors with the code the contract gives them, the parser's as it says.
    private static func exit(withAny error: any Error) -> Never {
        if let error = error as? CastnetError {
            Diagnostics.print("error: \(error.message)\(error.underlying.map { ": \($0)" } ?? "")")
            exit(withError: ExitStatus(for: error).code)
        }
        // The parser maps errors it does not know to 1, which here means "done, but not everything
        // delivered".
        if exitCode(for: error) == .failure, !(error is ExitCode) {
            Diagnostics.print("error: \(error)")
            exit(withError: ExitStatus.internalError.code)
        }
        exit(withError: error)
    }
}
