/// A key of the configuration: its default, what it allows and what it is for. The parser, the checks, the
/// error texts and docs/policies.md all read this one list.
public struct ConfigurationKey: Sendable {
    /// What values a key takes.
    enum Bounds: Sendable {
        case duration(ClosedRange<Duration>)
        case bytes(ClosedRange<Int>)
        case rate(ClosedRange<Int>, orAuto: Bool)
        case perMinute(ClosedRange<Int>)
        case count(ClosedRange<Int>)
        case share
        case flag
        case words([String])
        case free(String)
    }

    /// The key's path: `channels.*.rate` with `*` for any name, `policies[].match` with `[]` for any place.
    public let name: String
    /// The default as text; `required` where there is none.
    public let standard: String
    /// What it is for, in one sentence.
    public let meaning: String
    let bounds: Bounds

    init(_ name: String, _ standard: String, _ bounds: Bounds, _ meaning: String) {
        self.name = name
        self.standard = standard
        self.bounds = bounds
        self.meaning = meaning
    }

    /// What is allowed, with its unit.
    public var allowed: String {
        switch bounds {
        case .duration(let range):
            "a time from \(Quantity.text(range.lowerBound)) to \(Quantity.text(range.upperBound)), "
                + "such as 250ms, 2s, 1min"
        case .bytes(let range):
            "bytes from \(Quantity.text(bytes: range.lowerBound)) to "
                + "\(Quantity.text(bytes: range.upperBound)), such as 64KiB, 16MiB, 50MB"
        case .rate(let range, let orAuto):
            "\(orAuto ? "auto, or " : "")a rate from \(Quantity.text(rate: range.lowerBound)) to "
                + "\(Quantity.text(rate: range.upperBound)), such as 50MB/s, 100Mbit/s"
        case .perMinute(let range):
            "messages a minute from \(range.lowerBound)/min to \(range.upperBound)/min"
        case .count(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .share: "a number from 0 to 1"
        case .flag: "true, false"
        case .words(let words): words.joined(separator: ", ")
        case .free(let text): text
        }
    }

    /// The key called `name`.
    static func named(_ name: String) -> ConfigurationKey? { byName[name] }

    /// The keys directly inside `section`, by their last part: `rate` of `channels.*`.
    static func names(in section: String) -> [String] {
        let prefix = section.isEmpty ? "" : section + "."
        var names: [String] = []
        for key in all where key.name.hasPrefix(prefix) {
            let part = key.name.dropFirst(prefix.count).prefix { $0 != "." && $0 != "[" }
            if !part.isEmpty, part != "*", !names.contains(String(part)) { names.append(String(part)) }
        }
        return names
    }

    private static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    /// Every key, in the order of the documentation.
    public static let all: [ConfigurationKey] =
        node + directory + channels + faults + policies + limits + admin

    private static let nameText = "1 to 64 bytes of printable ASCII without space"
    private static let port = Bounds.count(1...65_535)
    private static let address = Bounds.free("host:port or [IPv6]:port, port 1 to 65535")
    private static let group = Bounds.free("an IPv4 multicast group, 224.0.0.0 to 239.255.255.255")

    private static let node: [ConfigurationKey] = [
        .init("node.name", "HOST-PID", .free(nameText), "The node's name, unique in its cluster."),
        .init(
            "node.instance", "none", .free(nameText),
            "Which of several nodes behind one server name this is."),
        .init("node.cluster", "default", .free(nameText), "Nodes of different clusters never talk."),
        .init(
            "node.listen", "0.0.0.0:0", .free("host:port or [IPv6]:port; port 0 lets the kernel choose"),
            "The address links are accepted on."),
        .init("node.advertise", "the listening address", address, "The address told to other nodes."),
        .init(
            "node.interface", "the one with the listening address, else the first that can",
            .free("an interface's name, 1 to 15 bytes"), "The interface for multicast."),
        .init(
            "node.unix", "auto", .words(["auto", "off"]),
            "Whether peers on the same host are reached over a Unix-domain socket."),
        .init("node.testing", "false", .flag, "Whether faults may be injected."),
    ]

    private static let directory: [ConfigurationKey] = [
        .init(
            "directory.static", "none", .free("a list of at most 1024 maps with node, address and topics"),
            "Nodes known from the file."),
        .init("directory.static[].node", "required", .free(nameText), "The node's name."),
        .init("directory.static[].address", "required", address, "Where the node listens."),
        .init(
            "directory.static[].topics", "none", .free("a list of at most 4096 topics, without wildcards"),
            "What the node serves."),
        .init(
            "directory.beacon", "on", .free("off, or a map with group, port and interval"),
            "Multicast beacons: how nodes on one network find each other."),
        .init("directory.beacon.group", "239.192.0.1", group, "The beacons' group."),
        .init(
            "directory.beacon.port", "7401", port,
            "The beacons' UDP port, used by nothing else in the file."),
        .init(
            "directory.beacon.interval", "1s", .duration(.milliseconds(100)...(.seconds(60))),
            "The time between two beacons of a node in a small group."),
        .init(
            "directory.seeds", "none", .free("a list of at most 256 addresses, host:port"),
            "Nodes to ask over TCP, for networks without multicast."),
        .init(
            "directory.redis", "none", .free("a map with url, prefix and ttl"),
            "A Redis store of node records."),
        .init(
            "directory.redis.url", "required",
            .free("redis://user:password@host:port/number, most of it optional"), "The store's address."),
        .init(
            "directory.redis.prefix", "castnet", .free(nameText), "What every key in the store begins with."),
        .init(
            "directory.redis.ttl", "30s", .duration(.seconds(1)...(.seconds(3600))),
            "How long a record lives without being refreshed."),
    ]

    private static let channels: [ConfigurationKey] = [
        .init("channels.*.group", "required", group, "The channel's IPv4 multicast group."),
        .init(
            "channels.*.port", "required", port,
            "The channel's UDP port: no other channel or beacon in the file may use it."),
        .init(
            "channels.*.rate", "auto", .rate(1...12_500_000_000, orAuto: true),
            "Bytes a second on the wire; auto follows what the group's members can take."),
        .init(
            "channels.*.retention", "128MiB", .bytes(65_536...(64 << 30)),
            "What a sender keeps for repair, counted in packet buffers."),
        .init(
            "channels.*.retention-age", "30s", .duration(.milliseconds(100)...(.seconds(3600))),
            "How long a sender keeps a frame for repair."),
        .init(
            "channels.*.window", "from rate and retention",
            .free("a power of two from 64 to 1048576, in packets"),
            "PGM's transmit and receive window, in packets."),
        .init(
            "channels.*.repair-time", "250ms", .duration(.milliseconds(10)...(.seconds(60))),
            "The time at full rate that retention must at least cover."),
        .init(
            "channels.*.repair", "tcp", .words(ChannelSettings.Repair.allCases.map(\.rawValue)),
            "What repairs a frame PGM gave up on."),
        .init(
            "channels.*.pgm-repair", "250ms", .duration(.milliseconds(10)...(.seconds(60))),
            "How long a hole waits for PGM's own repair."),
        .init(
            "channels.*.send-port", "the kernel's choice", port,
            "The UDP source port of everything the channel sends, for firewalls."),
        .init(
            "channels.*.slow", "catch-up", .words(ChannelSettings.SlowMember.allCases.map(\.rawValue)),
            "What happens when a member cannot keep up."),
        .init(
            "channels.*.topic-rate", "no cap", .rate(1...12_500_000_000, orAuto: false),
            "Bytes a second that one topic may use of the channel."),
        .init(
            "channels.*.mtu", "auto", .free("auto, or a whole number from 576 to 65000, in bytes"),
            "The largest IP packet; auto takes the interface's."),
        .init("channels.*.hops", "1", .count(1...255), "The multicast time to live, in routers plus one."),
        .init(
            "channels.*.dscp", "the kernel's default", .count(0...63),
            "The differentiated-services code point of every packet."),
        .init(
            "channels.*.receive-buffer", "8MiB", .bytes(65_536...(1 << 30)),
            "The receive socket's buffer in the kernel."),
        .init("channels.*.loop", "true", .flag, "Whether other processes on this host hear the channel."),
        .init(
            "channels.*.faults", "none",
            .free("a map with seed, drop, duplicate, reorder, delay, direction, types, shift"),
            "Seeded faults below PGM, for tests; needs node.testing."),
    ]

    private static let faults: [ConfigurationKey] = [
        .init("channels.*.faults.seed", "0", .count(0...Int.max), "The seed every fault is drawn from."),
        .init("channels.*.faults.drop", "0", .share, "The share of packets dropped."),
        .init("channels.*.faults.duplicate", "0", .share, "The share of packets doubled."),
        .init(
            "channels.*.faults.reorder", "0", .share, "The share of packets held back behind the next one."),
        .init(
            "channels.*.faults.delay", "0s", .duration(.zero...(.seconds(10))), "Extra delay of every packet."
        ),
        .init(
            "channels.*.faults.direction", "both", .words(FaultSettings.Direction.allCases.map(\.rawValue)),
            "Which way packets must go to be touched."),
        .init(
            "channels.*.faults.types", "all",
            .free("a list of \(FaultSettings.PacketType.allCases.map(\.rawValue).joined(separator: ", "))"),
            "Which packet types are touched."),
        .init(
            "channels.*.faults.shift", "0", .count(0...Int(UInt32.max)),
            "Added to the packet numbers of this node, which end at 4294967295 and begin again."),
    ]

    private static let policies: [ConfigurationKey] = [
        .init(
            "policies[].match", "required",
            .free("a topic pattern: 1 to 8 segments of A-Z a-z 0-9 _ -, or * for one and ** for any number"),
            "The topics the rule is for."),
        .init(
            "policies[].kinds", "[call, cast, fanout]", .free("a list of call, cast, fanout"),
            "The kinds of message the rule is for."),
        .init(
            "policies[].size", "every size", .free("one of >= > <= < and bytes, such as \">= 64KiB\""),
            "The payload sizes the rule is for."),
        .init(
            "policies[].carrier", "required", .words(["multicast", "persistent", "ephemeral"]),
            "How such messages travel."),
        .init(
            "policies[].channel", "none", .free("the name of one of the file's channels"),
            "The channel of a multicast rule."),
        .init(
            "policies[].fallback", "unicast", .words(Route.Fallback.allCases.map(\.rawValue)),
            "What serves a member that does not hear the group."),
        .init(
            "policies[].late-join", "new", .words(Route.LateJoin.allCases.map(\.rawValue)),
            "What a new subscriber gets; the subscriber's own table decides."),
        .init(
            "policies[].heartbeat", "2s", .duration(.milliseconds(10)...(.seconds(3600))),
            "The heartbeat interval of a persistent link; less than half the idle time (linger)."),
        .init(
            "policies[].connections", "1", .count(1...1024),
            "Connections per topic and peer of a persistent rule."),
        .init(
            "policies[].balance", "round-robin", .words(Route.Balance.allCases.map(\.rawValue)),
            "Which member gets the next message: see below."),
        .init(
            "policies[].settle", "received", .words(Settlement.allCases.map(\.rawValue)),
            "When a cast counts as settled."),
        .init(
            "policies[].retry", "none", .words(Route.Retry.allCases.map(\.rawValue)),
            "What is done with a message that failed."),
        .init("policies[].idempotent", "false", .flag, "Whether executing a message twice does no harm."),
        .init("policies[].attempts", "2", .count(1...100), "How often a message may be tried in all."),
        .init(
            "policies[].linger", "5s", .duration(.zero...(.seconds(3600))),
            "The idle time after which a connection is closed; 0s closes an ephemeral one at once."),
        .init(
            "policies[].share", "true", .flag,
            "Whether messages to one peer share an ephemeral connection; if not, each closes its own."
        ),
        .init(
            "policies[].promote", "never",
            .free("a map with after and back, such as {after: 300/min, back: 30/min}"),
            "When a hot ephemeral topic becomes persistent."),
        .init(
            "policies[].promote.after", "required", .perMinute(1...1_000_000_000),
            "The rate above which the topic becomes persistent."),
        .init(
            "policies[].promote.back", "required", .perMinute(0...1_000_000_000),
            "The rate below which it becomes ephemeral again; less than after."),
        .init(
            "policies[].deadline", "30s", .duration(.milliseconds(1)...(.seconds(86_400))),
            "How long a message may take when the caller does not say."),
        .init(
            "policies[].backlog", "10000", .count(1...100_000_000),
            "Messages of a topic that may wait here, for each member and each handler."),
        .init(
            "policies[].mandatory", "false", .flag,
            "Whether a message nobody serves fails at once instead of waiting."),
    ]

    private static let limits: [ConfigurationKey] = [
        .init("limits.connections", "512", .count(1...1_000_000), "Open links in all."),
        .init("limits.per-peer", "64", .count(1...1_000_000), "Open links to or from one node."),
        .init("limits.per-address", "128", .count(1...1_000_000), "Open links from one address."),
        .init("limits.dials", "64", .count(1...1_000_000), "Dials in flight."),
        .init(
            "limits.hellos", "1000", .count(1...1_000_000),
            "Hellos of persistent links taken in a second; more are told to come back."),
        .init("limits.message", "64MiB", .bytes(1024...(1 << 30)), "The largest payload."),
        .init("limits.memory", "512MiB", .bytes((1 << 20)...(1 << 40)), "All buffers together."),
        .init(
            "limits.pending-calls", "65536", .count(1...16_777_216),
            "Calls and acknowledged casts in flight; the senders of more wait."),
        .init("limits.members", "16384", .count(1...1_000_000), "Nodes known."),
        .init(
            "limits.topics", "4096", .count(1...1_000_000), "Topics served, subscribed or remembered here."),
        .init(
            "limits.subscription-backlog", "16MiB", .bytes(1024...(16 << 30)),
            "What may wait in one subscription."),
    ]

    private static let admin: [ConfigurationKey] = [
        .init(
            "admin.listen", "nowhere",
            .free("127.x.y.z:port, localhost:port, [::1]:port or unix:/path (at most 107 bytes)"),
            "Where the admin page listens, for this machine only."),
        .init(
            "admin.log.level", "info",
            .words(["trace", "debug", "info", "notice", "warning", "error", "critical"]), "The log's level."),
    ]
}
