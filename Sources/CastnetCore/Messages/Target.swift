/// Where a call or cast goes: any member of a topic, or one it names.
public struct Target: Hashable, Sendable {
    /// The topic.
    public var topic: Topic
    /// Only members that serve the topic under this name; nil: any.
    public var server: String?
    /// Only this instance of the server; nil: any.
    public var instance: String?

    /// Any member of `topic`, or those with the server name and instance given.
    public init(_ topic: Topic, server: String? = nil, instance: String? = nil) {
        self.topic = topic
        self.server = server
        self.instance = instance
    }

    /// Those of `members` that it is for.
    package func candidates(_ members: [Member]) -> [Member] {
        if server == nil, instance == nil { return members }
        return members.filter { member in
            (server == nil || member.server == server) && (instance == nil || member.instance == instance)
        }
    }
}
