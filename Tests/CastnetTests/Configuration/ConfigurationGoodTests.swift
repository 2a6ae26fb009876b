import Castnet
import Foundation
import Testing

@Suite("Good configurations")
struct ConfigurationGoodTests {
    private static let everything = ConfigurationBrokenTests.folder.appendingPathComponent(
        "../good/fleet.yaml"
    ).path
    /// The file with every key; in a build without Redis a copy without that.
    static let fleet: String = {
        guard !BuildFacts.hasRedis else { return everything }
        let text = (try? String(contentsOfFile: everything, encoding: .utf8)) ?? ""
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            .map { $0.hasPrefix("  redis:") ? "" : $0 }
        let copy = FileManager.default.temporaryDirectory
            .appendingPathComponent("castnet-fleet-\(ProcessInfo.processInfo.processIdentifier).yaml")
        try? lines.joined(separator: "\n").write(to: copy, atomically: true, encoding: .utf8)
        return copy.path
    }()

    private func parse(
        _ text: String, overrides: [ConfigurationOverride] = [], environment: [String: String] = [:]
    ) -> ConfigurationReport {
        Configuration.parse(text, file: "test.yaml", overrides: overrides, environment: environment)
    }

    @Test("may be empty", arguments: ["", "{}", "# nothing\n", "---\n...\n", "\u{FEFF}", "\r\n\r\n"])
    func empty(text: String) throws {
        let configuration = try #require(parse(text).configuration)
        #expect(configuration.node == NodeSettings())
        #expect(configuration.directory == DirectorySettings())
        #expect(configuration.limits == LimitSettings())
        #expect(configuration.admin == AdminSettings())
        #expect(configuration.channels.isEmpty && configuration.policies.isEmpty)
        #expect(configuration.validate().isEmpty)
    }

