/// Judges a typed configuration as a whole: ranges, references, clashes and sums. The same checks run for a
/// file, where the log knows each value's place, and for a configuration made in code, where it knows none.
struct ConfigurationCheck {
    let configuration: Configuration
    let log: ProblemLog

    /// Reports everything that is wrong or surprising into the log.
    func run() {
        checkNode()
        checkDirectory()
        for channel in configuration.channels { check(channel, path: "channels.\(channel.name)") }
        checkChannelNames()
        checkPorts()
        PolicyCheck(configuration: configuration, log: log).run()
        checkLimits()
        checkAdmin()
        checkMemory()
    }
}

// MARK: - Bounds

extension ProblemLog {
    /// Reports `value` at `path` when it is outside of what the list of keys allows under `name`.
    func bound(_ value: Duration, _ path: String, _ name: String) {
        guard let key = ConfigurationKey.named(name), case .duration(let range) = key.bounds else { return }
        if !range.contains(value) { outOfRange(path, Quantity.text(value), key) }
    }

    /// Reports a count, an amount of bytes or a rate outside of its bounds.
    func bound(_ value: Int, _ path: String, _ name: String) {
        guard let key = ConfigurationKey.named(name) else { return }
        switch key.bounds {
        case .count(let range): if !range.contains(value) { outOfRange(path, "\(value)", key) }
        case .bytes(let range):
            if !range.contains(value) { outOfRange(path, Quantity.text(bytes: value), key) }
        case .rate(let range, _):
            if !range.contains(value) { outOfRange(path, Quantity.text(rate: value), key) }
        case .perMinute(let range): if !range.contains(value) { outOfRange(path, "\(value)/min", key) }
        default: break
        }
    }

    /// Reports a share outside of 0…1.
    func bound(_ value: Double, _ path: String, _ name: String) {
        guard let key = ConfigurationKey.named(name) else { return }
        if !(0...1).contains(value) { outOfRange(path, "\(value)", key) }
    }

    /// Reports a value that breaks the rule in words of the key `name`.
    func reject(_ value: String, _ path: String, _ name: String, because reason: String = "is not allowed") {
        guard !hasFailed(path) else { return }
        let allowed = ConfigurationKey.named(name)?.allowed ?? ""
        report(path, at: nil, found: "\(shown(value, path)) \(reason)", allowed: allowed)
    }

    /// The value as the file writes it, or else as `value` says.
    func shown(_ value: String, _ path: String) -> String { quoted(texts[path] ?? value) }

    private func outOfRange(_ path: String, _ value: String, _ key: ConfigurationKey) {
        guard !hasFailed(path) else { return }
        report(path, at: nil, found: "\(shown(value, path)) is out of range", allowed: key.allowed)
    }
}

// MARK: - Node, directory, limits, admin

extension ConfigurationCheck {
    private func checkNode() {
        let node = configuration.node
        checkName(node.name, "node.name")
        checkName(node.instance, "node.instance")
        checkName(node.cluster, "node.cluster")
        if !Self.isHost(node.listen.host) { log.reject("\(node.listen)", "node.listen", "node.listen") }
        checkAddress(node.advertise, "node.advertise", "node.advertise")
        if let interface = node.interface {
            let isName =
                (1...15).contains(interface.utf8.count) && Self.isPlain(interface) && !interface.contains("/")
            if !isName { log.reject(interface, "node.interface", "node.interface") }
        }
    }

