internal import Yams

/// Turns YAML text into a ``SourceTree``.
///
/// The strict part of YAML that a configuration needs: one document of maps, lists and texts. Anchors,
/// aliases, merge keys, tags and keys that are not texts are refused with their places; repeated keys are
/// named at the repetition. What libyaml cannot scan comes back as a single problem.
struct YAMLReader {
    /// The largest file, in bytes.
    static let byteCountMax = 1 << 20
    /// The deepest nesting of maps and lists.
    static let depthMax = 32
    /// Repeated keys named before the rest is left for the next run.
    private static let repeatedKeyCountMax = 32

    var file: String
    var rank = 0
    /// Variables for `${NAME}`; nil leaves values as they are.
    var environment: [String: String]?
    var log: ProblemLog

    /// The tree of `text`, or the one problem that keeps it from being YAML.
    func tree(of text: String) -> Result<SourceTree, ConfigurationProblem> {
        var text = text
        if text.unicodeScalars.first == "\u{FEFF}" { text.unicodeScalars.removeFirst() }
        if text.utf8.count > Self.byteCountMax {
            return .failure(
                problem(1, 1, "the file has \(text.utf8.count) bytes", "at most \(Self.byteCountMax) bytes"))
        }
        if environment != nil { text = EnvironmentText.shielded(text) }
        if let bad = forbiddenScalar(in: text) { return .failure(bad) }
        if let alias = tooManyAliases(in: text) { return .failure(alias) }

        var edits: [KeyMark] = []
        while true {
            do {
                let parser = try Parser(yaml: text, resolver: .basic, encoding: .utf8)
                guard let root = try parser.singleRoot() else { return .success(emptyTree) }
                // Anchors are weak references into the parser: keep it until the tree is converted.
                return withExtendedLifetime(parser) {
                    .success(converted(root, path: "", after: nil, in: Source(text: text, edits: edits)))
                }
            } catch YamlError.duplicatedKeysInMapping(let keys, let context) {
                guard edits.count < Self.repeatedKeyCountMax,
                    let edit = KeyMark(renaming: TextMark(context.mark), number: edits.count, in: &text)
                else {
                    let mark = original(TextMark(context.mark), edits)
                    let names = keys.map { quoted(KeyMark.stripped($0)) }.joined(separator: ", ")
                    return .failure(
                        problem(mark.line, mark.column, "\(names) more than once", "each key once"))
                }
                edits.append(edit)
            } catch {
                return .failure(syntaxProblem(error, in: text, edits: edits))
            }
        }
    }

    private var emptyTree: SourceTree {
        SourceTree(place: Place(file: file, line: 1, column: 1, rank: rank), content: .map([]))
    }

    private func problem(_ line: Int, _ column: Int, _ found: String, _ allowed: String)
        -> ConfigurationProblem
    {
        ConfigurationProblem(file: file, line: line, column: column, key: "", found: found, allowed: allowed)
    }

    /// The text libyaml saw, and how it differs from the file.
    private struct Source {
        var text: String
        var edits: [KeyMark]
        var depth = 0

        var deeper: Source {
            var source = self
            source.depth += 1
            return source
        }
    }

    private func place(_ mark: TextMark?, _ edits: [KeyMark]) -> Place {
        let mark = original(mark ?? TextMark(line: 1, column: 1), edits)
        return Place(file: file, line: mark.line, column: mark.column, rank: rank)
    }
}

// MARK: - From nodes to the tree

