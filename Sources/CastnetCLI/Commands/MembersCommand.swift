internal import ArgumentParser
internal import Castnet

/// `castnet members CONFIG|--admin URL`: who is there, what they serve, how they are reached.
struct MembersCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "members", abstract: "List the nodes of the cluster, their topics and the path to each.")

    @OptionGroup var common: CommonOptions
    @Argument(help: ArgumentHelp("A YAML file: a node of its own looks.", valueName: "config"))
    var config: String?
    @OptionGroup var overrides: OverrideOptions
    @Option(help: "A running node that is asked instead: http://address:port or unix:/path.")
    var admin: AdminURL?
    @Option(help: "How long to listen before the list is printed.")
    var wait: TimeArgument?

    func validate() throws {
        guard (config == nil) != (admin == nil) else {
            throw ValidationError("either a configuration file or --admin URL")
        }
    }

    mutating func run() async throws {
        for member in try await members() {
            if common.json {
                try JSONLine.print(member)
            } else {
                JSONLine.write(Self.line(member))
            }
        }
    }

    /// `name/incarnation  address  state  age  last heard  source  channel=path(why)…  topics`.
    private static func line(_ member: MemberSnapshot) -> String {
        let heard = member.heard.map { "heard \(seconds($0)) ago" } ?? "never heard"
        let paths = member.paths.map { "\($0.channel)=\($0.path)(\($0.why))" }
        return [
            "\(member.node)/\(member.incarnation)", member.address.isEmpty ? "-" : member.address,
            member.state,
            "since \(seconds(member.age))", heard, member.source,
            paths.isEmpty ? "-" : paths.joined(separator: " "), member.topics.joined(separator: " "),
        ].joined(separator: "  ")
    }

    private static func seconds(_ value: Double) -> String {
        "\((value * 10).rounded() / 10) s"
    }

    private func members() async throws -> [MemberSnapshot] {
        guard let config else { return try await admin?.get("/members.json") ?? [] }
        let configuration = try overrides.configuration(of: config, json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let wait = wait?.duration ?? .milliseconds(1500)
        return try await Node.withNode(configuration) { node in
            try await Task.sleep(for: wait)
            let own = node.identity
            return try await node.members().filter { $0.identity != own }.map(MemberSnapshot.init)
        }
    }
}
