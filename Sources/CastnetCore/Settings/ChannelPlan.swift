/// What a channel's settings come to in packets and bytes: the window libpgm is given and the memory the
/// channel may hold. Engine, streams and `check` all take their figures from here.
public struct ChannelPlan: Hashable, Sendable {
    /// What every packet buffer costs beyond its MTU: libpgm's headers and bookkeeping.
    public static let bufferOverhead = 184
    /// The MTU planned with where the interface's is not known yet.
    public static let assumedMTU = 1500
    /// The smallest and largest window, in packets.
    public static let windowRange = 64...1_048_576
    /// The largest window chosen without being asked, in packets.
    static let chosenWindowMax = 16_384

    /// The largest IP packet.
    public var mtu: Int
    /// libpgm's transmit and receive window in packets, a power of two.
    public var window: Int
    /// Bytes a sender keeps for repair.
    public var retentionBytes: Int
    /// Bytes of libpgm's transmit and receive windows when both are full.
    public var windowBytes: Int
    /// Bytes a receiver may hold behind holes.
    public var reorderBytes: Int

    /// Plans for `settings` on an interface with `interfaceMTU`.
    public init(_ settings: ChannelSettings, interfaceMTU: Int = ChannelPlan.assumedMTU) {
        mtu = settings.mtu ?? interfaceMTU
        retentionBytes = settings.retention
        let buffer = max(1, mtu.saturatingPlus(Self.bufferOverhead))
        window = settings.window ?? Self.chosenWindow(settings, mtu: mtu)
        reorderBytes = window.saturatingTimes(buffer)
        windowBytes = reorderBytes.saturatingTimes(2)
    }

    /// All of the channel's memory, in bytes, without queues.
    public var totalBytes: Int { retentionBytes.saturatingPlus(windowBytes).saturatingPlus(reorderBytes) }

    /// The members up to which their reports, one every members / 2,000 s, come often enough for a sender
    /// with one window outstanding to keep up `rate`; with more the channel is slower, not lossy.
    public func membersAtFullRate(_ rate: Int) -> Int {
        let seconds = Double(window.saturatingTimes(mtu)) / Double(max(1, rate))
        return Int(min(1e9, max(0, seconds * 2_000)))
    }

    /// What retention must at least hold: `rate` for `repair-time`, in buffers; nil for an automatic rate.
    public static func repairBytes(_ settings: ChannelSettings, mtu: Int) -> Int? {
        guard let rate = settings.rate, mtu > 0 else { return nil }
        let bytes = Double(rate) * settings.repairTime.seconds
        let packets = (bytes / Double(mtu)).rounded(.up)
        guard packets < 1e15 else { return .max }
        return Int(max(0, packets)).saturatingTimes(mtu.saturatingPlus(bufferOverhead))
    }

    /// The largest power of two that holds no more than `rate` × 250 ms (PGM owes repairs that long, then
    /// TCP does) and no more than half of retention.
    private static func chosenWindow(_ settings: ChannelSettings, mtu: Int) -> Int {
        let buffer = max(1, mtu.saturatingPlus(bufferOverhead))
        var packets = min(chosenWindowMax, settings.retention / 2 / buffer)
        if let rate = settings.rate { packets = min(packets, rate / 4 / max(1, mtu)) }
        var window = windowRange.lowerBound
        while window * 2 <= packets { window *= 2 }
        return window
    }
}

/// The memory a configuration may use when everything is full, part by part.
public struct MemoryPlan: Hashable, Sendable {
    /// One part with the keys it comes from.
    public struct Part: Hashable, Sendable {
        /// `retention`, `windows`, `reorder`, `queues`.
        public var name: String
        /// The part in bytes.
        public var bytes: Int
    }

    /// The parts, in a fixed order.
    public var parts: [Part]

    /// Retention, libpgm's windows and reorder memory of each channel, and one backlog per channel and one
    /// for everything over TCP.
    public init(_ configuration: Configuration) {
        let plans = configuration.channels.map { ChannelPlan($0) }
        func sum(_ value: (ChannelPlan) -> Int) -> Int { plans.reduce(0) { $0.saturatingPlus(value($1)) } }
        parts = [
            Part(name: "retention", bytes: sum(\.retentionBytes)),
            Part(name: "windows", bytes: sum(\.windowBytes)),
            Part(name: "reorder", bytes: sum(\.reorderBytes)),
            Part(
                name: "queues",
                bytes: configuration.limits.subscriptionBacklog.saturatingTimes(plans.count.saturatingPlus(1))
            ),
        ]
    }

    /// The sum in bytes.
    public var totalBytes: Int { parts.reduce(0) { $0.saturatingPlus($1.bytes) } }
}

extension Int {
    /// The sum, at most `Int.max` and at least `Int.min`.
    package func saturatingPlus(_ other: Int) -> Int {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other < 0 ? .min : .max) : sum
    }

    /// The product, at most `Int.max` and at least `Int.min`.
    package func saturatingTimes(_ other: Int) -> Int {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? ((self < 0) == (other < 0) ? .max : .min) : product
    }
}
