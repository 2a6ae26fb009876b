package import CastnetCore

/// What a bus socket is opened with. Checked as a whole before libpgm sees any of it, since libpgm answers
/// bad values with `abort()`.
package struct PGMOptions: Hashable, Sendable {
    package var interface: InterfaceChoice
    /// The IPv4 group in host byte order; both the one received and the one sent to.
    package var group: UInt32
    /// The UDP port, of multicast and of unicast packets alike, and the data-destination port inside PGM.
    package var port: UInt16
    /// The largest IP packet.
    package var mtu: Int
    /// Packets in the transmit window and in each receive window: a power of two, as libpgm indexes windows
    /// by sequence modulo size and any other size breaks at the 32-bit wrap. Windows in packets are the only
    /// form there is here: the other form (seconds × rate), beside this one, aborts on the first packet.
    package var window: Int
    /// The UDP port that packets leave from, one process of a host only; nil: the kernel's choice.
    package var sendPort: UInt16?
    package var loop = true
    package var hops = 1
    /// The differentiated-services code point; nil: the kernel's default.
    package var dscp: Int?
    package var receiveBuffer = 8 << 20
    package var sendBuffer = 1 << 20
    package var timers = PGMTimers()

    package init(interface: InterfaceChoice, group: UInt32, port: UInt16, mtu: Int, window: Int) {
        self.interface = interface
        self.group = group
        self.port = port
        self.mtu = mtu
        self.window = window
    }

    /// What a channel's settings come to on an interface.
    package init(_ settings: ChannelSettings, interface: InterfaceChoice, plan: ChannelPlan) throws {
        guard let group = DatagramAddress.address(settings.group) else {
            throw CastnetError(
                .multicastUnavailable, "channel \(settings.name): \(settings.group) is no IPv4 group")
        }
        if let rate = settings.rate, rate < plan.mtu {
            throw CastnetError(
                .multicastUnavailable,
                "channel \(settings.name): \(rate) bytes a second are below one packet of \(plan.mtu)")
        }
        self.init(interface: interface, group: group, port: settings.port, mtu: plan.mtu, window: plan.window)
        sendPort = settings.sendPort
        loop = settings.loop
        hops = settings.hops
        dscp = settings.dscp
        receiveBuffer = settings.receiveBuffer
        if settings.repair == .tcp { timers.giveUp(after: settings.pgmRepair) }
    }

    /// Allowed sizes; a window's placeholders cost 8 bytes each for every peer.
    package static let windowRange = 2...1 << 20
    package static let mtuRange = 576...65_535
    /// IP, UDP, PGM and data headers.
    package static let headerLength = 20 + 8 + 16 + 8

    package func validate() throws(PGMError) {
        func check(_ holds: Bool, _ option: String, _ why: @autoclosure () -> String) throws(PGMError) {
            guard holds else { throw .invalid(option: option, why: why()) }
        }
        try check(group >> 28 == 14, "group", "is no multicast group (224.0.0.0 to 239.255.255.255)")
        try check(port != 0, "port", "is 0")
        try check(interface.address != 0, "interface", "has no IPv4 address")
        try check(Self.mtuRange.contains(mtu), "mtu", "is \(mtu); allowed are \(Self.mtuRange)")
        try check(
            mtu <= max(interface.linkMTU, Self.mtuRange.lowerBound), "mtu",
            "is \(mtu), above the \(interface.linkMTU) of \(interface.name): packets would be fragmented")
        try check(
            Self.windowRange.contains(window), "window", "is \(window); allowed are \(Self.windowRange)")
        try check(window & (window - 1) == 0, "window", "is \(window), which is no power of two")
        try check((1...255).contains(hops), "hops", "is \(hops); allowed are 1 to 255")
        try check(dscp.map { (0...63).contains($0) } ?? true, "dscp", "is \(dscp ?? 0); allowed are 0 to 63")
        let buffers = 4096...1 << 30
        try check(
            buffers.contains(receiveBuffer), "receive-buffer", "is \(receiveBuffer); allowed are \(buffers)")
        try check(buffers.contains(sendBuffer), "send-buffer", "is \(sendBuffer); allowed are \(buffers)")
        try timers.validate()
    }
}

/// PGM's own times and retries.
package struct PGMTimers: Hashable, Sendable {
    /// Between two SPMs of an idle sender.
    package var ambient = Duration.seconds(1)
    /// SPMs after the last data packet; libpgm never uses the last one.
    package var heartbeats: [Duration] = [20, 50, 100, 200, 500, 1000].map { .milliseconds($0) }
    /// A peer without an SPM for this long is forgotten: at least five times `ambient`.
    package var peerExpiry = Duration.seconds(10)
    /// How long an SPM is awaited before it is asked for: shorter than the back-off, since a loss before the
    /// sender's first SPM cannot be repaired.
    package var spmRequest = Duration.milliseconds(5)
    /// A NAK waits a random time up to this, so that one of many receivers asks for all.
    package var nakBackoff = Duration.milliseconds(10)
    package var nakRepeat = Duration.milliseconds(50)
    package var nakData = Duration.milliseconds(50)
    package var confirmationRetries = 50
    package var dataRetries = 50

    package init() {}

    /// Sets the retries so that a missing packet is given up after about so long: then something else gets
    /// it, and what came behind it is not held up any longer.
    package mutating func giveUp(after patience: Duration) {
        let attempt = nakRepeat + nakBackoff / 2
        let attempts = Int(patience.nanoseconds / max(1, attempt.nanoseconds))
        // The last one counted is not made.
        confirmationRetries = max(2, min(confirmationRetries, attempts + 1))
        dataRetries = confirmationRetries
    }

    func validate() throws(PGMError) {
        let times: [(String, Duration)] = [
            ("ambient", ambient), ("peer-expiry", peerExpiry), ("spm-request", spmRequest),
            ("nak-backoff", nakBackoff), ("nak-repeat", nakRepeat), ("nak-data", nakData),
        ]
        // libpgm takes microseconds in an int, and aborts on a back-off of one.
        let allowed = Duration.microseconds(2)...Duration.seconds(2000)
        for (name, time) in times + heartbeats.map({ ("heartbeat", $0) }) where !allowed.contains(time) {
            throw .invalid(option: name, why: "is \(time); allowed are 2 µs to 2,000 s")
        }
        guard (1...8).contains(heartbeats.count) else {
            throw .invalid(option: "heartbeats", why: "has \(heartbeats.count) values; allowed are 1 to 8")
        }
        guard peerExpiry >= ambient * 5 else {
            throw .invalid(
                option: "peer-expiry", why: "is \(peerExpiry), under five times the ambient \(ambient)")
        }
        for (name, count) in [("ncf-retries", confirmationRetries), ("data-retries", dataRetries)]
        where !(1...255).contains(count) {
            throw .invalid(option: name, why: "is \(count); allowed are 1 to 255")
        }
    }
}
