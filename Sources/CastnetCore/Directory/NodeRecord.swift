/// What a node tells the others about itself; a larger version of the same incarnation replaces a smaller
/// one.
///
/// A reference to fields that never change: copies share them, so that a table of thousands of nodes is
/// small.
@dynamicMemberLookup
package struct NodeRecord: Hashable, Sendable {
    private var shared: Shared<Fields>

    package struct Fields: Hashable, Sendable {
        package var identity: NodeIdentity
        package var version: UInt64
        package var cluster: String
        package var instance: String? = nil
        /// Where its TCP listener can be reached, best first.
        package var addresses: [HostPort] = []
        /// Its Unix-domain listener, for peers with the same ``hostID``.
        package var unixPath: String? = nil
        /// A digest of boot id and network namespace: equal where a socket path means the same socket.
        package var hostID: UInt64 = 0
        /// Exact topics it serves.
        package var services: [Service] = []
        /// Patterns it subscribes.
        package var subscriptions: [TopicPattern] = []
        /// Channels it uses.
        package var channels: [Channel] = []
    }

    package var fields: Fields { shared.value }

    package subscript<Value>(dynamicMember field: WritableKeyPath<Fields, Value>) -> Value {
        get { fields[keyPath: field] }
        set {
            var next = fields
            next[keyPath: field] = newValue
            shared = Shared(next)
        }
    }

    /// The two that every beacon is compared with.
    package var identity: NodeIdentity {
        get { shared.value.identity }
        set { self[dynamicMember: \.identity] = newValue }
    }
    package var version: UInt64 {
        get { shared.value.version }
        set { self[dynamicMember: \.version] = newValue }
    }

    package func serves(_ topic: Topic) -> Bool { self.services.contains { $0.topic == topic } }

    /// True when a fanout on `topic` is for this node.
    package func hears(_ topic: Topic) -> Bool {
        serves(topic) || self.subscriptions.contains { $0.matches(topic) }
    }

    /// A topic served under a server name.
    package struct Service: Hashable, Sendable {
        package var topic: Topic
        package var server: String
        package init(topic: Topic, server: String) {
            self.topic = topic
            self.server = server
        }
    }

    /// A channel as this node has it: the digest covers group, port and MTU.
    package struct Channel: Hashable, Sendable {
        package var name: String
        package var digest: UInt64
        package var streamID: UInt64
        package var mtu: UInt16
        /// True when its socket is open: it hears the group.
        package var joined: Bool
        package init(name: String, digest: UInt64, streamID: UInt64, mtu: UInt16, joined: Bool) {
            self.name = name
            self.digest = digest
            self.streamID = streamID
            self.mtu = mtu
            self.joined = joined
        }
    }

    package init(_ fields: Fields) { shared = Shared(fields) }

    package init(
        identity: NodeIdentity, version: UInt64 = 1, cluster: String = "default", instance: String? = nil,
        addresses: [HostPort] = [], unixPath: String? = nil, hostID: UInt64 = 0, services: [Service] = [],
        subscriptions: [TopicPattern] = [], channels: [Channel] = []
    ) {
        self.init(
            Fields(
                identity: identity, version: version, cluster: cluster, instance: instance,
                addresses: addresses, unixPath: unixPath, hostID: hostID, services: services,
                subscriptions: subscriptions, channels: channels))
    }
}

/// A node as one topic sees it: it serves or subscribes the topic.
package struct Member: Hashable, Sendable {
    package var identity: NodeIdentity
    /// The server name it serves the topic under; its node name where it only subscribes.
    package var server: String
    package var instance: String?
    package var addresses: [HostPort]
    package var unixPath: String?
    package var hostID: UInt64
    /// False: it only subscribes, so calls and casts do not go to it.
    package var serves: Bool

    package init(
        identity: NodeIdentity, server: String, instance: String? = nil, addresses: [HostPort],
        unixPath: String? = nil, hostID: UInt64 = 0, serves: Bool = true
    ) {
        self.identity = identity
        self.server = server
        self.instance = instance
        self.addresses = addresses
        self.unixPath = unixPath
        self.hostID = hostID
        self.serves = serves
    }
}