extension YAMLReader {
    /// The tree of `node`, which stands behind `before`: a node from before that place is an alias.
    private func converted(_ node: Yams.Node, path: String, after before: TextMark?, in source: Source)
        -> SourceTree
    {
        var tree = SourceTree(place: place(node.mark.map(TextMark.init), source.edits), content: .broken)
        func refuse(_ found: String, _ allowed: String) -> SourceTree {
            log.report(path, at: tree.place, found: found, allowed: allowed)
            return tree
        }
        if node.anchor != nil {
            let allowed = "values written out: no anchors, no aliases"
            guard let before, let mark = node.mark.map(TextMark.init), mark < before else {
                return refuse("a YAML anchor", allowed)
            }
            tree.place = place(aliasMark(after: before, in: source), source.edits)
            return refuse("a YAML alias", allowed)
        }
        if source.depth > Self.depthMax {
            return refuse("nesting deeper than \(Self.depthMax) levels", "less nesting")
        }
        let tag = node.tag.rawValue
        guard ["tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"].contains(tag) else {
            return refuse("the YAML tag \(quoted(tag))", "values without tags")
        }
        switch node {
        case .scalar(let scalar):
            tree.content = text(scalar, path: path, place: tree.place)
        case .sequence(let sequence):
            tree.content = .list(
                items(sequence, path: path, in: source))
        case .mapping(let mapping):
            tree.content = .map(entries(mapping, path: path, in: source))
        case .alias:
            return refuse("a YAML alias", "values written out: no anchors, no aliases")
        }
        return tree
    }

    private func text(_ scalar: Yams.Node.Scalar, path: String, place: Place) -> SourceTree.Content {
        if scalar.style == .plain, ["", "~", "null", "Null", "NULL"].contains(scalar.string) {
            return .nothing
        }
        guard let environment else { return .text(scalar.string) }
        let written = EnvironmentText.unshielded(scalar.string)
        switch EnvironmentText.expanded(written, environment: environment) {
        case .success(let text): return .text(text)
        case .failure(let fault):
            log.report(path, at: place, found: fault.found, allowed: fault.allowed)
            return .broken
        }
    }

    private func items(_ sequence: Yams.Node.Sequence, path: String, in source: Source) -> [SourceTree] {
        var before = sequence.mark.map(TextMark.init)
        return sequence.enumerated().map { index, item in
            let tree = converted(item, path: "\(path)[\(index)]", after: before, in: source.deeper)
            if let start = before, let mark = item.mark.map(TextMark.init) {
                before = mark < start ? aliasMark(after: start, in: source).next : mark
            }
            return tree
        }
    }

    /// Where the alias behind `mark` is; libyaml's wrapper tells only where its anchor is.
    private func aliasMark(after mark: TextMark, in source: Source) -> TextMark {
        let scalars = source.text.unicodeScalars
        var found = mark
        guard var index = Self.index(of: mark, in: scalars) else { return mark }
        while index < scalars.endIndex, scalars[index] != "*" {
            found = scalars[index] == "\n" ? TextMark(line: found.line + 1, column: 1) : found.next
            index = scalars.index(after: index)
        }
        return found
    }

    private func entries(_ mapping: Yams.Node.Mapping, path: String, in source: Source) -> [SourceTree.Entry]
    {
        var entries: [SourceTree.Entry] = []
        var before = mapping.mark.map(TextMark.init)
        for (key, value) in mapping {
            var mark = key.mark.map(TextMark.init)
            if key.anchor != nil, let start = before, let anchor = mark, anchor < start {
                mark = aliasMark(after: start, in: source)
            }
            before = mark?.next
            let keyPlace = place(mark, source.edits)
            guard case .scalar(let scalar) = key, key.anchor == nil else {
                let found =
                    key.anchor != nil ? "a YAML anchor or alias as a key" : "a key that is a map or a list"
                log.report("\(path).?", at: keyPlace, found: found, allowed: "keys that are texts")
                continue
            }
            let name = EnvironmentText.unshielded(KeyMark.stripped(scalar.string))
            let inner = path.isEmpty ? name : "\(path).\(name)"
            if scalar.style == .plain, name == "<<" {
                log.report(inner, at: keyPlace, found: "a YAML merge key “<<”", allowed: "values written out")
            } else if let first = entries.first(where: { $0.key == name }) {
                log.report(
                    inner, at: keyPlace,
                    found: "\(quoted(name)) once more; the first is at "
                        + "\(first.place.line):\(first.place.column)",
                    allowed: "each key once")
            } else {
                let tree = converted(
                    value, path: inner, after: key.mark.map(TextMark.init), in: source.deeper)
                entries.append(.init(key: name, place: keyPlace, value: tree))
            }
        }
        return entries
    }
}