    private func checkDirectory() {
        let directory = configuration.directory
        var seen: [String: Int] = [:]
        for (index, entry) in directory.staticEntries.enumerated() {
            let path = "directory.static[\(index)]"
            checkName(entry.node, "\(path).node", key: "directory.static[].node")
            checkAddress(entry.address, "\(path).address", "directory.static[].address")
            if let first = seen[entry.node], !entry.node.isEmpty {
                log.report(
                    "\(path).node", found: "\(quoted(entry.node)) once more; entry \(first) has that name",
                    allowed: "each node once")
            }
            seen[entry.node] = seen[entry.node] ?? index
            for (place, topic) in entry.topics.enumerated() where entry.topics[..<place].contains(topic) {
                log.report(
                    "\(path).topics[\(place)]", found: "\(quoted(topic.name)) once more",
                    allowed: "each topic once")
            }
        }
        if let beacon = directory.beacon {
            checkGroup(beacon.group, "directory.beacon.group", "directory.beacon.group")
            log.bound(Int(beacon.port), "directory.beacon.port", "directory.beacon.port")
            log.bound(beacon.interval, "directory.beacon.interval", "directory.beacon.interval")
        }
        for (index, seed) in directory.seeds.enumerated() {
            checkAddress(seed, "directory.seeds[\(index)]", "directory.seeds")
            if directory.seeds[..<index].contains(seed) {
                log.report(
                    "directory.seeds[\(index)]", found: "\(quoted("\(seed)")) once more",
                    allowed: "each seed once")
            }
        }
        if let redis = directory.redis { check(redis) }
    }

    private func check(_ redis: DirectorySettings.RedisSettings) {
        do throws(RedisAddress.Fault) {
            _ = try RedisAddress(redis.url)
        } catch {
            // The value may hold a password.
            let key = ConfigurationKey.named("directory.redis.url")
            if !log.hasFailed("directory.redis.url") {
                log.report(
                    "directory.redis.url", at: nil, found: "the URL \(error.reason)",
                    allowed: key?.allowed ?? "")
            }
        }
        checkName(redis.prefix, "directory.redis.prefix")
        log.bound(redis.timeToLive, "directory.redis.ttl", "directory.redis.ttl")
        if !BuildFacts.hasRedis {
            log.report(
                "directory.redis", found: "Redis, which this build of Castnet is without",
                allowed: "nothing here, unless Castnet is built with its trait Redis and libhiredis-dev "
                    + "(swift build --traits Multicast,Redis)")
        }
    }

    private func checkLimits() {
        let limits = configuration.limits
        let values: [(String, Int)] = [
            ("connections", limits.connections), ("per-peer", limits.perPeer),
            ("per-address", limits.perAddress), ("dials", limits.dials), ("hellos", limits.hellos),
            ("message", limits.message), ("memory", limits.memory),
            ("pending-calls", limits.pendingCalls), ("members", limits.members), ("topics", limits.topics),
            ("subscription-backlog", limits.subscriptionBacklog),
        ]
        for (key, value) in values { log.bound(value, "limits.\(key)", "limits.\(key)") }
    }

    private func checkAdmin() {
        let admin = configuration.admin
        if let level = ConfigurationKey.named("admin.log.level"), case .words(let words) = level.bounds,
            !words.contains(admin.logLevel)
        {
            log.reject(admin.logLevel, "admin.log.level", level.name, because: "is unknown")
        }
        switch admin.listen {
        case .tcp(let address):
            if !Self.isLoopback(address.host) { log.reject("\(address)", "admin.listen", "admin.listen") }
            if address.port != 0, address == configuration.node.listen {
                log.report(
                    "admin.listen", found: "\(quoted("\(address)")), where the node itself listens",
                    allowed: "an address of its own", uses: ["node.listen"])
            }
        case .unix(let path):
            if !(1...107).contains(path.utf8.count) || !path.hasPrefix("/") {
                log.reject("unix:\(path)", "admin.listen", "admin.listen")
            }
        case nil: break
        }
    }
}

// MARK: - Channels

