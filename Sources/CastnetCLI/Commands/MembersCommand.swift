// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ArgumentParser
internal import Castnet

/// `castnet members CONFIG`: who is there, what they serve, how they are reached.
struct MembersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "members", abstract: "List the nodes of the cluster, their topics and the path to each.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions
    @Option(help: "How long to listen before the list is printed.")
    var wait: TimeArgument?

    mutating func run() async throws {
        let configuration = try config.configuration(json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let (wait, json) = (wait?.duration ?? .milliseconds(1500), common.json)
        let members = try await Node.withNode(configuration) { node in
            try await Task.sleep(for: wait)
            let own = node.identity
            return try await node.members().filter { $0.identity != own }
        }
        for member in members {
            if json {
                try JSONLine.print(MemberLine(member))
            } else {
                let topics = MemberLine(member).topics.joined(separator: " ")
                let address = member.address?.description ?? "-"
                JSONLine.write(
                    "\(member.identity.name)  \(address)  \(member.state.rawValue)  \(topics)"
                )
            }
        }
    }
}

private struct MemberLine: Encodable {
    struct Path: Encodable {
        var channel: String
        var path: String
        var why: String
    }
    var node: String
    var server: String
    var instance: String?
    var incarnation: String
    var address: String
    var topics: [String]
    var state: String
    var age_s: Double
    var heard_s: Double?
    var source: String
    var paths: [Path]

    init(_ member: NodeSummary) {
        node = member.identity.name
        server = member.services.first?.server ?? member.identity.name
        instance = member.instance
        incarnation = member.identity.incarnation.description
        address = member.address?.description ?? ""
        topics = member.services.map(\.topic.name) + member.subscriptions.map(\.text)
        state = member.state.rawValue
        age_s = member.age.inSeconds
        heard_s = member.heard?.inSeconds
        source = member.source
        paths = member.paths.map { Path(channel: $0.channel, path: $0.path, why: $0.why) }
    }
}
