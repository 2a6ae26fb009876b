/// A node as another knows it: a line of `castnet members`. As JSON its keys are those of the command's
/// contract.
public struct MemberSnapshot: Sendable, Codable {
    /// Its name.
    public var node: String
    /// The server's name it serves under, its own where it serves nothing.
    public var server: String
    /// Which of several behind one server name.
    public var instance: String?
    /// Which start of it this is.
    public var incarnation: String
    /// Where it listens; empty: unknown.
    public var address: String
    /// What it serves and subscribes.
    public var topics: [String]
    /// What the directory believes of it.
    public var state: String
    /// Seconds since it became known.
    public var age: Double
    /// Seconds since it was heard last; nil: never.
    public var heard: Double?
    /// Where it is known from.
    public var source: String
    /// How frames travel to it on the channels both have.
    public var paths: [Path]

    /// How frames travel to a member on one channel.
    public struct Path: Hashable, Sendable, Codable {
        /// The channel's name.
        public var channel: String
        /// `multicast`, `unicast` or `none`.
        public var path: String
        /// Why.
        public var why: String
    }

    private enum CodingKeys: String, CodingKey {
        case node, server, instance, incarnation, address, topics, state
        case age = "age_s"
        case heard = "heard_s"
        case source, paths
    }

    /// What `castnet members` shows of a node.
    public init(_ member: NodeSummary) {
        node = member.identity.name
        server = member.services.first?.server ?? member.identity.name
        instance = member.instance
        incarnation = member.identity.incarnation.description
        address = member.address?.description ?? ""
        topics = member.services.map(\.topic.name) + member.subscriptions.map(\.text)
        state = member.state.rawValue
        age = member.age.seconds
        heard = member.heard?.seconds
        source = member.source
        paths = member.paths.map { Path(channel: $0.channel, path: $0.path, why: $0.why) }
    }
}
