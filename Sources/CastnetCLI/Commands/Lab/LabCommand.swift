internal import ArgumentParser
internal import Castnet
internal import CastnetLab

/// `castnet lab`: hosts on a local bridge.
struct LabCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab",
        abstract: "Hosts on a local bridge: network namespaces with faults on demand.",
        subcommands: [
            LabRun.self, LabUp.self, LabExec.self, LabFault.self, LabStatus.self, LabDown.self,
        ]
    )

    @OptionGroup var common: CommonOptions

    mutating func run() async throws {
        throw CleanExit.helpRequest(self)
    }

    /// Runs a step of the lab and turns its errors into the command's own, with their exit codes.
    static func reporting<Result>(_ body: () async throws -> Result) async throws -> Result {
        do {
            return try await body()
        } catch let error as LabError {
            throw CastnetError(error.code, error.description)
        }
    }
}

/// Which lab; two of them can be up side by side under different prefixes.
struct LabSelection: ParsableArguments {
    @Option(help: "Begins the names of the lab's namespaces.")
    var prefix = PrivateLab.prefix
}

extension LabError {
    fileprivate var code: CastnetError.Code {
        switch self {
        case .unavailable, .toolMissing, .notFound, .timedOut: .unreachable
        case .invalid: .invalidArgument
        case .toolFailed: .unreachable
        }
    }
}

/// A host as `lab up` and `lab status` print it.
struct LabHostRow: Encodable {
    let host: String
    let netns: String
    let interface: String
    let address: String

    init(_ host: LabHost) {
        self.host = host.name
        netns = host.netns
        interface = host.interface
        address = host.address
    }
}
