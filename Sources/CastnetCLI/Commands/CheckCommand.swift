internal import ArgumentParser
internal import Castnet

/// `castnet check CONFIG`: `ok` and a summary, or every error as `file:line:col: text`.
struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check a configuration: every error with its place, or a summary of what it comes to.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions

    mutating func run() async throws {
        let report = config.report()
        guard let configuration = report.configuration else {
            for problem in report.problems {
                if common.json {
                    try JSONLine.print(ProblemLine(problem))
                } else {
                    JSONLine.write("\(problem)")
                }
            }
            throw ExitStatus.input.code
        }
        for warning in report.warnings { Diagnostics.print("warning: \(warning)") }
        let summary = CheckSummary(configuration)
        if common.json {
            try JSONLine.print(summary)
        } else {
            JSONLine.write(summary.text(for: configuration))
        }
    }
}

/// What `check` prints for a good configuration.
private struct CheckSummary: Encodable {
    struct Channel: Encodable {
        var name: String
        var group: String
        var port: UInt16
        var mtu: Int
        var window: Int
        var memoryBytes: Int
        /// More members than this report too seldom for the channel's rate; nil for an automatic one.
        var membersAtFullRate: Int?

        enum CodingKeys: String, CodingKey {
            case name, group, port, mtu, window
            case memoryBytes = "memory_bytes"
            case membersAtFullRate = "members_at_full_rate"
        }
    }

    enum CodingKeys: String, CodingKey {
        case ok, channels, policies
        case memoryBytes = "memory_bytes"
        case memoryMaxBytes = "memory_max_bytes"
        case memoryParts = "memory_parts"
    }

    var ok = true
    var memoryBytes: Int
    var memoryMaxBytes: Int
    var memoryParts: OrderedObject<Int>
    var channels: [Channel]
    var policies: Int

    init(_ configuration: Configuration) {
        let plan = MemoryPlan(configuration)
        memoryBytes = plan.totalBytes
        memoryMaxBytes = configuration.limits.memory
        memoryParts = OrderedObject(plan.parts.map { ($0.name, $0.bytes) })
        channels = configuration.channels.map { channel in
            let plan = ChannelPlan(channel)
            return Channel(
                name: channel.name, group: channel.group, port: channel.port, mtu: plan.mtu,
                window: plan.window,
                memoryBytes: plan.totalBytes, membersAtFullRate: channel.rate.map(plan.membersAtFullRate))
        }
        policies = configuration.policies.count
    }

    func text(for configuration: Configuration) -> String {
        let plan = MemoryPlan(configuration)
        let parts = plan.parts.map { "\($0.name) \(Quantity.rounded(bytes: $0.bytes))" }.joined(
            separator: " + ")
        var lines = ["ok"]
        lines.append(
            "memory    \(Quantity.rounded(bytes: plan.totalBytes)) of "
                + "\(Quantity.rounded(bytes: memoryMaxBytes)): \(parts)"
        )
        for channel in channels {
            lines.append(
                "channel   \(channel.name): \(channel.group) port \(channel.port), "
                    + "window \(channel.window) packets of \(channel.mtu) bytes, "
                    + Quantity.rounded(bytes: channel.memoryBytes)
                    + (channel.membersAtFullRate.map { ", full rate up to \($0) members" } ?? ""))
        }
        for policy in configuration.policies {
            lines.append("\(policy.summary)")
        }
        lines.append("built-in  ** → ephemeral")
        return lines.joined(separator: "\n")
    }
}

extension Policy {
    /// `rule 0    scheduler (call, cast) → persistent`.
    fileprivate var summary: String {
        var conditions: [String] = []
        if kinds.count < MessageKind.allCases.count { conditions.append(kinds.sortedNames) }
        if let size { conditions.append("\(size)") }
        let number = "rule \(index ?? 0)"
        return number + String(repeating: " ", count: max(1, 10 - number.count)) + match.text
            + (conditions.isEmpty ? "" : " (\(conditions.joined(separator: "; ")))")
            + " → \(route.carrier.rawValue)" + (route.channel.map { " on \($0)" } ?? "")
    }
}
