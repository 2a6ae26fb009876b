/// One thing wrong with a configuration: where, what was found, what is allowed.
public struct ConfigurationProblem: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file, or the command-line option (`--set channels.agents.rate`) that brought the value.
    public var file: String
    /// The line, from 1; 0 when the configuration was made in code.
    public var line: Int
    /// The column, from 1, in Unicode scalars; 0 when the configuration was made in code.
    public var column: Int
    /// The key, as a path: `channels.agents.rate`, `policies[2].match`; empty for the file as a whole.
    public var key: String
    /// What was found.
    public var found: String
    /// What is allowed.
    public var allowed: String

    /// `file:line:column: key: what was found; allowed: what is allowed`.
    public var description: String {
        let place = line > 0 ? "\(file):\(line):\(column): " : file.isEmpty ? "" : "\(file): "
        return place + (key.isEmpty ? "" : "\(key): ") + found
            + (allowed.isEmpty ? "" : "; allowed: \(allowed)")
    }
}

/// What came of parsing a configuration.
public struct ConfigurationReport: Sendable {
    /// The configuration; nil when there is a problem.
    public var configuration: Configuration?
    /// Everything that is wrong, in file order. A YAML syntax error comes alone.
    public var problems: [ConfigurationProblem]
    /// What works but probably surprises.
    public var warnings: [ConfigurationProblem]
}

/// A value from the command line that replaces one of the file's.
public struct ConfigurationOverride: Hashable, Sendable {
    /// The key's path: `node.name`, `channels.agents.rate`, `policies[0].carrier`.
    public var key: String
    /// The value as text; text that opens with `[` or `{` is read as YAML.
    public var value: String
    /// What problems with it name instead of a file.
    public var source: String

    /// Sets `key` to `value`; `source` is what problems with it name instead of a file.
    public init(key: String, value: String, source: String? = nil) {
        self.key = key
        self.value = value
        self.source = source ?? "--set \(key)"
    }

    /// `--name`: the node's name.
    public static func name(_ value: String) -> Self {
        .init(key: "node.name", value: value, source: "--name")
    }
    /// `--listen`: the address to listen on.
    public static func listen(_ value: String) -> Self {
        .init(key: "node.listen", value: value, source: "--listen")
    }
    /// `--interface`: the interface for multicast.
    public static func interface(_ value: String) -> Self {
        .init(key: "node.interface", value: value, source: "--interface")
    }
    /// `--set key=value`; nil without a key or an equals sign.
    public static func set(_ assignment: String) -> Self? {
        guard let equals = assignment.firstIndex(of: "="), equals > assignment.startIndex else { return nil }
        return .init(
            key: String(assignment[..<equals]), value: String(assignment[assignment.index(after: equals)...]))
    }
}

/// A place in a file or on the command line.
struct Place: Hashable, Comparable {
    var file: String
    var line: Int
    var column: Int
    /// Files before command-line options, these in the order given.
    var rank = 0

    static func < (left: Place, right: Place) -> Bool {
        (left.rank, left.line, left.column) < (right.rank, right.line, right.column)
    }
}

/// Collects what is wrong while a configuration is read, and remembers where each value came from, so that
/// checks on the typed configuration can point into the file.
final class ProblemLog {
    private(set) var problems: [(place: Place, problem: ConfigurationProblem)] = []
    private(set) var warnings: [(place: Place, problem: ConfigurationProblem)] = []
    /// Where each value stands, by path.
    var places: [String: Place] = [:]
    /// Each scalar as written, by path.
    var texts: [String: String] = [:]
    /// Paths whose values could not be read: what depends on them is not judged.
    private(set) var failed: Set<String> = []
    private let root: Place

    init(file: String, line: Int) { root = Place(file: file, line: line, column: line) }

    /// Reports at an exact place something that leaves every value readable.
    func note(_ path: String, at place: Place?, found: String, allowed: String) {
        append(path, place ?? self.place(of: path), found, allowed, to: &problems)
    }

    /// Reports at an exact place that the value of `path` cannot be read.
    func report(_ path: String, at place: Place?, found: String, allowed: String) {
        failed.insert(path)
        append(path, place ?? self.place(of: path), found, allowed, to: &problems)
    }

    /// Reports at the value of `path`, unless it, or one of `uses`, could not even be read.
    func report(_ path: String, found: String, allowed: String, uses: [String] = []) {
        guard !hasFailed(path), !uses.contains(where: hasFailed) else { return }
        append(path, place(of: path), found, allowed, to: &problems)
    }

    /// Warns at the value of `path`, unless it, or one of `uses`, could not even be read.
    func warn(_ path: String, found: String, allowed: String, uses: [String] = []) {
        guard !hasFailed(path), !uses.contains(where: hasFailed) else { return }
        append(path, place(of: path), found, allowed, to: &warnings)
    }

    /// True when the value at `path`, or something inside or around it, could not be read.
    func hasFailed(_ path: String) -> Bool {
        failed.contains { $0 == path || Self.isInside($0, path) || Self.isInside(path, $0) }
    }

    private static func isInside(_ path: String, _ outer: String) -> Bool {
        outer.isEmpty || (path.hasPrefix(outer) && [".", "["].contains(path.dropFirst(outer.count).first))
    }

    /// Where `path` stands: its value, or the nearest thing around it.
    func place(of path: String) -> Place {
        var path = Substring(path)
        while !path.isEmpty {
            if let place = places[String(path)] { return place }
            path = path[..<(path.lastIndex { $0 == "." || $0 == "[" } ?? path.startIndex)]
        }
        return root
    }

    var sortedProblems: [ConfigurationProblem] { Self.sorted(problems) }
    var sortedWarnings: [ConfigurationProblem] { Self.sorted(warnings) }

    private typealias Located = (place: Place, problem: ConfigurationProblem)

    private func append(
        _ path: String, _ place: Place, _ found: String, _ allowed: String,
        to list: inout [(place: Place, problem: ConfigurationProblem)]
    ) {
        let problem = ConfigurationProblem(
            file: place.file, line: place.line, column: place.column, key: path, found: found,
            allowed: allowed)
        list.append((place, problem))
    }

    /// In file order; equal places keep the order in which they were found.
    private static func sorted(_ list: [Located]) -> [ConfigurationProblem] {
        list.enumerated().sorted { left, right in
            left.element.place == right.element.place
                ? left.offset < right.offset : left.element.place < right.element.place
        }.map(\.element.problem)
    }
}
