import CastnetCore

/// A node at one moment: what `castnet status`, the admin page and programs are shown.
///
/// As JSON its keys are those of the command's contract.
public struct NodeSnapshot: Sendable, Codable {
    /// The node's name.
    public var node: String
    /// Which start of it this is.
    public var incarnation: String
    /// Where it listens; nil: nowhere yet.
    public var listen: String?
    /// Seconds since it was started.
    public var uptime: Double
    /// Every counter by its label, also those at 0.
    public var counters: [String: UInt64]
    /// The open channels.
    public var channels: [ChannelSnapshot]
    /// The links, oldest first.
    public var links: [LinkSnapshot]
    /// What is served and subscribed here.
    public var topics: [TopicSnapshot]
    /// Ephemeral topics that are sent often, and those promoted for it, the hottest first.
    public var hot: [HotTopicSnapshot]
    /// The limits, with what is used of each.
    public var limits: [LimitSnapshot]

    private enum CodingKeys: String, CodingKey {
        case node, incarnation, listen
        case uptime = "uptime_s"
        case counters, channels, links, topics, hot, limits
    }
}

/// An open channel.
public struct ChannelSnapshot: Hashable, Sendable, Codable {
    /// Its name.
    public var name: String
    /// The own stream's id.
    public var stream: String
    /// The interface it uses.
    public var interface: String
    /// The largest IP packet.
    public var mtu: Int
    /// libpgm's window in packets.
    public var window: Int
}

/// A link.
public struct LinkSnapshot: Hashable, Sendable, Codable {
    /// The peer's node name; empty: it has not said it yet.
    public var peer: String
    /// The peer's address; `unix` over a Unix-domain socket.
    public var address: String
    /// `persistent` or `ephemeral`.
    public var carrier: String
    /// The topic of a persistent link.
    public var topic: String?
    /// True when this node opened it.
    public var isDialled: Bool
    /// True between the hellos and the end.
    public var isOpen: Bool
    /// Messages of this node on it that have not ended.
    public var outstanding: Int

    private enum CodingKeys: String, CodingKey {
        case peer, address, carrier, topic
        case isDialled = "dialled"
        case isOpen = "open"
        case outstanding
    }
}

/// A topic served, or a pattern subscribed.
public struct TopicSnapshot: Hashable, Sendable, Codable {
    /// The topic or pattern.
    public var topic: String
    /// The server's name; nil for a subscription.
    public var server: String?
    /// Bytes that wait to be handled or read.
    public var waiting: Int

    private enum CodingKeys: String, CodingKey {
        case topic, server
        case waiting = "waiting_bytes"
    }
}

/// An ephemeral topic that is sent often.
public struct HotTopicSnapshot: Hashable, Sendable, Codable {
    /// The topic.
    public var topic: String
    /// Its messages of the last minute.
    public var perMinute: Int
    /// True while it travels over persistent links.
    public var isPromoted: Bool

    private enum CodingKeys: String, CodingKey {
        case topic
        case perMinute = "per_minute"
        case isPromoted = "promoted"
    }
}

/// A limit.
public struct LimitSnapshot: Hashable, Sendable, Codable {
    /// Its key under `limits`.
    public var name: String
    /// What is used of it now; nil: it bounds each message, or each peer, alone. Of `memory`: what is
    /// resident of the process, which has more than buffers.
    public var used: Int?
    /// What may be used.
    public var max: Int
    /// How often it was reached.
    public var hit: UInt64
}

extension CounterSet {
    /// Every counter by its label.
    var labelled: [String: UInt64] {
        Dictionary(uniqueKeysWithValues: Counter.allCases.map { ($0.label, self[$0]) })
    }
}