/// A line and a column in the text libyaml saw.
private struct TextMark: Comparable {
    var line: Int
    var column: Int

    init(line: Int, column: Int) {
        self.line = line
        self.column = column
    }

    init(_ mark: Mark) { self.init(line: mark.line, column: mark.column) }

    var next: TextMark { TextMark(line: line, column: column + 1) }

    static func < (left: TextMark, right: TextMark) -> Bool {
        (left.line, left.column) < (right.line, right.column)
    }
}

// MARK: - Repeated keys

/// libyaml's wrapper refuses a document with a repeated key and tells only the first place. So the first one
/// is renamed in the text, until the document composes; this remembers what moved.
private struct KeyMark {
    static let prefix = "castnet-repeated-key-"
    var line: Int
    var column: Int
    var width: Int

    /// Renames the key at `mark`; nil when no plain or quoted text stands there.
    init?(renaming mark: TextMark, number: Int, in text: inout String) {
        var scalars = text.unicodeScalars
        guard var index = YAMLReader.index(of: mark, in: scalars) else { return nil }
        guard index < scalars.endIndex, !["!", "&", "*", "[", "{", "?", "|", ">"].contains(scalars[index])
        else {
            return nil
        }
        column = mark.column
        if scalars[index] == "\"" || scalars[index] == "'" {
            index = scalars.index(after: index)
            column += 1
        }
        let name = "\(Self.prefix)\(number)-"
        scalars.insert(contentsOf: name.unicodeScalars, at: index)
        text = String(scalars)
        line = mark.line
        width = name.unicodeScalars.count
    }

    /// The key without what a renaming put before it.
    static func stripped(_ key: String) -> String {
        guard key.hasPrefix(prefix), let dash = key.dropFirst(prefix.count).firstIndex(of: "-") else {
            return key
        }
        return stripped(String(key[key.index(after: dash)...]))
    }
}

extension YAMLReader {
    /// The mark in the text as it was before any key was renamed.
    private func original(_ mark: TextMark, _ edits: [KeyMark]) -> TextMark {
        let column = edits.reversed().reduce(mark.column) { column, edit in
            mark.line == edit.line && column > edit.column ? max(edit.column, column - edit.width) : column
        }
        return TextMark(line: mark.line, column: column)
    }

    /// Where libyaml's line and column are; it counts scalars, and CR LF as one break.
    fileprivate static func index(
        of mark: TextMark, in scalars: String.UnicodeScalarView
    ) -> String.UnicodeScalarView.Index? {
        var (line, index) = (1, scalars.startIndex)
        while line < mark.line, index < scalars.endIndex {
            let scalar = scalars[index]
            index = scalars.index(after: index)
            switch scalar {
            case "\r":
                if index < scalars.endIndex, scalars[index] == "\n" { index = scalars.index(after: index) }
                line += 1
            case "\n", "\u{85}", "\u{2028}", "\u{2029}": line += 1
            default: break
            }
        }
        guard line == mark.line else { return nil }
        return scalars.index(index, offsetBy: max(0, mark.column - 1), limitedBy: scalars.endIndex)
    }
}

// MARK: - What is not YAML

