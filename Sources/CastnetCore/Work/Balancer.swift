/// Who of a topic's members gets the next message of this client.
package struct Balancer: Sendable {
    /// What messages ask for that take turns among the same members.
    package struct Aim: Hashable, Sendable {
        package var topic: Topic
        package var server: String?
        package var instance: String?

        package init(_ topic: Topic, server: String? = nil, instance: String? = nil) {
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

    /// The member that got the last message of each.
    private var last: [Aim: Member] = [:]
    private let topicsMax: Int

    package init(topicsMax: Int) { self.topicsMax = topicsMax }

    /// Picks a member; nil when there is none.
    ///
    /// `round-robin` walks the members in the order of their identities from the last one that was picked, so
    /// turns stay strict while members join and leave. `least-outstanding` takes the member with the fewest
    /// messages of this client outstanding; between equals it takes turns.
    package mutating func pick(
        _ members: [Member], for aim: Aim, balance: Route.Balance, outstanding: (NodeIdentity) -> Int
    ) -> Member? {
        guard members.count > 1 else { return members.first }
        let previous = last[aim]
        var fewest = Int.max
        if balance != .roundRobin {
            for member in members { fewest = min(fewest, outstanding(member.identity)) }
        }
        // Of those that may have it: the next one after the last turn, else the first of all.
        var next: Member?
        var first: Member?
        for member in members {
            if balance != .roundRobin, outstanding(member.identity) > fewest { continue }
            if first.map({ member.precedes($0) }) ?? true { first = member }
            guard let previous, previous.precedes(member) else { continue }
            if next.map({ member.precedes($0) }) ?? true { next = member }
        }
        guard let picked = next ?? first else { return nil }
        if last.count >= topicsMax, previous == nil { last.removeAll(keepingCapacity: true) }
        last[aim] = picked
        return picked
    }
}

extension Member {
    /// A fixed order of members: one node may serve a topic under several names.
    fileprivate func precedes(_ other: Member) -> Bool {
        identity == other.identity ? server < other.server : identity.precedes(other.identity)
    }
}

extension NodeIdentity {
    /// A fixed order of nodes.
    package func precedes(_ other: NodeIdentity) -> Bool {
        name == other.name ? incarnation < other.incarnation : name < other.name
    }
}
