/// Everything one node is told: the typed form of a configuration file, checked as a whole when it was
/// parsed.
public struct Configuration: Sendable {
    /// Who the node is and where it listens.
    public var node = NodeSettings()
    /// Where it learns of others.
    public var directory = DirectorySettings()
    /// The channels, by name, in file order.
    public var channels: [ChannelSettings] = []
    /// The policy table's rules in order, without the built-in last one.
    public var policies: [Policy] = []
    /// What it may use.
    public var limits = LimitSettings()
    /// The admin listener.
    public var admin = AdminSettings()

    /// Every key at its default.
    public init() {}

    /// The channel called `name`.
    public func channel(_ name: String) -> ChannelSettings? { channels.first { $0.name == name } }
}

/// `node`: who the node is and where it listens.
public struct NodeSettings: Hashable, Sendable {
    /// The node's name; nil: HOST-PID.
    public var name: String?
    /// Which of several nodes behind one server name this is.
    public var instance: String?
    /// Nodes of different clusters never talk.
    public var cluster = "default"
    /// The address and port to listen on; port 0 lets the kernel choose.
    public var listen = HostPort(host: "0.0.0.0", port: 0)
    /// The address told to others; nil: the listening one, or the interface's.
    public var advertise: HostPort?
    /// The interface for multicast; nil: the one with the listening address, else the first that can.
    public var interface: String?
    /// True: peers on the same host are reached over a Unix-domain socket.
    public var unixSockets = true
    /// True: fault injection may be configured.
    public var testing = false

    /// Every key at its default.
    public init() {}
}

/// A host (IPv4, IPv6 without brackets, or a name) and a port.
public struct HostPort: Hashable, Sendable, CustomStringConvertible {
    /// The host.
    public var host: String
    /// The port.
    public var port: UInt16

    /// Pairs a host with a port.
    public init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// Parses `host:port` or `[v6]:port`; nil when it is neither.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
            return nil
        }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty, host.utf8.count <= 253 else { return nil }
        self.init(host: String(host), port: port)
    }

    /// `host:port`, IPv6 in brackets.
    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// `directory`: where the node learns of others.
public struct DirectorySettings: Hashable, Sendable {
    /// Nodes known from the file.
    public var staticEntries: [StaticEntry] = []
    /// Multicast beacons; nil: off.
    public var beacon: BeaconSettings? = BeaconSettings()
    /// Nodes to ask over TCP.
    public var seeds: [HostPort] = []
    /// A Redis store; nil: none.
    public var redis: RedisSettings?

    /// Every key at its default.
    public init() {}

    /// A node known from the file.
    public struct StaticEntry: Hashable, Sendable {
        /// The node's name.
        public var node: String
        /// Where it listens.
        public var address: HostPort
        /// What it serves.
        public var topics: [Topic]
        package init(node: String, address: HostPort, topics: [Topic]) {
            self.node = node
            self.address = address
            self.topics = topics
        }
    }
    /// Multicast beacons.
    public struct BeaconSettings: Hashable, Sendable {
        /// The IPv4 group.
        public var group = "239.192.0.1"
        /// The UDP port.
        public var port: UInt16 = 7401
        /// The time between two beacons of one node in a small group.
        public var interval: Duration = .seconds(1)
        /// Every key at its default.
        public init() {}
    }
    /// A Redis store.
    public struct RedisSettings: Hashable, Sendable {
        /// The store's URL, `redis://user:password@host:port/number`: whoever prints it prints the password.
        public var url: String
        /// The prefix of every key.
        public var prefix = "castnet"
        /// How long a record lives without refresh.
        public var timeToLive: Duration = .seconds(30)
        /// A store at `url`, the rest at its default.
        public init(url: String) { self.url = url }
    }
}