extension YAMLReader {
    /// The first character YAML does not allow, so that its place is known: libyaml tells only an offset.
    private func forbiddenScalar(in text: String) -> ConfigurationProblem? {
        var (line, column, afterReturn) = (1, 1, false)
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\n" where afterReturn: break
            case "\n", "\r", "\u{85}", "\u{2028}", "\u{2029}": (line, column) = (line + 1, 0)
            case "\t", "\u{20}"..."\u{7E}", "\u{A0}"..."\u{D7FF}", "\u{E000}"..."\u{FEFE}",
                "\u{FF00}"..."\u{FFFD}",
                "\u{10000}"..."\u{10FFFF}":
                break
            default:
                let code = String(scalar.value, radix: 16, uppercase: true)
                return problem(
                    line, column,
                    "the control character U+\(String(repeating: "0", count: max(0, 4 - code.count)))\(code)",
                    "printable text in UTF-8")
            }
            if !(scalar == "\n" && afterReturn) { column += 1 }
            afterReturn = scalar == "\r"
        }
        return nil
    }

    /// Aliases are refused anyway; many of them could make comparing keys take for ever before that.
    private func tooManyAliases(in text: String) -> ConfigurationProblem? {
        var (line, column, count) = (1, 0, 0)
        var previous: Unicode.Scalar = "\n"
        var (isComment, isAlias) = (false, false)
        for scalar in text.unicodeScalars {
            column += 1
            let startsToken = [" ", "\t", "\n", "\r", "[", "{", ",", ":"].contains(previous)
            if scalar == "\n" || scalar == "\r" {
                (isComment, isAlias) = (false, false)
                if !(scalar == "\n" && previous == "\r") { (line, column) = (line + 1, 0) }
            } else if isAlias {
                isAlias = false
                if scalar.properties.isAlphabetic { count += 1 }
                if count > 8 {
                    return problem(
                        line, column - 1, "YAML aliases", "values written out: no anchors, no aliases")
                }
            } else if scalar == "#", startsToken {
                isComment = true
            } else if scalar == "*", startsToken, !isComment {
                isAlias = true
            }
            previous = scalar
        }
        return nil
    }

    private func syntaxProblem(_ error: any Error, in text: String, edits: [KeyMark]) -> ConfigurationProblem
    {
        guard let error = error as? YamlError else { return problem(1, 1, "\(error)", "YAML") }
        switch error {
        case .scanner(let context, let what, let mark, _), .parser(let context, let what, let mark, _),
            .composer(let context, let what, let mark, _):
            let mark = TextMark(mark)
            let place = original(mark, edits)
            if let hint = hint(at: mark, in: text) {
                let column = max(1, place.column - hint.back)
                return problem(place.line, column, hint.fault.found, hint.fault.allowed)
            }
            if what.hasPrefix("Maximum nesting") {
                return problem(
                    place.line, place.column, "nesting far deeper than \(Self.depthMax) levels",
                    "less nesting")
            }
            let words = [context?.text, what].compactMap { $0 }.joined(separator: ", ")
            return problem(
                place.line, place.column, "a YAML syntax error: \(words)", "YAML: maps, lists and texts")
        case .memory:
            return problem(1, 1, "not enough memory to read it", "a smaller file")
        default:
            return problem(1, 1, "a YAML error: \(quoted("\(error)"))", "YAML: maps, lists and texts")
        }
    }

    /// What people usually meant at a place libyaml cannot scan, and how many columns before it that began.
    private func hint(at mark: TextMark, in text: String) -> (fault: ConfigurationFault, back: Int)? {
        let scalars = text.unicodeScalars
        guard let index = Self.index(of: mark, in: scalars) else { return nil }
        let here = index < scalars.endIndex ? scalars[index] : " "
        let before = index > scalars.startIndex ? scalars[scalars.index(before: index)] : " "
        let pattern = ConfigurationFault(
            found: "a bare “*”, which YAML takes for an alias", allowed: "patterns in quotes: \"**\"")
        if before == "*" { return (pattern, 1) }
        if here == "*" { return (pattern, 0) }
        if here == "\t" { return (.init(found: "a tab", allowed: "indentation by spaces"), 0) }
        return nil
    }
}
