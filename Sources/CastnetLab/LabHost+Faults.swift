internal import FoundationEssentials

/// A fault that stands; clear it with ``LabHost/clear(_:)``.
package struct AppliedFault: Sendable, Hashable {
    package let fault: Fault
    /// Tells this fault's nft chains from those of others on the same port.
    let id: UInt32
}

extension LabHost {
    /// Puts a fault on this host's link until it is cleared.
    ///
    /// Packet faults add up; a second rate, MTU or link fault replaces the first. Everything sits on the
    /// bridge's side of the link, except the outgoing rate, which a sender must feel as a full interface.
    @discardableResult
    package func apply(_ fault: Fault) async throws -> AppliedFault {
        try fault.validate()
        let applied = AppliedFault(fault: fault, id: UInt32.random(in: .min ... .max))
        switch fault {
        case .drop, .duplicate, .blackout: try await addPacketRules(of: applied)
        case .rate(let bits, let direction):
            for side in direction.single { try await setRate(bits, side) }
        case .mtu(let mtu): try await setMTU(mtu)
        case .linkDown: try await setLink(up: false)
        }
        return applied
    }

    /// Puts a fault on for a while, and clears it also when the task is cancelled meanwhile.
    package func apply(_ fault: Fault, for duration: Duration) async throws {
        try await with(fault) { try await Task.sleep(for: duration) }
    }

    /// Puts a fault on while `body` runs.
    package func with<Result: Sendable>(
        _ fault: Fault, _ body: () async throws -> Result
    ) async throws -> Result {
        let applied = try await apply(fault)
        let result: Result
        do {
            result = try await body()
        } catch {
            await clearInAnyCase(applied)
            throw error
        }
        try await clear(applied)
        return result
    }

    /// Takes a fault off again, of those kinds that stand only once on a link.
    package func clear(_ fault: Fault) async throws {
        try await clear(AppliedFault(fault: fault, id: 0))
    }

    /// Takes one fault off again.
    package func clear(_ applied: AppliedFault) async throws {
        switch applied.fault {
        case .drop, .duplicate, .blackout:
            let chains = applied.fault.packetRules(port: port).map { chain(applied.id, $0.direction) }
            try await removeChains(chains)
        case .rate(_, let direction): for side in direction.single { try await removeRate(side) }
        case .mtu: try await setMTU(mtu)
        case .linkDown: try await setLink(up: true)
        }
    }

    /// Takes every fault off this host's link.
    package func clearFaults() async throws {
        try await removeChains(packetRules().map(\.chain))
        for side in Fault.Direction.both.single where try await rate(side) != nil {
            try await removeRate(side)
        }
        try await setMTU(mtu)
        try await setLink(up: true)
    }

    /// The faults that stand, in words.
    package func faults() async throws -> [String] {
        let owner = "\(name) "
        // A fault in both directions has two chains and one comment.
        var words: [String] = []
        for rule in try await packetRules() {
            let text =
                rule.comment.hasPrefix(owner) ? String(rule.comment.dropFirst(owner.count)) : rule.chain
            if !words.contains(text) { words.append(text) }
        }
        for side in Fault.Direction.both.single {
            if let rate = try await rate(side) { words.append("rate \(rate) \(side)") }
        }
        let lab = Lab(prefix: self.prefix, hosts: [])
        if let end = try await lab.ports().first(where: { $0.ifname == port }) {
            if end.mtu != mtu { words.append("mtu \(end.mtu)") }
            if !end.flags.contains("UP") { words.append("link down") }
        }
        return words
    }

    /// Cancellation must not keep a fault alive: clearing runs in a task of its own.
    private func clearInAnyCase(_ applied: AppliedFault) async {
        await Task { try? await clear(applied) }.value
    }

    // MARK: Packet rules

    private func chain(_ id: UInt32, _ direction: Fault.Direction) -> String { "\(port)_\(id)_\(direction)" }

    private func addPacketRules(of applied: AppliedFault) async throws {
        var script = ""
        for rule in applied.fault.packetRules(port: port) {
            let chain = "netdev \(Fault.table) \(chain(applied.id, rule.direction))"
            script += "add chain \(chain) { type filter hook \(rule.hook) device \"\(port)\" priority 0; }\n"
            script += "add rule \(chain) \(rule.statement) comment \"\(name) \(applied.fault)\"\n"
        }
        try await nft(["-f", "-"], input: script)
    }

    private func removeChains(_ chains: [String]) async throws {
        guard !chains.isEmpty else { return }
        let script = chains.map { chain in
            "flush chain netdev \(Fault.table) \(chain)\ndelete chain netdev \(Fault.table) \(chain)\n"
        }
        try await nft(["-f", "-"], input: script.joined())
    }

    private func packetRules() async throws -> [PacketRuleListing.Rule] {
        let text = try await nft(["-j", "list", "table", "netdev", Fault.table])
        let listing = try JSONDecoder().decode(PacketRuleListing.self, from: Data(text.utf8))
        return listing.nftables.compactMap(\.rule).filter { $0.chain.hasPrefix("\(port)_") }
    }

    @discardableResult
    private func nft(_ arguments: [String], input: String = "") async throws -> String {
        try await Tool.run("ip", ["netns", "exec", bridgeNamespace, "nft"] + arguments, input: input)
    }

    // MARK: Rate, MTU and carrier

    /// Which device leaves towards that direction.
    private func end(_ direction: Fault.Direction) -> (netns: String, device: String) {
        direction == .in ? (bridgeNamespace, port) : (netns, interface)
    }

    private func setRate(_ bitsPerSecond: Int, _ direction: Fault.Direction) async throws {
        let end = end(direction)
        // The kernel refills the bucket on timer ticks: it must hold 10 ms of traffic, and one full packet.
        let burst = max(32_768, bitsPerSecond / 800)
        try await Tool.run(
            "tc",
            [
                "-n", end.netns, "qdisc", "replace", "dev", end.device, "root", "tbf",
                "rate", "\(bitsPerSecond)bit", "burst", "\(burst)", "latency", "50ms",
            ])
    }

    private func removeRate(_ direction: Fault.Direction) async throws {
        let end = end(direction)
        try await Tool.run("tc", ["-n", end.netns, "qdisc", "del", "dev", end.device, "root"])
    }

    /// What `tc` prints as the rate, or nil where none is set.
    private func rate(_ direction: Fault.Direction) async throws -> String? {
        let end = end(direction)
        let text = try await Tool.run("tc", ["-n", end.netns, "qdisc", "show", "dev", end.device])
        let words = text.split(whereSeparator: \.isWhitespace)
        guard words.count > 1, words[1] == "tbf", let index = words.firstIndex(of: "rate") else { return nil }
        return words.indices.contains(index + 1) ? String(words[index + 1]) : nil
    }

    private func setMTU(_ mtu: Int) async throws {
        try await Tool.run("ip", ["-n", netns, "link", "set", interface, "mtu", "\(mtu)"])
        try await Tool.run("ip", ["-n", bridgeNamespace, "link", "set", port, "mtu", "\(mtu)"])
    }

    private func setLink(up: Bool) async throws {
        try await Tool.run("ip", ["-n", bridgeNamespace, "link", "set", port, up ? "up" : "down"])
        if up { try await Lab(prefix: prefix, hosts: []).waitForLinks([self]) }
    }
}

/// `nft -j list table`: a list of objects of which only the rules matter here.
private struct PacketRuleListing: Decodable {
    struct Entry: Decodable { let rule: Rule? }
    struct Rule: Decodable {
        let chain: String
        let comment: String
    }
    let nftables: [Entry]
}
