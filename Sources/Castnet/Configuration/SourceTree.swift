/// A configuration before it has types: maps, lists and texts, each with its place.
struct SourceTree {
    enum Content {
        case text(String)
        case list([SourceTree])
        case map([Entry])
        /// A key without a value.
        case nothing
        /// Already reported: whoever reads it stays silent.
        case broken
    }
    struct Entry {
        var key: String
        var place: Place
        var value: SourceTree
    }

    var place: Place
    var content: Content

    /// `a map`, `a list`: what an error says it found.
    var described: String {
        switch content {
        case .text(let text): quoted(text)
        case .list: "a list"
        case .map: "a map"
        case .nothing, .broken: "no value"
        }
    }
}

// MARK: - Overrides

extension SourceTree {
    /// Puts an override's value at its path, making the maps on the way.
    mutating func apply(_ override: ConfigurationOverride, rank: Int, log: ProblemLog) {
        let place = Place(file: override.source, line: 1, column: 1, rank: rank)
        guard let steps = Step.parse(override.key), !steps.isEmpty else {
            log.report(
                override.key, at: place, found: "\(quoted(override.key)) is not a key's path",
                allowed: "paths such as channels.agents.rate or policies[0].carrier")
            return
        }
        var value = SourceTree(place: place, content: .text(override.value))
        if override.value.hasPrefix("[") || override.value.hasPrefix("{") {
            let reader = YAMLReader(file: override.source, rank: rank, environment: nil, log: log)
            switch reader.tree(of: override.value) {
            case .success(let tree): value = tree
            case .failure(let problem):
                log.report(override.key, at: place, found: problem.found, allowed: problem.allowed)
                return
            }
        }
        if let fault = set(value, at: steps[...]) {
            log.report(override.key, at: place, found: fault.found, allowed: fault.allowed)
        }
    }

    /// One step of a path.
    private enum Step {
        case key(String)
        case index(Int)

        /// `policies[0].carrier` → key policies, index 0, key carrier; nil when it is no path.
        static func parse(_ path: String) -> [Step]? {
            var steps: [Step] = []
            for part in path.split(separator: ".", omittingEmptySubsequences: false) {
                var rest = part
                guard let name = Optional(rest.prefix { $0 != "[" }), !name.isEmpty || !steps.isEmpty else {
                    return nil
                }
                if name.isEmpty { return nil }
                steps.append(.key(String(name)))
                rest = rest.dropFirst(name.count)
                while rest.first == "[" {
                    guard let close = rest.firstIndex(of: "]") else { return nil }
                    let digits = rest[rest.index(after: rest.startIndex)..<close]
                    guard digits.count <= 9, digits.allSatisfy(\.isASCII), let index = UInt(digits) else {
                        return nil
                    }
                    steps.append(.index(Int(index)))
                    rest = rest[rest.index(after: close)...]
                }
                if !rest.isEmpty { return nil }
            }
            return steps.count <= 16 ? steps : nil
        }
    }

    private mutating func set(
        _ value: SourceTree, at steps: ArraySlice<Step>
    ) -> (found: String, allowed: String)? {
        guard let step = steps.first else {
            self = value
            return nil
        }
        let rest = steps.dropFirst()
        switch step {
        case .key(let key):
            var entries: [Entry] = []
            if case .map(let existing) = content { entries = existing }
            if let index = entries.firstIndex(where: { $0.key == key }) {
                if let fault = entries[index].value.set(value, at: rest) { return fault }
            } else {
                var child = SourceTree(place: value.place, content: .nothing)
                if let fault = child.set(value, at: rest) { return fault }
                entries.append(Entry(key: key, place: value.place, value: child))
            }
            content = .map(entries)
        case .index(let index):
            var items: [SourceTree] = []
            if case .list(let existing) = content { items = existing }
            guard index <= items.count else {
                return ("place \(index) of a list with \(items.count) entries", "places 0 to \(items.count)")
            }
            if index == items.count { items.append(SourceTree(place: value.place, content: .nothing)) }
            if let fault = items[index].set(value, at: rest) { return fault }
            content = .list(items)
        }
        return nil
    }
}

// MARK: - Environment

/// `${NAME}` and `${NAME:-default}` in values.
enum EnvironmentText {
    /// Stand-ins for the braces of `${NAME}`, which YAML would take for a map inside `[ ]` and `{ }`: one
    /// scalar each, so that places stay true, and of a private-use area, so that no text needs them.
    private static let braces: (open: Character, close: Character) = ("\u{F8E0}", "\u{F8E1}")

    /// The text with the braces of its variables hidden from YAML.
    static func shielded(_ text: String) -> String {
        guard text.contains("${") else { return text }
        return text.replacing(#/\$\{([A-Za-z_][A-Za-z0-9_]*(?::-[^{}\r\n]*)?)\}/#) { match in
            "$\(braces.open)\(match.output.1)\(braces.close)"
        }
    }

    /// The text as it was written.
    static func unshielded(_ text: String) -> String {
        guard text.contains(braces.open) || text.contains(braces.close) else { return text }
        return String(text.map { $0 == braces.open ? "{" : $0 == braces.close ? "}" : $0 })
    }

    /// The text with every variable replaced, or what is wrong with it.
    static func expanded(
        _ text: String, environment: [String: String]
    ) -> Result<String, ConfigurationFault> {
        guard text.contains("${") else { return .success(text) }
        var result = ""
        var rest = Substring(text)
        while let start = rest.firstRange(of: "${") {
            result += rest[..<start.lowerBound]
            let tail = rest[start.upperBound...]
            guard let end = tail.firstIndex(of: "}") else {
                return .failure(
                    .init(
                        found: "\(quoted(text)) has “${” without “}”", allowed: "${NAME} or ${NAME:-default}")
                )
            }
            let body = tail[..<end]
            let name = body.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
            let fallback = body.dropFirst(name.count)
            guard let first = name.first, !first.isNumber, fallback.isEmpty || fallback.hasPrefix(":-") else {
                return .failure(
                    .init(
                        found: "\(quoted("${\(body)}")) is not a variable",
                        allowed: "${NAME} or ${NAME:-default}, names of letters, digits and _"))
            }
            let value = environment[String(name)]
            if fallback.isEmpty {
                guard let value else {
                    return .failure(
                        .init(
                            found: "the environment variable \(quoted(String(name))) is not set",
                            allowed: "a variable that is set, or ${\(name.prefix(64)):-default}"))
                }
                result += value
            } else {
                result += value.flatMap { $0.isEmpty ? nil : $0 } ?? String(fallback.dropFirst(2))
            }
            rest = tail[tail.index(after: end)...]
        }
        return .success(result + rest)
    }
}

/// What was found and what is allowed, before it has a place.
struct ConfigurationFault: Error, Hashable {
    var found: String
    var allowed: String
    var line = 1
    var column = 1
}
