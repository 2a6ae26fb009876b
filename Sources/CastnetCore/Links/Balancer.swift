/// Who of a topic's members gets the next message of this client.
package struct Balancer: Sendable {
    /// The member that got the last message of each topic.
    private var last: [Topic: NodeIdentity] = [:]
    private let topicsMax: Int

    package init(topicsMax: Int) { self.topicsMax = topicsMax }

    /// Picks a member; nil when there is none.
    ///
    /// `round-robin` walks the members in the order of their identities from the last one that was picked, so
    /// turns stay strict while members join and leave. `least-outstanding` takes the member with the fewest
    /// messages of this client outstanding; between equals it takes turns. `capacity` does the same: how fast
    /// a member finishes decides how often it is the one with the fewest.
    package mutating func pick(
        _ members: [Member], topic: Topic, balance: Route.Balance, outstanding: (NodeIdentity) -> Int
    ) -> Member? {
        guard members.count > 1 else { return members.first }
        let turn = inTurn(members, after: last[topic])
        var picked = turn[0]
        if balance != .roundRobin {
            var fewest = Int.max
            for member in turn where outstanding(member.identity) < fewest {
                fewest = outstanding(member.identity)
                picked = member
            }
        }
        if last.count >= topicsMax, last[topic] == nil { last.removeAll(keepingCapacity: true) }
        last[topic] = picked.identity
        return picked
    }

    private func inTurn(_ members: [Member], after last: NodeIdentity?) -> [Member] {
        let ordered = members.sorted { $0.identity.precedes($1.identity) }
        guard let last, let start = ordered.firstIndex(where: { last.precedes($0.identity) }) else {
            return ordered
        }
        return Array(ordered[start...] + ordered[..<start])
    }
}

extension NodeIdentity {
    /// A fixed order of nodes.
    package func precedes(_ other: NodeIdentity) -> Bool {
        name == other.name ? incarnation < other.incarnation : name < other.name
    }
}
