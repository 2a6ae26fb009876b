/// Who of a topic's members gets the next message of this client.
package struct Balancer: Sendable {
    /// The member that got the last message to each target: those to one server take turns of their own.
    private var last: [Target: Member] = [:]
    private let topicsMax: Int

    package init(topicsMax: Int) { self.topicsMax = topicsMax }

    /// Picks a member; nil when there is none.
    ///
    /// `round-robin` walks the members in the order of their identities from the last one that was picked, so
    /// turns stay strict while members join and leave. `least-outstanding` takes the member with the fewest
    /// messages of this client outstanding; between equals it takes turns.
    package mutating func pick(
        _ members: [Member], for target: Target, balance: Route.Balance, outstanding: (NodeIdentity) -> Int
    ) -> Member? {
        guard members.count > 1, !PlantedBug.favoursOne.isPlanted else { return members.first }
        let previous = last[target]
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
        last[target] = picked
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
