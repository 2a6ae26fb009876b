/// Turns a ``SourceTree`` into a typed configuration.
struct ConfigurationReader {
    private static let channelCountMax = 64
    static let policyCountMax = 1024
    private let root: SectionReader
    private let log: ProblemLog

    /// Nil, with a problem, when the file's top is no map.
    init?(_ tree: SourceTree, log: ProblemLog) {
        let sections = ConfigurationKey.names(in: "") + ["channels", "policies"]
        let allowed = "a map with \(Set(sections).sorted().joined(separator: ", "))"
        guard let root = SectionReader(tree, path: "", section: "", allowed: allowed, log: log) else {
            return nil
        }
        self.root = root
        self.log = log
    }

    /// Everything that could be read; what could not keeps its default and has a problem in the log.
    func configuration() -> Configuration {
        var configuration = Configuration()
        if let section = root.section("node") { read(section, into: &configuration.node) }
        if let section = root.section("directory") { read(section, into: &configuration.directory) }
        configuration.channels = channels()
        configuration.policies = policies()
        if let section = root.section("limits") { read(section, into: &configuration.limits) }
        if let section = root.section("admin") { read(section, into: &configuration.admin) }
        return configuration
    }
}

// MARK: - node, limits, admin

extension ConfigurationReader {
    private func read(_ section: SectionReader, into node: inout NodeSettings) {
        if let name = section.text("name") { node.name = name }
        if let instance = section.text("instance") { node.instance = instance }
        if let cluster = section.text("cluster") { node.cluster = cluster }
        if let listen = section.value("listen", Self.address) { node.listen = listen }
        if let advertise = section.value("advertise", Self.address) { node.advertise = advertise }
        if let interface = section.text("interface") { node.interface = interface }
        if let unix = section.value("unix", Self.autoOrOff) { node.unixSockets = unix }
        if let testing = section.flag("testing") { node.testing = testing }
    }

    private func read(_ section: SectionReader, into limits: inout LimitSettings) {
        func count(_ key: String, _ path: WritableKeyPath<LimitSettings, Int>) {
            if let value = section.value(key, Quantity.count) { limits[keyPath: path] = value }
        }
        func bytes(_ key: String, _ path: WritableKeyPath<LimitSettings, Int>) {
            if let value = section.value(key, Quantity.bytes) { limits[keyPath: path] = value }
        }
        count("connections", \.connections)
        count("per-peer", \.perPeer)
        count("per-address", \.perAddress)
        count("dials", \.dials)
        count("hellos", \.hellos)
        bytes("message", \.message)
        bytes("memory", \.memory)
        count("pending-calls", \.pendingCalls)
        count("members", \.members)
        count("topics", \.topics)
        bytes("subscription-backlog", \.subscriptionBacklog)
    }

    private func read(_ section: SectionReader, into admin: inout AdminSettings) {
        if let listen = section.value("listen", Self.adminAddress) { admin.listen = listen }
        if let log = section.section("log"), let level = log.text("level") { admin.logLevel = level }
    }
}

// MARK: - directory

extension ConfigurationReader {
    private func read(_ section: SectionReader, into directory: inout DirectorySettings) {
        directory.staticEntries = section.sections("static", countMax: 1024).compactMap { _, entry in
            entry.flatMap(staticEntry)
        }
        beacon(section, into: &directory)
        let allowed = section.allowed("seeds")
        directory.seeds = section.list("seeds", allowed: allowed, countMax: 256).compactMap { index, tree in
            let path = "\(section.path("seeds"))[\(index)]"
            guard let text = section.text(of: tree, path: path, allowed: allowed) else { return nil }
            if let address = try? Self.address(text) { return address }
            log.report(path, at: tree.place, found: "\(quoted(text)) is not host:port", allowed: allowed)
            return nil
        }
        guard let redis = section.section("redis") else { return }
        redis.reportMissing("url")
        var settings = DirectorySettings.RedisSettings(url: redis.text("url") ?? "")
        if let prefix = redis.text("prefix") { settings.prefix = prefix }
        if let ttl = redis.value("ttl", Quantity.duration) { settings.timeToLive = ttl }
        directory.redis = settings
    }