extension ConfigurationCheck {
    private func check(_ channel: ChannelSettings, path: String) {
        let key = "channels.*"
        checkGroup(channel.group, "\(path).group", "\(key).group")
        log.bound(Int(channel.port), "\(path).port", "\(key).port")
        if let port = channel.sendPort { log.bound(Int(port), "\(path).send-port", "\(key).send-port") }
        if let rate = channel.rate { log.bound(rate, "\(path).rate", "\(key).rate") }
        if let rate = channel.topicRate { log.bound(rate, "\(path).topic-rate", "\(key).topic-rate") }
        log.bound(channel.retention, "\(path).retention", "\(key).retention")
        log.bound(channel.retentionAge, "\(path).retention-age", "\(key).retention-age")
        log.bound(channel.repairTime, "\(path).repair-time", "\(key).repair-time")
        log.bound(channel.pgmRepair, "\(path).pgm-repair", "\(key).pgm-repair")
        log.bound(channel.hops, "\(path).hops", "\(key).hops")
        if let dscp = channel.dscp { log.bound(dscp, "\(path).dscp", "\(key).dscp") }
        log.bound(channel.receiveBuffer, "\(path).receive-buffer", "\(key).receive-buffer")
        if let mtu = channel.mtu, !(576...65_000).contains(mtu) {
            log.reject("\(mtu)", "\(path).mtu", "\(key).mtu", because: "is out of range")
        }
        if let window = channel.window {
            let range = ChannelPlan.windowRange
            if window < 1 || window & (window - 1) != 0 {
                log.reject("\(window)", "\(path).window", "\(key).window", because: "is not a power of two")
            } else if !range.contains(window) {
                log.reject("\(window)", "\(path).window", "\(key).window", because: "is out of range")
            }
        }
        checkRates(channel, path: path)
        if let faults = channel.faults { check(faults, path: "\(path).faults") }
    }

    private func checkRates(_ channel: ChannelSettings, path: String) {
        let mtu = channel.mtu ?? ChannelPlan.assumedMTU
        for (key, rate) in [("rate", channel.rate), ("topic-rate", channel.topicRate)] {
            guard let rate, rate >= 1, rate < mtu else { continue }
            log.report(
                "\(path).\(key)",
                found: log.shown(Quantity.text(rate: rate), "\(path).\(key)")
                    + " is less than one packet a second",
                allowed: "at least \(Quantity.text(rate: mtu)), one packet of \(mtu) bytes",
                uses: ["\(path).mtu"])
        }
        if let rate = channel.rate, let topicRate = channel.topicRate, topicRate > rate {
            log.report(
                "\(path).topic-rate",
                found: log.shown(Quantity.text(rate: topicRate), "\(path).topic-rate")
                    + " is more than the channel's rate",
                allowed: "at most \(Quantity.text(rate: rate))", uses: ["\(path).rate"])
        }
        if let needed = ChannelPlan.repairBytes(channel, mtu: mtu), needed > channel.retention {
            let rate = Quantity.text(rate: channel.rate ?? 0)
            log.report(
                "\(path).retention",
                found:
                    "\(log.shown(Quantity.text(bytes: channel.retention), "\(path).retention")) is less than "
                    + "\(rate) for \(Quantity.text(channel.repairTime)) takes: \(needed) bytes in buffers of "
                    + "\(mtu) + \(ChannelPlan.bufferOverhead)",
                allowed: "retention of at least \(needed)B, a lower rate or a shorter repair-time",
                uses: ["\(path).rate", "\(path).repair-time", "\(path).mtu"])
        }
    }

    private func check(_ faults: FaultSettings, path: String) {
        let key = "channels.*.faults"
        log.bound(faults.drop, "\(path).drop", "\(key).drop")
        log.bound(faults.duplicate, "\(path).duplicate", "\(key).duplicate")
        log.bound(faults.reorder, "\(path).reorder", "\(key).reorder")
        log.bound(faults.delay, "\(path).delay", "\(key).delay")
        if !configuration.node.testing {
            log.report(
                path, found: "faults in a node that is not for testing",
                allowed: "faults with node.testing: true",
                uses: ["node.testing"])
        }
    }

    /// In a file a repeated name is a repeated key, which the reader reports.
    private func checkChannelNames() {
        for (index, channel) in configuration.channels.enumerated() {
            let path = "channels.\(channel.name)"
            if let fault = ConfigurationReader.channelNameFault(channel.name) {
                log.report(path, found: fault, allowed: ConfigurationReader.channelNames)
            }
            if configuration.channels[..<index].contains(where: { $0.name == channel.name }) {
                log.note(
                    path, at: nil, found: "\(quoted(channel.name)) once more", allowed: "each channel once")
            }
        }
    }

