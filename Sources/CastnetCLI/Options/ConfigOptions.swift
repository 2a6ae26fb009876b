internal import ArgumentParser
internal import Castnet

/// CONFIG and what overrides it: shared by every command that takes a configuration.
struct ConfigOptions: ParsableArguments {
    @Argument(help: ArgumentHelp("A YAML file.", valueName: "config"))
    var config: String

    @OptionGroup var overrides: OverrideOptions

    /// The configuration; when something is wrong, prints every problem and ends with status 65.
    func configuration(json: Bool) throws -> Configuration {
        try overrides.configuration(of: config, json: json)
    }

    /// All that is right or wrong with the configuration.
    func report() -> ConfigurationReport { overrides.report(of: config) }
}

/// `--name --listen --interface --set`: one file serves a fleet.
struct OverrideOptions: ParsableArguments {
    @Option(help: "The node's name, instead of node.name.")
    var name: String?

    @Option(help: "The address to listen on, instead of node.listen.")
    var listen: String?

    @Option(help: "The interface for multicast, instead of node.interface.")
    var interface: String?

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("A value for any key, as channels.agents.rate=10MB/s.", valueName: "key=value"))
    var assignments: [String] = []

    mutating func validate() throws {
        for assignment in assignments where ConfigurationOverride.set(assignment) == nil {
            throw ValidationError("--set \(assignment): expected key=value")
        }
    }

    /// In the order in which they count: a later one replaces an earlier one.
    var overrides: [ConfigurationOverride] {
        let short: [ConfigurationOverride?] = [
            name.map { .name($0) }, listen.map { .listen($0) }, interface.map { .interface($0) },
        ]
        return (short + assignments.map { .set($0) }).compactMap { $0 }
    }

    /// The configuration of the file at `path`; when something is wrong, prints every problem and ends with
    /// status 65.
    ///
    /// With `json` each problem is a JSON line on standard output, else a line of text on standard error.
    func configuration(of path: String, json: Bool) throws -> Configuration {
        let report = report(of: path)
        if let configuration = report.configuration {
            for warning in report.warnings { Diagnostics.print("warning: \(warning)") }
            return configuration
        }
        for problem in report.problems {
            if json { try JSONLine.print(ProblemLine(problem)) } else { Diagnostics.print("\(problem)") }
        }
        throw ExitStatus.input.code
    }

    /// All that is right or wrong with the file at `path` under these overrides.
    func report(of path: String) -> ConfigurationReport {
        Configuration.read(path: path, overrides: overrides)
    }
}

/// A configuration problem as a JSON line.
struct ProblemLine: Encodable {
    var file: String
    var line: Int
    var column: Int
    var key: String
    var found: String
    var allowed: String

    init(_ problem: ConfigurationProblem) {
        file = problem.file
        line = problem.line
        column = problem.column
        key = problem.key
        found = problem.found
        allowed = problem.allowed
    }
}
