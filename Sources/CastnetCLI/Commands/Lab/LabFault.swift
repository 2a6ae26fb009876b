internal import ArgumentParser
internal import Castnet
internal import CastnetLab

/// `castnet lab fault`: a fault on one host's link, for a while or until cleared.
struct LabFault: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fault",
        abstract: "Put a fault on a host's link.",
        discussion: """
            Faults: \(Fault.grammar).
            `link up` undoes `link down`; `clear` takes every fault off. With --for the command waits, then \
            takes the fault off again, also when it is interrupted meanwhile.
            """
    )

    @OptionGroup var common: CommonOptions
    @OptionGroup var selection: LabSelection

    @Argument(help: "The host, h1 for example.")
    var host: String

    @Argument(help: "The fault and its values, `drop 5% udp` for example.")
    var words: [String]

    @Option(name: .customLong("for"), help: "Take the fault off again after this time, 10s for example.")
    var duration: TimeArgument?

    mutating func run() async throws {
        let (prefix, name, words, duration) = (selection.prefix, host, words, duration)
        try await LabCommand.reporting {
            let host = try await Lab.attach(prefix: prefix).host(name)
            switch words {
            case ["clear"]: try await host.clearFaults()
            case ["link", "up"]: try await host.clear(.linkDown)
            default:
                let fault = try Fault(words: words)
                guard let duration else { return _ = try await host.apply(fault) }
                try await Self.hold(fault, on: host, for: duration.duration)
            }
        }
    }

    /// Keeps the fault for its time, or until a signal asks this command to stop.
    private static func hold(_ fault: Fault, on host: LabHost, for duration: Duration) async throws {
        let stop = StopSignals()
        let applied = try await host.apply(fault)
        let number = await stop.first(within: duration)
        try await host.clear(applied)
        if let number { throw ExitCode(128 + number) }
    }
}
