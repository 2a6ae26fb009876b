/// Reads one map of the configuration: each value into its type, each fault into the log.
///
/// A value that is missing or cannot be read leaves the default in place. Ranges are not judged here but by
/// ``ConfigurationCheck``, which also judges configurations made in code.
struct SectionReader {
    /// The section's path in this file: `channels.agents`.
    let path: String
    /// The section's name in the list of keys: `channels.*`.
    let section: String
    let place: Place
    private let entries: [SourceTree.Entry]
    private let log: ProblemLog

    /// A reader for `tree`; nil, with a problem, when it is no map. Keys that are not in the list of keys
    /// become problems at once.
    init?(_ tree: SourceTree, path: String, section: String, allowed: String, log: ProblemLog) {
        log.places[path] = tree.place
        guard case .map(let entries) = tree.content else {
            if case .broken = tree.content {
            } else {
                log.report(path, at: tree.place, found: tree.described, allowed: allowed)
            }
            return nil
        }
        self.path = path
        self.section = section
        self.place = tree.place
        self.entries = entries
        self.log = log
        reportUnknownKeys()
    }

    /// The path of `key` in this file.
    func path(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The value of `key` as it stands; nil when it is missing.
    func tree(_ key: String) -> SourceTree? {
        guard let entry = entries.first(where: { $0.key == key }) else { return nil }
        log.places[path(key)] = entry.value.place
        return entry.value
    }

    /// The section below `key`; nil when it is missing or no map.
    func section(_ key: String) -> SectionReader? {
        guard let tree = tree(key) else { return nil }
        let name = section.isEmpty ? key : "\(section).\(key)"
        let keys = ConfigurationKey.names(in: name)
        let allowed = keys.isEmpty ? "a map of \(key) by name" : "a map with \(keys.joined(separator: ", "))"
        return SectionReader(tree, path: path(key), section: name, allowed: allowed, log: log)
    }

    /// The maps of a list below `key`, each with its place in the list.
    func sections(_ key: String, countMax: Int) -> [(index: Int, reader: SectionReader?)] {
        let name = section.isEmpty ? key : "\(section).\(key)"
        let keys = ConfigurationKey.names(in: "\(name)[]").joined(separator: ", ")
        return list(key, allowed: "a list of at most \(countMax) maps", countMax: countMax).map {
            index, tree in
            let reader = SectionReader(
                tree, path: "\(path(key))[\(index)]", section: "\(name)[]", allowed: "a map with \(keys)",
                log: log)
            return (index, reader)
        }
    }

    /// The entries of a list below `key`.
    func list(_ key: String, allowed: String, countMax: Int) -> [(index: Int, tree: SourceTree)] {
        guard let tree = tree(key) else { return [] }
        switch tree.content {
        case .list(let items):
            if items.count > countMax {
                log.report(path(key), at: tree.place, found: "a list of \(items.count)", allowed: allowed)
                return []
            }
            return Array(items.enumerated()).map { ($0.offset, $0.element) }
        case .broken:
            return []
        default:
            log.report(path(key), at: tree.place, found: tree.described, allowed: allowed)
            return []
        }
    }

    /// Every entry, for sections whose keys are names.
    var named: [SourceTree.Entry] { entries }

    /// The text below `key`; nil when it is missing or, with a problem, no text.
    func text(_ key: String) -> String? {
        guard let tree = tree(key) else { return nil }
        return text(of: tree, path: path(key), allowed: allowed(key))
    }

    /// The text of `tree`; nil, with a problem, when it is none.
    func text(of tree: SourceTree, path: String, allowed: String) -> String? {
        log.places[path] = tree.place
        switch tree.content {
        case .text(let text):
            log.texts[path] = text
            return text
        case .broken:
            return nil
        default:
            log.report(path, at: tree.place, found: tree.described, allowed: allowed)
            return nil
        }
    }

    /// The value of `key` as `parse` understands it; nil when it is missing or, with a problem, not readable.
    func value<Value>(_ key: String, _ parse: (String) throws(Quantity.Fault) -> Value) -> Value? {
        guard let text = text(key) else { return nil }
        do throws(Quantity.Fault) {
            return try parse(text)
        } catch {
            report(key, "\(quoted(text)) \(error.text)")
            return nil
        }
    }

    /// One of an enumeration's words.
    func word<Word: RawRepresentable<String> & CaseIterable>(_ key: String, as type: Word.Type) -> Word? {
        value(key) { text throws(Quantity.Fault) in
            guard let word = Word(rawValue: text) else { throw Quantity.Fault("is unknown") }
            return word
        }
    }

    /// `true` or `false`.
    func flag(_ key: String) -> Bool? {
        value(key) { text throws(Quantity.Fault) in
            guard let flag = Bool(text) else { throw Quantity.Fault("is neither true nor false") }
            return flag
        }
    }

    /// Reports a value that cannot be read.
    func report(_ key: String, _ found: String) {
        log.report(path(key), at: nil, found: found, allowed: allowed(key))
    }

    /// Reports a required key that is missing.
    func reportMissing(_ key: String) {
        guard tree(key) == nil else { return }
        log.report(path(key), at: place, found: "\(key) is missing", allowed: allowed(key))
    }

    /// What the list of keys allows below `key`.
    func allowed(_ key: String) -> String { ConfigurationKey.named("\(section).\(key)")?.allowed ?? "" }

    private func reportUnknownKeys() {
        let known = ConfigurationKey.names(in: section)
        guard !known.isEmpty else { return }
        for entry in entries where !known.contains(entry.key) {
            var found = "unknown key \(quoted(entry.key))"
            if let near = Spelling.nearest(to: entry.key, among: known) {
                found += "; did you mean \(quoted(near))?"
            } else if let other = ConfigurationKey.all.first(where: { $0.name.hasSuffix(".\(entry.key)") }) {
                found += "; there is \(quoted(other.name))"
            }
            log.note(path(entry.key), at: entry.place, found: found, allowed: known.joined(separator: ", "))
        }
    }
}

/// Finds what a mistyped word was meant to be.
enum Spelling {
    /// The word nearest to `word`, if it is near enough to be what was meant.
    static func nearest(to word: String, among words: [String]) -> String? {
        guard word.utf8.count <= 64 else { return nil }
        let plain = word.lowercased().map { $0 == "_" ? "-" : $0 }
        let measured = words.map { ($0, distance(plain, Array($0))) }
        guard let best = measured.min(by: { $0.1 < $1.1 }) else { return nil }
        return best.1 <= max(1, min(plain.count, best.0.count) / 3) ? best.0 : nil
    }

    /// Letters to insert, remove, replace or swap to get from one word to the other.
    private static func distance(_ left: [Character], _ right: [Character]) -> Int {
        var before: [Int] = []
        var above = Array(0...right.count)
        for (row, letter) in left.enumerated() {
            var current = [row + 1]
            for (column, other) in right.enumerated() {
                var cost = min(
                    above[column + 1] + 1, current[column] + 1, above[column] + (letter == other ? 0 : 1))
                if row > 0, column > 0, letter == right[column - 1], left[row - 1] == other {
                    cost = min(cost, before[column - 1] + 1)
                }
                current.append(cost)
            }
            (before, above) = (above, current)
        }
        return above[right.count]
    }
}
