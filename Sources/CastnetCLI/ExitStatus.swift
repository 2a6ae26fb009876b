internal import ArgumentParser
internal import Castnet

/// How the command ends; the numbers are part of its contract.
enum ExitStatus: Int32, Error {
    /// Everything asked for was done.
    case done = 0
    /// Done, but not everything was delivered or healthy.
    case incomplete = 1
    /// The command line is wrong.
    case usage = 64
    /// The configuration or the input is wrong.
    case input = 65
    /// Somebody or something cannot be reached.
    case unreachable = 69
    /// A fault of our own.
    case internalError = 70

    /// What the argument parser ends the process with: `throw ExitStatus.incomplete.code`.
    var code: ExitCode { ExitCode(rawValue) }

    /// The status that fits an error of the library.
    init(for error: CastnetError) {
        switch error.code {
        case .invalidConfiguration, .invalidTopic, .tooLarge: self = .input
        case .invalidArgument: self = .usage
        case .unreachable, .unroutable, .expired, .multicastUnavailable: self = .unreachable
        case .rejected, .released, .lost: self = .incomplete
        default: self = .internalError
        }
    }
}
