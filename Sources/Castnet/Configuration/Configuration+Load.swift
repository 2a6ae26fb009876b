public import CastnetCore
internal import Foundation

extension Configuration {
    /// Reads the file at `path`, with `overrides` on top and `${NAME}` from `environment`
    /// (nil: the process's own).
    ///
    /// Throws a ``CastnetError`` with code `invalidConfiguration`; its message has one line for each problem.
    public static func load(
        path: String, overrides: [ConfigurationOverride] = [],
        environment: [String: String]? = nil
    ) throws -> Configuration {
        let report = read(path: path, overrides: overrides, environment: environment)
        if let configuration = report.configuration { return configuration }
        let lines = report.problems.map(\.description).joined(separator: "\n")
        throw CastnetError(.invalidConfiguration, lines)
    }

    /// Reads the file at `path` and reports all that is wrong with it, unreadable files included.
    public static func read(
        path: String, overrides: [ConfigurationOverride] = [],
        environment: [String: String]? = nil
    ) -> ConfigurationReport {
        do throws(ConfigurationFault) {
            let text = try text(ofFile: path)
            return parse(
                text, file: path, overrides: overrides,
                environment: environment ?? ProcessInfo.processInfo.environment)
        } catch {
            let problem = ConfigurationProblem(
                file: path, line: error.line, column: error.column, key: "", found: error.found,
                allowed: error.allowed)
            return ConfigurationReport(configuration: nil, problems: [problem], warnings: [])
        }
    }

    /// Parses the text of a configuration file called `file`: all problems in one go.
    public static func parse(
        _ text: String, file: String, overrides: [ConfigurationOverride] = [],
        environment: [String: String] = [:]
    ) -> ConfigurationReport {
        let log = ProblemLog(file: file, line: 1)
        var tree: SourceTree
        switch YAMLReader(file: file, environment: environment, log: log).tree(of: text) {
        case .success(let parsed): tree = parsed
        case .failure(let problem):
            return ConfigurationReport(configuration: nil, problems: [problem], warnings: [])
        }
        if case .nothing = tree.content { tree.content = .map([]) }
        for (index, override) in overrides.enumerated() { tree.apply(override, rank: index + 1, log: log) }

        var configuration: Configuration?
        if let reader = ConfigurationReader(tree, log: log) {
            let parsed = reader.configuration()
            ConfigurationCheck(configuration: parsed, log: log).run()
            configuration = log.problems.isEmpty ? parsed : nil
        }
        return ConfigurationReport(
            configuration: configuration, problems: log.sortedProblems, warnings: log.sortedWarnings)
    }

    /// What is wrong with a configuration made in code: the checks a file goes through, without places.
    public func validate() -> [ConfigurationProblem] {
        let log = ProblemLog(file: "", line: 0)
        ConfigurationCheck(configuration: self, log: log).run()
        return log.sortedProblems
    }

    /// The file's text: at most ``YAMLReader/byteCountMax`` bytes of UTF-8.
    private static func text(ofFile path: String) throws(ConfigurationFault) -> String {
        let bytes: Data
        do {
            let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
            defer { try? file.close() }
            bytes = try file.read(upToCount: YAMLReader.byteCountMax + 1) ?? Data()
        } catch {
            throw ConfigurationFault(
                found: Self.reason(error, path: path), allowed: "a YAML file that can be read")
        }
        if bytes.count > YAMLReader.byteCountMax {
            throw ConfigurationFault(
                found: "the file has more than \(YAMLReader.byteCountMax) bytes",
                allowed: "at most \(YAMLReader.byteCountMax) bytes")
        }
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        throw invalidByte(in: bytes)
    }

    private static func reason(_ error: any Error, path: String) -> String {
        if !FileManager.default.fileExists(atPath: path) { return "there is no such file" }
        var isDirectory: ObjCBool = false
        _ = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
        return isDirectory.boolValue ? "a directory" : "the file cannot be read"
    }

    /// Where the bytes stop being UTF-8.
    private static func invalidByte(in bytes: Data) -> ConfigurationFault {
        var (line, column) = (1, 1)
        var decoder = UTF8()
        var rest = bytes.makeIterator()
        while case .scalarValue(let scalar) = decoder.decode(&rest) {
            (line, column) = scalar == "\n" ? (line + 1, 1) : (line, column + 1)
        }
        return ConfigurationFault(
            found: "bytes that are not UTF-8", allowed: "text in UTF-8", line: line, column: column)
    }
}
