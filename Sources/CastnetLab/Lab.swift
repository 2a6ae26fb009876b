internal import FoundationEssentials
internal import Glibc

/// Hosts as network namespaces around one bridge.
///
/// The bridge has a namespace of its own, so the machine's own network is never touched, and every fault is
/// put on the bridge's side of a link: what a host sends is counted and lost on the wire, not refused to it.
/// Needs the right to make namespaces: root, or the inside of ``PrivateLab``.
package struct Lab: Sendable {
    /// Begins the names of the lab's namespaces.
    package let prefix: String
    /// In address order.
    package let hosts: [LabHost]

    /// The one subnet of every lab; labs do not see each other, so they can share it.
    package static let network = "10.77.0.0/24"
    /// What the hosts route to the wire: the organisation-local multicast block.
    package static let multicastRoute = "239.192.0.0/16"

    static let bridgeDevice = "br0"

    var bridgeNamespace: String { "\(prefix)-\(LabOptions.bridgeName)" }

    /// The host of that name; an error lists those there are.
    package func host(_ name: String) throws -> LabHost {
        if let host = hosts.first(where: { $0.name == name }) { return host }
        let names = hosts.map(\.name).joined(separator: ", ")
        throw LabError.notFound("no host `\(name)` in lab `\(prefix)`; there are: \(names)")
    }

    // MARK: Making and ending

    /// Builds a lab. If a step fails, what stood so far is taken down again.
    package static func up(_ options: LabOptions) async throws -> Lab {
        try options.validate()
        guard try await namespaces(prefix: options.prefix).isEmpty else {
            throw LabError.invalid("a lab `\(options.prefix)` is up already; take it down first")
        }
        let hosts = options.hosts.enumerated().map { index, name in
            LabHost(name: name, index: index + 1, prefix: options.prefix, mtu: options.mtu)
        }
        let lab = Lab(prefix: options.prefix, hosts: hosts)
        do {
            try await lab.build(options)
        } catch {
            try? await lab.down()
            throw error
        }
        return lab
    }

    /// Kills what still runs on the hosts and removes them and the bridge.
    package func down() async throws {
        try await Self.removeNamespaces(prefix: prefix)
    }

    /// Builds a lab, runs `body` and takes the lab down again, whatever happens.
    package static func with<Result: Sendable>(
        _ options: LabOptions, _ body: (Lab) async throws -> Result
    ) async throws -> Result {
        let lab = try await up(options)
        let result: Result
        do {
            result = try await body(lab)
        } catch {
            try? await lab.down()
            throw error
        }
        try await lab.down()
        return result
    }

    /// Finds a lab that another process made.
    package static func attach(prefix: String) async throws -> Lab {
        guard try await namespaces(prefix: prefix).contains("\(prefix)-\(LabOptions.bridgeName)") else {
            throw LabError.notFound("no lab `\(prefix)` is up")
        }
        let bare = Lab(prefix: prefix, hosts: [])
        let hosts = try await bare.ports().compactMap { LabHost(port: $0, prefix: prefix) }
        return Lab(prefix: prefix, hosts: hosts.sorted { $0.index < $1.index })
    }

    /// Removes every namespace of a lab, also of one half built.
    package static func removeNamespaces(prefix: String) async throws {
        let names = try await namespaces(prefix: prefix)
        for name in names {
            // Killed, not asked: a namespace with a process in it outlives its name.
            for pid in try await Tool.run("ip", ["netns", "pids", name]).split(separator: "\n") {
                if let pid = pid_t(pid) { kill(pid, SIGKILL) }
            }
        }
        guard !names.isEmpty else { return }
        try await Tool.run("ip", ["-batch", "-"], input: names.map { "netns del \($0)\n" }.joined())
    }

    /// Names of the namespaces of one lab, among all of this mount namespace.
    static func namespaces(prefix: String) async throws -> [String] {
        // A line is `NAME` or `NAME (id: N)`.
        try await Tool.run("ip", ["netns", "list"]).split(separator: "\n")
            .compactMap { $0.split(separator: " ").first.map(String.init) }
            .filter { $0.hasPrefix("\(prefix)-") }
    }

    // MARK: Steps of building

    private func build(_ options: LabOptions) async throws {
        try await Tool.run("ip", ["-batch", "-"], input: namespaceBatch(mtu: options.mtu))
        try await configureBridge(mtu: options.mtu)
        for host in hosts {
            try await Tool.run("ip", ["-n", host.netns, "-batch", "-"], input: host.configurationBatch())
        }
        if !options.offload { try await switchOffloadsOff() }
        try await waitForLinks(hosts)
    }

    /// A link carries nothing until the kernel has noticed its carrier, which may take a second.
    func waitForLinks(_ hosts: [LabHost]) async throws {
        let wanted = Set(hosts.map(\.port))
        let deadline = ContinuousClock.now + .seconds(10)
        while true {
            let up = try await ports().filter { $0.operstate == "UP" }.map(\.ifname)
            let missing = wanted.subtracting(up)
            if missing.isEmpty { return }
            guard ContinuousClock.now < deadline else {
                throw LabError.timedOut("links \(missing.sorted()) of lab `\(prefix)` stay down")
            }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private func namespaceBatch(mtu: Int) -> String {
        var batch = "netns add \(bridgeNamespace)\n"
        for host in hosts {
            batch += "netns add \(host.netns)\n"
            batch += "link add name \(LabHost.interface) netns \(host.netns) mtu \(mtu) type veth"
            batch += " peer name \(host.port) netns \(bridgeNamespace) mtu \(mtu)\n"
        }
        return batch
    }

    /// A snooping bridge floods every group to every port until its querier has been up for one query
    /// response interval, 10 s by default, and a measurement taken then is three times too slow. The interval
    /// counts from the moment the querier is switched on, and is set before that in a command of its own
    /// because the kernel applies `mcast_querier` first within one. So the bridge filters after 0.1 s.
    private func configureBridge(mtu: Int) async throws {
        let device = Self.bridgeDevice
        var batch = """
            link set lo up
            link add \(device) mtu \(mtu) type bridge mcast_snooping 1 mcast_query_response_interval 10
            link set \(device) addrgenmode none
            link set \(device) type bridge mcast_igmp_version 3 mcast_startup_query_interval 100
            link set \(device) type bridge mcast_query_interval 3000
            link set \(device) type bridge mcast_querier 1
            link set \(device) up

            """
        for host in hosts {
            // The alias carries what another process needs in order to attach.
            batch += "link set \(host.port) addrgenmode none\n"
            batch += "link set \(host.port) alias \(host.alias)\n"
            batch += "link set \(host.port) master \(device) up\n"
        }
        try await Tool.run("ip", ["-n", bridgeNamespace, "-batch", "-"], input: batch)
        try await Tool.run(
            "ip", ["netns", "exec", bridgeNamespace, "nft", "add", "table", "netdev", Fault.table])
    }

    private func switchOffloadsOff() async throws {
        let features = ["tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"]
        let ends =
            hosts.map { ($0.netns, LabHost.interface) } + hosts.map { (bridgeNamespace, $0.port) }
        for (namespace, device) in ends {
            try await Tool.run("ip", ["netns", "exec", namespace, "ethtool", "-K", device] + features)
        }
    }

    // MARK: Looking

    /// The bridge's ports as the kernel lists them.
    func ports() async throws -> [BridgePort] {
        let text = try await Tool.run(
            "ip", ["-n", bridgeNamespace, "-j", "link", "show", "master", Self.bridgeDevice])
        // Without any port `ip` prints nothing, or an empty list, by version.
        guard !text.trimmed.isEmpty else { return [] }
        return try JSONDecoder().decode([BridgePort].self, from: Data(text.utf8)).filter { $0.alias != nil }
    }

    /// The hosts that have joined a multicast group, as the bridge has learned from their reports.
    package func listeners(of group: String) async throws -> Set<String> {
        let text = try await Tool.run(
            "bridge", ["-n", bridgeNamespace, "-o", "mdb", "show", "dev", Self.bridgeDevice])
        // `N: br0  p2  239.192.7.10  temp`, with `grp` before the group in some versions.
        let ports = text.split(separator: "\n").map {
            $0.split(whereSeparator: \.isWhitespace).map(String.init)
        }
        .filter { $0.contains(group) }
        return Set(hosts.filter { host in ports.contains { $0.contains(host.port) } }.map(\.name))
    }

    /// True where this process can make namespaces; otherwise why not.
    package static func availability() async -> LabAvailability {
        for tool in ["ip", "nft", "tc", "ethtool"] where Tool.path(of: tool) == nil {
            return .unavailable(LabError.toolMissing(tool).description)
        }
        guard geteuid() == 0 else {
            return .unavailable("namespaces need root; `castnet lab run` makes a private lab where it can")
        }
        do {
            let probe = LabOptions.freshPrefix() + "-probe"
            try await Tool.run("ip", ["netns", "add", probe])
            try await Tool.run("ip", ["netns", "del", probe])
            return .available
        } catch {
            return .unavailable("\(error)")
        }
    }
}

/// Whether something can be had here, and if not, why.
package enum LabAvailability: Sendable, Equatable {
    case available
    case unavailable(String)

    package var isAvailable: Bool { self == .available }
    /// Why not; nil where it is available.
    package var why: String? {
        if case .unavailable(let why) = self { why } else { nil }
    }
}

/// One line of `ip -j link show master br0`.
struct BridgePort: Decodable {
    let ifname: String
    let mtu: Int
    let operstate: String
    let flags: [String]
    let alias: String?

    enum CodingKeys: String, CodingKey {
        case ifname, mtu, operstate, flags
        case alias = "ifalias"
    }
}