    /// A UDP port hears every group anybody on the host joined on it, so each needs a port of its own.
    private func checkPorts() {
        var uses: [(port: UInt16, path: String, what: String)] = []
        if let beacon = configuration.directory.beacon {
            uses.append((beacon.port, "directory.beacon.port", "the beacon"))
        }
        for channel in configuration.channels {
            let path = "channels.\(channel.name)"
            uses.append((channel.port, "\(path).port", "channel \(channel.name)"))
            if let port = channel.sendPort {
                uses.append((port, "\(path).send-port", "the send-port of channel \(channel.name)"))
            }
        }
        for (index, use) in uses.enumerated() where use.port != 0 {
            guard let other = uses[..<index].first(where: { $0.port == use.port }) else { continue }
            log.report(
                use.path, found: "UDP port \(use.port), which \(other.what) uses already",
                allowed: "a UDP port of its own", uses: [other.path])
        }
    }

    private func checkMemory() {
        let plan = MemoryPlan(configuration)
        let limit = configuration.limits.memory
        let uses = ["limits.memory", "limits.subscription-backlog", "channels"]
        guard plan.totalBytes > limit, !uses.contains(where: log.hasFailed) else { return }
        let parts = plan.parts.map { "\($0.name) \($0.bytes)" }.joined(separator: " + ")
        let isWritten = log.places["limits.memory"] != nil
        log.note(
            "limits.memory", at: log.place(of: isWritten ? "limits.memory" : "channels"),
            found:
                "\(log.shown(Quantity.text(bytes: limit), "limits.memory")) is less than this table may use: "
                + "\(plan.totalBytes) bytes (\(parts))",
            allowed: "limits.memory of at least \(plan.totalBytes)B, or smaller retention, windows or "
                + "subscription-backlog")
    }
}

// MARK: - Texts

extension ConfigurationCheck {
    private func checkName(_ name: String?, _ path: String, key: String? = nil) {
        guard let name, !(1...64).contains(name.utf8.count) || !Self.isPlain(name) else { return }
        log.reject(name, path, key ?? path)
    }

    private func checkAddress(_ address: HostPort?, _ path: String, _ key: String) {
        guard let address, address.port == 0 || !Self.isHost(address.host) else { return }
        log.reject("\(address)", path, key)
    }

    private func checkGroup(_ group: String, _ path: String, _ key: String) {
        let parts = group.split(separator: ".", omittingEmptySubsequences: false)
        let bytes = parts.compactMap { part in
            part.utf8.allSatisfy { (0x30...0x39).contains($0) } && part.utf8.count <= 3 ? UInt8(part) : nil
        }
        guard parts.count == 4, bytes.count == 4 else {
            let reason = group.contains(":") ? "is no IPv4 address" : "is no address"
            return log.reject(group, path, key, because: reason)
        }
        if !(224...239).contains(bytes[0]) {
            log.reject(group, path, key, because: "is no multicast group")
        } else if bytes[..<3] == [224, 0, 0] {
            log.warn(
                path, found: "\(quoted(group)) belongs to the network's own protocols",
                allowed: "a group of your own, best of 239.0.0.0/8")
        }
    }

    /// Printable ASCII without space.
    private static func isPlain(_ text: String) -> Bool {
        text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
    }

    /// An IPv4 or IPv6 address or a host name, by its letters.
    /// The admin page tells everything to everybody who asks: only this machine may.
    private static func isLoopback(_ host: String) -> Bool {
        let bytes = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        return ["localhost", "::1"].contains(host)
            || bytes.count == 4 && bytes[0] == 127 && bytes.allSatisfy { $0 != nil }
    }

    private static func isHost(_ host: String) -> Bool {
        (1...253).contains(host.utf8.count)
            && host.unicodeScalars.allSatisfy {
                $0.isASCII && ($0.properties.isAlphabetic || "0123456789.-_:%".unicodeScalars.contains($0))
            }
    }
}
