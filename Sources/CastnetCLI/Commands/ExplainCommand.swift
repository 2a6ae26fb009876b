internal import ArgumentParser
internal import Castnet

/// `castnet explain CONFIG TOPIC`: which rule, which carrier, why the others not.
struct ExplainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Tell which rule decides for a topic, and why the rules before it do not.",
        discussion:
            "Without --kind it answers for call, cast and fanout; without --size for an empty payload.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions

    @Argument(help: "The topic.")
    var topic: String

    @Option(help: "call, cast or fanout.")
    var kind: KindArgument?

    @Option(help: ArgumentHelp("The payload's size: bytes, or an amount such as 64KiB.", valueName: "n"))
    var size: ByteCount?

    @Option(help: ArgumentHelp("A second configuration: tell what differs for the topic.", valueName: "new"))
    var diff: String?

    mutating func run() async throws {
        let topic = try Topic(self.topic)
        let table = try config.configuration(json: common.json).table
        let new = try diff.map { path in
            var other = config
            other.config = path
            return try other.configuration(json: common.json).table
        }
        let router = Router(table: table)
        for kind in kind.map({ [$0.kind] }) ?? MessageKind.allCases {
            let explanation = router.explain(topic: topic, kind: kind, size: size?.bytes ?? 0)
            let newer = new.map { $0.explain(topic: topic, kind: kind, size: size?.bytes ?? 0) }
            let difference = newer.map { DifferenceLine(old: explanation, new: $0) }
            if common.json {
                var line = ExplanationLine(explanation)
                line.diff = difference
                if let new { line.diff?.rules = table.changes(to: new).map(RuleChangeLine.init) }
                try JSONLine.print(line)
            } else {
                JSONLine.write(explanation.text)
                if let newer, let difference {
                    JSONLine.write(
                        difference.changed ? "  with \(diff ?? ""):" : "  the same with \(diff ?? "")")
                    if difference.changed { JSONLine.write(newer.text) }
                }
            }
        }
        if !common.json, let new { printChanges(table.changes(to: new)) }
    }

    private func printChanges(_ changes: [RuleChange]) {
        JSONLine.write(changes.isEmpty ? "the tables do not differ" : "rules that differ:")
        for change in changes { JSONLine.write("  \(change)") }
    }
}

// MARK: - Output

extension Explanation {
    fileprivate var text: String {
        var lines = ["\(kind.rawValue) to \(topic), \(size) B → \(policy.route.carrier.rawValue)"]
        let settings = policy.route.effectiveEntries.dropFirst().map { "\($0.key) \($0.value)" }
        lines.append("  \(policy.place): \(why)")
        lines.append("  " + settings.joined(separator: ", "))
        for rule in skipped {
            let place = rule.index.map { "rule \($0)" } ?? "the built-in last rule"
            let details = [rule.line.map { "line \($0)" }, "match \(rule.match)"].compactMap { $0 }
            lines.append("  not \(place) (\(details.joined(separator: ", "))): \(rule.why)")
        }
        return lines.joined(separator: "\n")
    }
}

/// An explanation as a JSON line.
struct ExplanationLine: Encodable {
    var topic: String
    var kind: String
    var size: Int
    var rule: RuleLine
    var carrier: String
    var route: RouteLine
    var why: String
    var skipped: [RuleLine]
    var diff: DifferenceLine?

    init(_ explanation: Explanation) {
        let policy = explanation.policy
        topic = explanation.topic.name
        kind = explanation.kind.rawValue
        size = explanation.size
        rule = RuleLine(index: policy.index, line: policy.line, match: policy.match.text)
        carrier = policy.route.carrier.rawValue
        route = RouteLine(route: policy.route)
        why = explanation.why
        skipped = explanation.skipped.map {
            RuleLine(index: $0.index, line: $0.line, match: $0.match.text, why: $0.why)
        }
    }
}

/// A rule of the table; index and line are null where there is none.
struct RuleLine: Encodable {
    var index: Int?
    var line: Int?
    var match: String
    var why: String?

    enum CodingKeys: CodingKey { case index, line, match, why }

    func encode(to encoder: any Encoder) throws {
        var keys = encoder.container(keyedBy: CodingKeys.self)
        try keys.encode(index, forKey: .index)
        try keys.encode(line, forKey: .line)
        try keys.encode(match, forKey: .match)
        try keys.encodeIfPresent(why, forKey: .why)
    }
}

/// A route's effective settings; times are seconds under `…_s`.
struct RouteLine: Encodable {
    var route: Route

    private struct Key: CodingKey {
        var stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    func encode(to encoder: any Encoder) throws {
        var keys = encoder.container(keyedBy: Key.self)
        for entry in route.effectiveEntries {
            let name = entry.key.replacing("-", with: "_")
            switch entry.value {
            case .text(let text): try keys.encode(text, forKey: Key(stringValue: name))
            case .number(let number): try keys.encode(number, forKey: Key(stringValue: name))
            case .flag(let flag): try keys.encode(flag, forKey: Key(stringValue: name))
            case .duration(let time): try keys.encode(time.seconds, forKey: Key(stringValue: "\(name)_s"))
            }
        }
    }
}

/// What a second configuration changes for one topic, and in the table.
struct DifferenceLine: Encodable {
    var changed: Bool
    var rule: RuleLine
    var carrier: String
    var route: RouteLine
    var rules: [RuleChangeLine] = []

    init(old: Explanation, new: Explanation) {
        changed = old.policy.route != new.policy.route
        rule = RuleLine(index: new.policy.index, line: new.policy.line, match: new.policy.match.text)
        carrier = new.policy.route.carrier.rawValue
        route = RouteLine(route: new.policy.route)
    }
}

/// One rule two tables do not share.
struct RuleChangeLine: Encodable {
    struct Key: Encodable {
        var key: String
        var old: String?
        var new: String?
    }
    var change: String
    var old: RuleLine?
    var new: RuleLine?
    var keys: [Key]

    init(_ change: RuleChange) {
        self.change = change.change.rawValue
        old = change.old.map { RuleLine(index: $0.index, line: $0.line, match: $0.match.text) }
        new = change.new.map { RuleLine(index: $0.index, line: $0.line, match: $0.match.text) }
        keys = change.keys.map { Key(key: $0.key, old: $0.old, new: $0.new) }
    }
}
