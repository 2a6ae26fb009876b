internal import ArgumentParser
internal import Castnet
internal import Logging

/// The options every command takes, before or after its name. The root and each subcommand hold one as an
/// option group; the parser then shares the values.
struct CommonOptions: ParsableArguments {
    @Flag(help: "Print one JSON object a line on standard output and nothing else there.")
    var json = false

    @Option(help: "Log at this level and above, on standard error.")
    var logLevel: LogLevel?

    @Flag(help: "Print the versions of castnet, its wire format and libpgm, and what the kernel offers.")
    var version = false

    mutating func validate() throws {
        guard version else { return }
        let report = VersionReport()
        throw CleanExit.message(json ? try JSONLine.text(report) : report.description)
    }

    /// Sends logs to standard error at the asked level; `fallback` is the configuration's `admin.log.level`.
    /// Called once, before anything logs.
    func startLogging(fallback: String? = nil) {
        let level = logLevel?.level ?? fallback.flatMap { Logger.Level(rawValue: $0) } ?? .info
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = level
            return handler
        }
    }
}

/// A log level as an argument.
struct LogLevel: ExpressibleByArgument {
    let level: Logger.Level

    init?(argument: String) {
        guard let level = Logger.Level(rawValue: argument) else { return nil }
        self.level = level
    }

    static var allValueStrings: [String] { Logger.Level.allCases.map(\.rawValue) }
}