    private func beacon(_ section: SectionReader, into directory: inout DirectorySettings) {
        guard let tree = section.tree("beacon") else { return }
        if case .text("off") = tree.content {
            directory.beacon = nil
            return
        }
        let allowed = section.allowed("beacon")
        guard
            let reader = SectionReader(
                tree, path: section.path("beacon"), section: "directory.beacon", allowed: allowed, log: log)
        else { return }
        var beacon = DirectorySettings.BeaconSettings()
        if let group = reader.text("group") { beacon.group = group }
        if let port = reader.value("port", Self.port) { beacon.port = port }
        if let interval = reader.value("interval", Quantity.duration) { beacon.interval = interval }
        directory.beacon = beacon
    }

    private func staticEntry(_ section: SectionReader) -> DirectorySettings.StaticEntry? {
        section.reportMissing("node")
        section.reportMissing("address")
        let allowed = section.allowed("topics")
        var topics: [Topic] = []
        for (index, tree) in section.list("topics", allowed: allowed, countMax: 4096) {
            let path = "\(section.path("topics"))[\(index)]"
            guard let text = section.text(of: tree, path: path, allowed: allowed) else { continue }
            if let fault = Topic.fault(in: text, wildcards: false) {
                log.report(path, at: tree.place, found: "\(quoted(text)) \(fault)", allowed: allowed)
            } else {
                topics.append(Topic(unchecked: text))
            }
        }
        let node = section.text("node")
        let address = section.value("address", Self.address)
        // A broken entry keeps its place, so that paths of the others still fit.
        return .init(node: node ?? "", address: address ?? HostPort(host: "", port: 0), topics: topics)
    }
}

// MARK: - channels

extension ConfigurationReader {
    private func channels() -> [ChannelSettings] {
        guard let section = root.section("channels") else { return [] }
        if section.named.count > Self.channelCountMax {
            log.report(
                "channels", at: section.place, found: "\(section.named.count) channels",
                allowed: "at most \(Self.channelCountMax) channels")
            return []
        }
        return section.named.compactMap { entry in
            let path = "channels.\(entry.key)"
            if let fault = Self.channelNameFault(entry.key) {
                log.report(path, at: entry.place, found: fault, allowed: Self.channelNames)
            }
            let allowed = "a map with \(ConfigurationKey.names(in: "channels.*").joined(separator: ", "))"
            return SectionReader(entry.value, path: path, section: "channels.*", allowed: allowed, log: log)
                .map { channel($0, name: entry.key) }
        }
    }

    static let channelNames = "names of 1 to 63 letters, digits, _ and -"

    static func channelNameFault(_ name: String) -> String? {
        let segment = Topic.fault(in: name, wildcards: false) != nil || name.contains(".")
        return segment ? "the channel name \(quoted(name))" : nil
    }

    private func channel(_ section: SectionReader, name: String) -> ChannelSettings {
        section.reportMissing("group")
        section.reportMissing("port")
        var channel = ChannelSettings(
            name: name, group: section.text("group") ?? "", port: section.value("port", Self.port) ?? 0)
        if let rate = section.value("rate", Self.automatic(Quantity.rate)) { channel.rate = rate }
        if let bytes = section.value("retention", Quantity.bytes) { channel.retention = bytes }
        if let age = section.value("retention-age", Quantity.duration) { channel.retentionAge = age }
        if let window = section.value("window", Quantity.count) { channel.window = window }
        if let time = section.value("repair-time", Quantity.duration) { channel.repairTime = time }
        if let repair = section.word("repair", as: ChannelSettings.Repair.self) { channel.repair = repair }
        if let time = section.value("pgm-repair", Quantity.duration) { channel.pgmRepair = time }
        if let port = section.value("send-port", Self.port) { channel.sendPort = port }
        if let slow = section.word("slow", as: ChannelSettings.SlowMember.self) { channel.slow = slow }
        if let rate = section.value("topic-rate", Quantity.rate) { channel.topicRate = rate }
        if let mtu = section.value("mtu", Self.automatic(Quantity.count)) { channel.mtu = mtu }
        if let hops = section.value("hops", Quantity.count) { channel.hops = hops }
        if let dscp = section.value("dscp", Quantity.count) { channel.dscp = dscp }
        if let bytes = section.value("receive-buffer", Quantity.bytes) { channel.receiveBuffer = bytes }
        if let loop = section.flag("loop") { channel.loop = loop }
        if let faults = section.section("faults") { channel.faults = self.faults(faults) }
        return channel
    }

