/// A source of nodes beside the built-in ones: a site's service registry, a store, an orchestrator's API.
///
/// The directory calls ``publish(_:)`` with this node's record at the start and after every change, and reads
/// ``events()`` for everybody else's. A source may fail at any time: the directory warns once, keeps what it
/// knows, and comes back to the source with growing pauses. Methods run on tasks of their own, never on the
/// node's event loop.
public protocol Discovery: Sendable {
    /// The sequence of ``events()``.
    associatedtype Events: AsyncSequence where Events.Element == DiscoveryEvent

    /// The source's name, for the log.
    var name: String { get }

    /// Makes this node's record known, in place of the one before.
    func publish(_ own: DiscoveredNode) async throws

    /// Takes this node's record back: the node stops.
    func withdraw(_ own: DiscoveredNode) async throws

    /// What the source knows now, then every change, until it fails or has nothing more to tell. After a
    /// failure it is asked anew and tells everything again.
    func events() async throws -> Events
}

/// What a source tells.
public enum DiscoveryEvent: Hashable, Sendable {
    /// A node is there, or its record changed.
    case found(DiscoveredNode)
    /// The node of this name is gone from the source. Found again, in the same incarnation or a later one, it
    /// is a member again.
    case gone(name: String)
}

/// A node as a source knows it. The fields a source cannot tell keep their defaults.
public struct DiscoveredNode: Hashable, Sendable {
    /// The node's name, unique in its cluster.
    public var name: String
    /// Which start of that name it is, larger is later; 0 when the source does not know: then its hello or
    /// beacon completes it.
    public var incarnation: UInt64 = 0
    /// Grows with every change of the record within an incarnation.
    public var version: UInt64 = 1
    /// Its cluster; nodes of other clusters are ignored.
    public var cluster = "default"
    /// Which of several nodes behind one server name it is.
    public var instance: String?
    /// Where it listens, best first.
    public var addresses: [HostPort]
    /// Its Unix-domain listener, for peers with the same ``hostID``.
    public var unixPath: String?
    /// Equal on nodes that see the same sockets.
    public var hostID: UInt64 = 0
    /// What it serves.
    public var services: [Service] = []
    /// What it subscribes.
    public var subscriptions: [TopicPattern] = []
    /// The channels it uses.
    public var channels: [Channel] = []

    /// A topic served under a server name.
    public struct Service: Hashable, Sendable {
        /// The topic.
        public var topic: Topic
        /// The server name.
        public var server: String
        /// Pairs a topic with a server name.
        public init(topic: Topic, server: String) {
            self.topic = topic
            self.server = server
        }
    }

    /// A channel as the node has it.
    public struct Channel: Hashable, Sendable {
        /// The channel's name.
        public var name: String
        /// Covers group, port and MTU: it differs where they do.
        public var digest: UInt64
        /// The node's stream on the channel.
        public var streamID: UInt64
        /// The largest packet it takes.
        public var mtu: UInt16
        /// True when it hears the group.
        public var joined: Bool
        /// A channel with its digest and stream.
        public init(name: String, digest: UInt64, streamID: UInt64, mtu: UInt16, joined: Bool) {
            self.name = name
            self.digest = digest
            self.streamID = streamID
            self.mtu = mtu
            self.joined = joined
        }
    }

    /// A node that listens at `addresses` and serves nothing yet.
    public init(name: String, addresses: [HostPort]) {
        self.name = name
        self.addresses = addresses
    }

    package init(_ record: NodeRecord) {
        self.init(name: record.identity.name, addresses: record.addresses)
        incarnation = record.identity.incarnation.value
        version = record.version
        cluster = record.cluster
        instance = record.instance
        unixPath = record.unixPath
        hostID = record.hostID
        services = record.services.map { Service(topic: $0.topic, server: $0.server) }
        subscriptions = record.subscriptions
        channels = record.channels.map {
            Channel(
                name: $0.name, digest: $0.digest, streamID: $0.streamID, mtu: $0.mtu, joined: $0.joined)
        }
    }

    package var record: NodeRecord {
        NodeRecord(
            identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation)), version: version,
            cluster: cluster, instance: instance, addresses: addresses, unixPath: unixPath, hostID: hostID,
            services: services.map { .init(topic: $0.topic, server: $0.server) },
            subscriptions: subscriptions,
            channels: channels.map {
                .init(
                    name: $0.name, digest: $0.digest, streamID: $0.streamID, mtu: $0.mtu, joined: $0.joined)
            })
    }
}

/// A source that knows its nodes from the start, for programs that make their configuration in code.
public struct StaticDiscovery: Discovery {
    /// The source's name, for the log.
    public let name = "static"
    private let nodes: [DiscoveredNode]

    /// A source that tells of `nodes` and of nothing else.
    public init(_ nodes: [DiscoveredNode]) { self.nodes = nodes }

    /// Does nothing: the list is fixed.
    public func publish(_ own: DiscoveredNode) async throws {}

    /// Does nothing: the list is fixed.
    public func withdraw(_ own: DiscoveredNode) async throws {}

    /// Every node, once.
    public func events() async throws -> AsyncStream<DiscoveryEvent> {
        AsyncStream(bufferingPolicy: .bufferingOldest(nodes.count)) { continuation in
            for node in nodes { continuation.yield(.found(node)) }
            continuation.finish()
        }
    }
}