/// `channels.N`: a named multicast group with port and limits.
public struct ChannelSettings: Hashable, Sendable {
    /// The channel's name.
    public var name: String
    /// The IPv4 group.
    public var group: String
    /// The UDP port, unique among the file's channels and beacons.
    public var port: UInt16
    /// Bytes a second on the wire; nil: auto, the group's own pace.
    public var rate: Int?
    /// Bytes a sender keeps for repair.
    public var retention = 128 << 20
    /// How long a sender keeps a frame for repair.
    public var retentionAge: Duration = .seconds(30)
    /// PGM's window in packets, a power of two; nil: from rate and retention.
    public var window: Int?
    /// How long PGM owes repairs: what `retention` must at least cover at `rate`.
    public var repairTime: Duration = .milliseconds(250)
    /// What repairs a frame PGM gave up on.
    public var repair: Repair = .tcp
    /// How long a hole waits for PGM.
    public var pgmRepair: Duration = .milliseconds(250)
    /// The source port of everything the channel sends; nil: the kernel's choice.
    public var sendPort: UInt16?
    /// What happens to a slow member.
    public var slow: SlowMember = .catchUp
    /// Bytes a second for one topic; nil: no cap.
    public var topicRate: Int?
    /// The largest IP packet; nil: the interface's.
    public var mtu: Int?
    /// The multicast time to live.
    public var hops = 1
    /// The differentiated-services code point; nil: the kernel's default.
    public var dscp: Int?
    /// The receive socket's buffer in bytes.
    public var receiveBuffer = 8 << 20
    /// True: a policy replays the channel's messages to members that join late, so that a sender keeps as
    /// much as `retention` allows.
    package var isReplayed = false
    /// True: other processes on this host hear the channel.
    public var loop = true
    /// Injected faults, for tests.
    public var faults: FaultSettings?

    /// A channel with every other key at its default.
    public init(name: String, group: String, port: UInt16) {
        self.name = name
        self.group = group
        self.port = port
    }

    /// What repairs a frame PGM gave up on.
    public enum Repair: String, Hashable, Sendable, CaseIterable {
        /// The sender's retention ring, over TCP.
        case tcp
        /// Nothing: the frame is a loss.
        case pgmOnly = "pgm-only"
    }
    /// What happens to a slow member.
    public enum SlowMember: String, Hashable, Sendable, CaseIterable {
        /// The group waits for it.
        case pace
        /// It falls back to repair at its own pace.
        case catchUp = "catch-up"
        /// It is put out of the group.
        case evict
    }
}

/// `channels.N.faults`: seeded faults injected below PGM; needs `node.testing`.
public struct FaultSettings: Hashable, Sendable {
    /// The generator's seed.
    public var seed: UInt64 = 0
    /// The share of packets dropped, 0…1.
    public var drop = 0.0
    /// The share of packets sent twice, 0…1.
    public var duplicate = 0.0
    /// The share of packets held back behind the next one, 0…1.
    public var reorder = 0.0
    /// Extra delay of every packet.
    public var delay: Duration = .zero
    /// Which way packets must go to be touched; nil: both.
    public var direction: Direction?
    /// Which types are touched; empty: all.
    public var types: Set<PacketType> = []
    /// Added to the numbers of this node's packets, so that a test can begin next to their end.
    public var shift: UInt32 = 0

    /// No fault.
    public init() {}

    /// A direction as this node sees it.
    public enum Direction: String, Hashable, Sendable, CaseIterable {
        /// Received packets.
        case incoming = "in"
        /// Sent packets.
        case outgoing = "out"
    }
    /// A PGM packet type.
    public enum PacketType: String, Hashable, Sendable, CaseIterable {
        /// Original data.
        case odata
        /// Repair data.
        case rdata
        /// Negative acknowledgement.
        case nak
        /// Confirmation of one.
        case ncf
        /// Source path message.
        case spm
    }
}

/// `limits`: what the node may use.
public struct LimitSettings: Hashable, Sendable {
    /// Open links in all.
    public var connections = 512
    /// Open links to or from one peer node.
    public var perPeer = 64
    /// Open links from one address.
    public var perAddress = 128
    /// Dials in flight.
    public var dials = 64
    /// Hellos of persistent links taken in a second.
    public var hellos = 1_000
    /// Bytes of one message.
    public var message = 64 << 20
    /// Bytes of all buffers.
    public var memory = 512 << 20
    /// Calls and acknowledged casts in flight.
    public var pendingCalls = 65_536
    /// Nodes known.
    public var members = 16_384
    /// Topics served or subscribed here.
    public var topics = 4_096
    /// Bytes that may wait in one subscription.
    public var subscriptionBacklog = 16 << 20

    /// Every key at its default.
    public init() {}
}

/// `admin`: the admin listener and the log.
public struct AdminSettings: Hashable, Sendable {
    /// Where the admin page listens; nil: nowhere.
    public var listen: Address?
    /// The log's level.
    public var logLevel = "info"

    /// Every key at its default.
    public init() {}

    /// Where an admin page listens.
    public enum Address: Hashable, Sendable {
        /// A TCP address.
        case tcp(HostPort)
        /// A Unix-domain socket's path.
        case unix(String)
    }
}