    private func faults(_ section: SectionReader) -> FaultSettings {
        var faults = FaultSettings()
        if let seed = section.value("seed", Self.seed) { faults.seed = seed }
        if let share = section.value("drop", Self.share) { faults.drop = share }
        if let shift = section.value("shift", Self.shift) { faults.shift = shift }
        if let share = section.value("duplicate", Self.share) { faults.duplicate = share }
        if let share = section.value("reorder", Self.share) { faults.reorder = share }
        if let delay = section.value("delay", Quantity.duration) { faults.delay = delay }
        if let direction = section.word("direction", as: FaultSettings.Direction.self) {
            faults.direction = direction
        }
        faults.types = Set(words("types", of: section, as: FaultSettings.PacketType.self) ?? [])
        return faults
    }
}

// MARK: - policies

extension ConfigurationReader {
    private func policies() -> [Policy] {
        root.sections("policies", countMax: Self.policyCountMax).compactMap { index, section in
            section.flatMap { policy($0, index: index) }
        }
    }

    /// Nil, with a problem, when what the rule is for, or its carrier, cannot be read.
    private func policy(_ section: SectionReader, index: Int) -> Policy? {
        section.reportMissing("match")
        section.reportMissing("carrier")
        var match: TopicPattern?
        if let text = section.text("match") {
            if let fault = Topic.fault(in: text, wildcards: true) {
                section.report("match", "\(quoted(text)) \(fault)")
            } else {
                match = TopicPattern(unchecked: text)
            }
        }
        var kinds: Set<MessageKind>? = Set(MessageKind.allCases)
        if section.tree("kinds") != nil {
            kinds = words("kinds", of: section, as: MessageKind.self).map { Set($0) }
        }
        let hasSize = section.tree("size") != nil
        let size = section.value("size", Self.sizeCondition)
        let carrier = section.value("carrier", Self.carrier)
        let route = self.route(section, carrier: carrier ?? .ephemeral)
        guard let match, let kinds, let carrier, !hasSize || size != nil else { return nil }
        var policy = Policy(index: index, match: match, kinds: kinds, size: size, route: route)
        policy.route.carrier = carrier
        policy.line = section.place.rank == 0 ? section.place.line : nil
        return policy
    }

    private func route(_ section: SectionReader, carrier: Carrier) -> Route {
        var route = Route(carrier: carrier, channel: section.text("channel"))
        if let fallback = section.word("fallback", as: Route.Fallback.self) { route.fallback = fallback }
        if let join = section.word("late-join", as: Route.LateJoin.self) { route.lateJoin = join }
        if let time = section.value("heartbeat", Quantity.duration) { route.heartbeatInterval = time }
        if let count = section.value("connections", Quantity.count) { route.connections = count }
        if let balance = section.word("balance", as: Route.Balance.self) { route.balance = balance }
        if let settle = section.word("settle", as: Settlement.self) { route.settle = settle }
        if let retry = section.word("retry", as: Route.Retry.self) { route.retry = retry }
        if let flag = section.flag("idempotent") { route.idempotent = flag }
        if let count = section.value("attempts", Quantity.count) { route.attempts = count }
        if let time = section.value("linger", Quantity.duration) { route.linger = time }
        if let flag = section.flag("share") { route.share = flag }
        if let time = section.value("deadline", Quantity.duration) { route.deadline = time }
        if let count = section.value("backlog", Quantity.count) { route.backlog = count }
        if let flag = section.flag("mandatory") { route.mandatory = flag }
        if let promote = section.section("promote") {
            promote.reportMissing("after")
            promote.reportMissing("back")
            let after = promote.value("after", Quantity.perMinute)
            let back = promote.value("back", Quantity.perMinute)
            if let after, let back { route.promote = .init(afterPerMinute: after, backPerMinute: back) }
        }
        return route
    }