    @Test("reach every key")
    func everyKey() throws {
        let report = Configuration.read(path: Self.fleet, environment: [:])
        let configuration = try #require(report.configuration, "\(report.problems)")
        #expect(report.warnings.isEmpty)
        let node = configuration.node
        #expect(node.name == "api-1" && node.instance == "1" && node.cluster == "demo" && node.testing)
        #expect(node.listen == HostPort(host: "10.77.0.11", port: 7400))
        #expect(node.advertise == HostPort(host: "fd00::11", port: 7400))
        #expect(node.interface == "eth0" && !node.unixSockets)

        let directory = configuration.directory
        #expect(directory.staticEntries.map(\.node) == ["scheduler-1", "scheduler-2"])
        #expect(directory.staticEntries.first?.topics.map(\.name) == ["scheduler", "agents.l2"])
        #expect(directory.beacon?.group == "239.192.0.2" && directory.beacon?.port == 7402)
        #expect(directory.beacon?.interval == .milliseconds(500))
        #expect(directory.seeds.map(\.description) == ["10.77.0.13:7400", "[fd00::13]:7400"])
        if BuildFacts.hasRedis {
            #expect(directory.redis?.prefix == "demo" && directory.redis?.timeToLive == .seconds(60))
        }

        let limits = configuration.limits
        #expect(
            limits.connections == 100 && limits.perPeer == 8 && limits.perAddress == 16 && limits.dials == 9)
        #expect(limits.hellos == 70)
        #expect(limits.message == 16 << 20 && limits.memory == 256_000_000 && limits.pendingCalls == 1000)
        #expect(limits.members == 50 && limits.topics == 60 && limits.subscriptionBacklog == 1 << 20)
        #expect(
            configuration.admin.listen == .unix("/run/castnet.sock")
                && configuration.admin.logLevel == "debug")
    }

    @Test("reach every key of a channel")
    func channel() throws {
        let channel = try #require(Configuration.load(path: Self.fleet, environment: [:]).channel("agents"))
        #expect(channel.group == "239.192.7.10" && channel.port == 7500 && channel.rate == 50_000_000)
        #expect(
            channel.retention == 64 << 20 && channel.retentionAge == .seconds(10) && channel.window == 4096)
        #expect(channel.repairTime == .milliseconds(500) && channel.repair == .pgmOnly)
        #expect(channel.pgmRepair == .milliseconds(200) && channel.sendPort == 7501 && channel.slow == .pace)
        #expect(
            channel.topicRate == 10_000_000 && channel.mtu == 1400 && channel.hops == 4 && channel.dscp == 10)
        #expect(channel.receiveBuffer == 8 << 20 && !channel.loop)
        let faults = try #require(channel.faults)
        #expect(faults.seed == 7 && faults.drop == 0.01 && faults.duplicate == 0.02 && faults.reorder == 0.03)
        #expect(
            faults.delay == .milliseconds(5) && faults.direction == .incoming
                && faults.types == [.odata, .nak] && faults.shift == 4_294_963_296)
    }

    @Test("reach every key of a rule")
    func rules() throws {
        let policies = try Configuration.load(path: Self.fleet, environment: [:]).policies
        #expect(policies.map(\.index) == [0, 1, 2] && policies.map(\.line) == [39, 46, 58])
        let fanout = policies[0].route
        #expect(fanout.carrier == .multicast && fanout.channel == "agents" && fanout.fallback == .none)
        #expect(fanout.lateJoin == .retained && fanout.deadline == .seconds(10))
        let hot = policies[1].route
        #expect(policies[1].kinds == [.call, .cast])
        #expect(hot.heartbeatInterval == .seconds(1) && hot.connections == 2 && hot.balance == .capacity)
        #expect(hot.settle == .processed && hot.retry == .otherMember && hot.idempotent && hot.attempts == 3)
        #expect(hot.backlog == 500 && hot.mandatory)
        let bulk = policies[2]
        #expect(bulk.size == SizeCondition(.atLeast, 65_536) && bulk.kinds == Set(MessageKind.allCases))
        #expect(bulk.route.linger == .seconds(2) && !bulk.route.share)
        #expect(bulk.route.promote == .init(afterPerMinute: 300, backPerMinute: 30))
    }

    @Test("mention every key that exists")
    func fleetIsComplete() throws {
        let text = try String(contentsOfFile: Self.everything, encoding: .utf8)
        for key in ConfigurationKey.all {
            let last = key.name.split(whereSeparator: { ".[]".contains($0) }).last.map(String.init) ?? ""
            #expect(text.contains("\(last):"), "\(key.name)")
        }
    }

    @Test("name Redis only where it is built in")
    func redis() {
        let text = "directory: {redis: {url: \"redis://u:secret@h:6380/2\"}}"
        let problems = parse(text).problems
        if BuildFacts.hasRedis {
            #expect(problems.isEmpty)
        } else {
            #expect(problems.map(\.key) == ["directory.redis"])
            #expect(problems.allSatisfy { $0.description.contains("libhiredis-dev") })
        }
        for url in ["rediss://u:secret@h", "redis://u:secret@", "redis://u:secret@h/x", "secret"] {
            let wrong = parse("directory: {redis: {url: \"\(url)\"}}").problems
            #expect(wrong.map(\.key) == ["directory.redis.url"], "\(wrong)")
            #expect(!wrong.map(\.description).joined().contains("secret"))
        }
    }

    @Test("take variables and defaults for them")
    func variables() throws {
        let text = """
            node: {name: "api-${N}", cluster: ${CLUSTER:-demo}, instance: ${EMPTY:-i1}}
            # ${COMMENT}
            limits:
              dials: ${DIALS}
            """
        let report = parse(text, environment: ["N": "7", "DIALS": "5", "EMPTY": ""])
        let configuration = try #require(report.configuration, "\(report.problems)")
        #expect(configuration.node.name == "api-7" && configuration.node.cluster == "demo")
        #expect(configuration.node.instance == "i1" && configuration.limits.dials == 5)
    }

    @Test("take overrides, the last one counting")
    func overrides() throws {
        let text = """
            node: {name: a}
            directory: {beacon: off}
            policies: [{match: "a", carrier: persistent}]
            """
        let report = parse(
            text,
            overrides: [
                .name("b"), .listen("127.0.0.1:1"), .interface("lo"), .init(key: "node.cluster", value: "x"),
                .init(key: "node.cluster", value: "${y}"), .init(key: "directory.beacon.port", value: "9"),
                .init(key: "policies[0].carrier", value: "ephemeral"),
                .init(key: "policies[1]", value: "{match: '**', carrier: persistent}"),
                .init(key: "channels.c", value: "{group: 239.1.1.1, port: 7500}"),
            ])
        let configuration = try #require(report.configuration, "\(report.problems)")
        #expect(configuration.node.name == "b" && configuration.node.cluster == "${y}")
        #expect(configuration.node.listen == HostPort(host: "127.0.0.1", port: 1))
        #expect(configuration.node.interface == "lo" && configuration.directory.beacon?.port == 9)
        #expect(configuration.policies.map(\.route.carrier) == [.ephemeral, .persistent])
        #expect(configuration.policies.map(\.line) == [3, nil])
        #expect(configuration.channels.map(\.name) == ["c"])
    }

    @Test("name the option that brought a wrong value")
    func wrongOverrides() {
        let overrides = [
            "channels.c.rate=5", "policies[7].match=a", "a..b=1", "admin=x", "limits.dials={a: 1}",
            "nod.x=[1",
        ]
        let report = parse("{}", overrides: [.listen("x")] + overrides.compactMap { .set($0) })
        let texts = report.problems.map(\.description)
        let starts = [
            "--listen:1:1: node.listen: ", "--set channels.c.rate:1:1: channels.c.rate: “5” has no unit",
            "--set policies[7].match:1:1: policies[7].match: place 7 of a list with 0 entries",
            "--set a..b:1:1: a..b: “a..b” is not a key's path", "--set admin:1:1: admin: “x”",
            "--set limits.dials:1:1: limits.dials: a map", "--set nod.x:1:1: nod.x: a YAML syntax error",
        ]
        for start in starts { #expect(texts.contains { $0.hasPrefix(start) }, "\(start) in \(texts)") }
        #expect(ConfigurationOverride.set("=1") == nil && ConfigurationOverride.set("x") == nil)
    }

    @Test("warn where size splits a topic's fanouts, and of keys without effect")
    func warnings() throws {
        let text = """
            channels: {c: {group: 224.0.0.251, port: 7500}}
            policies:
              - {match: "a.*", kinds: [fanout], size: "< 1KiB", carrier: persistent, share: false}
              - {match: "a.*", kinds: [fanout], carrier: multicast, channel: c}
            """
        let report = parse(text)
        #expect(report.problems.isEmpty)
        #expect(
            report.warnings.map { "\($0.line) \($0.key)" } == [
                "1 channels.c.group", "3 policies[0].size", "3 policies[0].share",
            ])
        #expect(report.warnings[1].found.contains("topics such as a.x over persistent and multicast on c"))
    }

    @Test("made in code are judged by the same checks")
    func code() {
        var configuration = Configuration()
        configuration.channels = [
            ChannelSettings(name: "c", group: "10.0.0.1", port: 7401),
            ChannelSettings(name: "c", group: "239.1.1.1", port: 0),
        ]
        var route = Route(carrier: .multicast, channel: "d")
        route.attempts = -5
        route.deadline = .seconds(Int64.max)
        configuration.policies = [
            Policy(match: .everything, route: route),
            Policy(match: .everything, kinds: [], route: Route(carrier: .local)),
        ]
        configuration.limits.memory = .min
        configuration.limits.message = -1
        configuration.channels[1].rate = .max
        configuration.channels[1].window = .max
        configuration.channels[1].mtu = .min
        configuration.channels[1].repairTime = .seconds(Int64.max)
        configuration.node.name = "a\nb"
        let problems = configuration.validate()
        let keys = Set(problems.map(\.key))
        let expected: Set = [
            "node.name", "channels.c.group", "channels.c.port", "channels.c", "channels.c.rate",
            "channels.c.window",
            "channels.c.mtu", "channels.c.repair-time", "policies[0].attempts", "policies[0].deadline",
            "policies[0].channel", "policies[0].carrier", "policies[1].carrier", "policies[1].kinds",
            "limits.memory", "limits.message",
        ]
        #expect(keys.isSuperset(of: expected), "\(expected.subtracting(keys))")
        #expect(problems.allSatisfy { $0.line == 0 && !$0.description.contains(":0:") })
    }
}
