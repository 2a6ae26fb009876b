internal import Glibc

/// One host of a lab: a network namespace with `eth0` on the lab's bridge.
package struct LabHost: Sendable, Hashable {
    package let name: String
    /// The network namespace, as `ip netns` names it.
    package let netns: String
    /// The lab this host belongs to.
    package let prefix: String
    /// MTU the link was made with; ``Fault/mtu(_:)`` changes the link, not this.
    package let mtu: Int
    /// Position in the lab, from 1.
    let index: Int

    package static let interface = "eth0"

    init(name: String, index: Int, prefix: String, mtu: Int) {
        self.name = name
        self.index = index
        self.prefix = prefix
        self.mtu = mtu
        netns = "\(prefix)-\(name)"
    }

    /// Reads a host back from its port on the bridge.
    init?(port: BridgePort, prefix: String) {
        guard port.ifname.first == "p", let index = Int(port.ifname.dropFirst()),
            let words = port.alias?.split(separator: " "), words.count == 2, let mtu = Int(words[1])
        else { return nil }
        self.init(name: String(words[0]), index: index, prefix: prefix, mtu: mtu)
    }

    package var interface: String { Self.interface }
    /// Without the prefix length.
    package var address: String { "10.77.0.\(10 + index)" }

    /// The bridge's end of this host's link.
    var port: String { "p\(index)" }
    var alias: String { "\"\(name) \(mtu)\"" }
    var bridgeNamespace: String { "\(prefix)-\(LabOptions.bridgeName)" }

    func configurationBatch() -> String {
        // No IPv6 address on the wire: its neighbour and listener reports would blur the byte counts.
        """
        link set lo up
        link set \(interface) addrgenmode none
        addr add \(address)/24 dev \(interface)
        link set \(interface) up
        route add \(Lab.multicastRoute) dev \(interface)

        """
    }

    // MARK: Running programs

    /// Runs a program on this host to its end, whatever its exit code.
    ///
    /// Output above 4 MiB is an error; use ``spawn(_:_:environment:)`` for talkative programs.
    package func run(
        _ command: String, _ arguments: String..., input: String = "", environment: [String: String] = [:]
    ) async throws -> LabOutput {
        try await run([command] + arguments, input: input, environment: environment)
    }

    /// The same for a list.
    package func run(
        _ command: [String], input: String = "", environment: [String: String] = [:]
    ) async throws -> LabOutput {
        try await Tool.capture(
            "ip", ["netns", "exec", netns] + command, input: input, environment: environment)
    }

    /// Starts a program that keeps running on this host; its lines are collected.
    package func spawn(
        _ command: String, _ arguments: [String] = [], environment: [String: String] = [:]
    ) async throws -> LabProcess {
        try await LabProcess.spawn(
            "ip", ["netns", "exec", netns, command] + arguments, environment: environment,
            title: ([name, command] + arguments).joined(separator: " "))
    }

    /// Turns this process into a program on this host; returns only by an error.
    package func become(_ command: [String]) throws {
        guard let ip = Tool.path(of: "ip") else { throw LabError.toolMissing("ip") }
        let words = ["ip", "netns", "exec", netns] + command
        // The calling thread belongs to a pool whose threads block signals; the command would inherit that
        // and never hear of a SIGTERM.
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
        execv(ip, words.map { strdup($0) } + [nil])
        throw LabError.toolFailed(
            command: words.joined(separator: " "), status: "did not start",
            stderr: String(cString: strerror(errno)))
    }

    // MARK: Counting

    /// What passed this host's interface since the lab was made.
    package func counters() async throws -> InterfaceCounters {
        try await InterfaceCounters.read(netns: netns, interface: interface)
    }

    /// Bytes this host has put on the wire.
    ///
    /// With segmentation offload the kernel counts a buffer of up to 44 packets once, headers too: about
    /// 3 % less than a wire would carry. Switch offload off where that matters.
    package func wireBytes() async throws -> Int { try await counters().bytesSent }
}

/// The kernel's counters of one interface.
package struct InterfaceCounters: Sendable, Equatable {
    package var bytesSent = 0
    package var packetsSent = 0
    package var bytesReceived = 0
    package var packetsReceived = 0

    static func read(netns: String, interface: String) async throws -> InterfaceCounters {
        let directory = "/sys/class/net/\(interface)/statistics/"
        let names = ["tx_bytes", "tx_packets", "rx_bytes", "rx_packets"]
        let text = try await Tool.run(
            "ip", ["netns", "exec", netns, "cat"] + names.map { directory + $0 })
        let values = text.split(separator: "\n").compactMap { Int($0) }
        guard values.count == names.count else {
            throw LabError.invalid("counters of \(interface) in \(netns) do not read: `\(text)`")
        }
        return InterfaceCounters(
            bytesSent: values[0], packetsSent: values[1], bytesReceived: values[2], packetsReceived: values[3]
        )
    }

    /// What passed between two readings.
    package static func - (later: Self, earlier: Self) -> Self {
        InterfaceCounters(
            bytesSent: later.bytesSent - earlier.bytesSent,
            packetsSent: later.packetsSent - earlier.packetsSent,
            bytesReceived: later.bytesReceived - earlier.bytesReceived,
            packetsReceived: later.packetsReceived - earlier.packetsReceived)
    }
}