    /// A list of an enumeration's words, each once; nil, with a problem, when it is none or empty.
    private func words<Word: RawRepresentable<String> & CaseIterable & Hashable>(
        _ key: String, of section: SectionReader, as type: Word.Type
    ) -> [Word]? {
        guard let tree = section.tree(key) else { return nil }
        let allowed = section.allowed(key)
        if case .list(let items) = tree.content, items.isEmpty {
            log.report(section.path(key), at: tree.place, found: "an empty list", allowed: allowed)
        }
        var words: [Word] = []
        var isWhole = true
        for (index, item) in section.list(key, allowed: allowed, countMax: 64) {
            let path = "\(section.path(key))[\(index)]"
            guard let text = section.text(of: item, path: path, allowed: allowed) else { return nil }
            guard let word = Word(rawValue: text) else {
                log.report(path, at: item.place, found: "\(quoted(text)) is unknown", allowed: allowed)
                isWhole = false
                continue
            }
            if words.contains(word) {
                log.report(path, at: item.place, found: "\(quoted(text)) once more", allowed: "each once")
                isWhole = false
            }
            words.append(word)
        }
        return isWhole && !words.isEmpty ? words : nil
    }
}

// MARK: - Values

extension ConfigurationReader {
    private static func address(_ text: String) throws(Quantity.Fault) -> HostPort {
        let digits = text.reversed().prefix { $0 != ":" }
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }), let address = HostPort(text) else {
            throw .init("is not host:port")
        }
        return address
    }

    private static func adminAddress(_ text: String) throws(Quantity.Fault) -> AdminSettings.Address {
        if text.hasPrefix("unix:") { return .unix(String(text.dropFirst(5))) }
        return .tcp(try address(text))
    }

    private static func autoOrOff(_ text: String) throws(Quantity.Fault) -> Bool {
        switch text {
        case "auto": return true
        case "off": return false
        default: throw .init("is unknown")
        }
    }

    private static func port(_ text: String) throws(Quantity.Fault) -> UInt16 {
        let value = try Quantity.count(text)
        guard let port = UInt16(exactly: value), port > 0 else { throw .init("is no port") }
        return port
    }

    private static func seed(_ text: String) throws(Quantity.Fault) -> UInt64 {
        UInt64(try Quantity.count(text))
    }

    private static func shift(_ text: String) throws(Quantity.Fault) -> UInt32 {
        guard let shift = UInt32(exactly: try Quantity.count(text)) else { throw .init("is out of range") }
        return shift
    }

    private static func share(_ text: String) throws(Quantity.Fault) -> Double {
        let isPlain = text.utf8.allSatisfy { $0 == UInt8(ascii: ".") || (0x30...0x39).contains($0) }
        guard isPlain, text.utf8.count <= 20, let value = Double(text) else { throw .init("is no number") }
        return value
    }

    private static func automatic<Value>(
        _ parse: @escaping (String) throws(Quantity.Fault) -> Value
    ) -> (String) throws(Quantity.Fault) -> Value? {
        { text throws(Quantity.Fault) in text == "auto" ? nil : try parse(text) }
    }

    private static func carrier(_ text: String) throws(Quantity.Fault) -> Carrier {
        guard let carrier = Carrier(rawValue: text), carrier != .local else { throw .init("is unknown") }
        return carrier
    }

    private static func sizeCondition(_ text: String) throws(Quantity.Fault) -> SizeCondition {
        let comparisons = SizeCondition.Comparison.allCases.sorted { $0.rawValue.count > $1.rawValue.count }
        guard let comparison = comparisons.first(where: { text.hasPrefix($0.rawValue) }) else {
            throw .init("does not begin with a comparison")
        }
        let amount = text.dropFirst(comparison.rawValue.count).drop { $0 == " " }
        return SizeCondition(comparison, try Quantity.bytes(String(amount)))
    }
}
