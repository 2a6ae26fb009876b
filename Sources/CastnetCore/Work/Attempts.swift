/// What has been tried to bring one message to a member, and what may be tried next.
package struct Attempts: Sendable {
    /// What follows a failure.
    package enum Verdict: Hashable, Sendable {
        /// Give it to a member again.
        case again
        /// Send it to the same start of the same member once more, which knows whether it has it.
        case replay
        /// It ends with this outcome.
        case end(Outcome)
    }

    /// How often a member has had it, or may have.
    package private(set) var count = 0
    /// Members that failed, or refused: they get it again only where no other is left.
    package private(set) var failed: Set<NodeIdentity> = []
    /// True where a member that is gone may have executed it: it can no longer be *released*.
    package private(set) var mayHaveRun = false
    /// The node that gets it again, in whatever start of it, because the policy says so; nil: any.
    package private(set) var onlyNode: String?
    private var member: NodeIdentity?

    package init() {}

    /// It is given to `member`.
    package mutating func begin(at member: NodeIdentity) {
        count += 1
        self.member = member
    }

    /// The member had no room for it and has not looked at it: that was no attempt.
    package mutating func turnedAway() { count -= 1 }

    /// The link to the member ended. `wasTaken`: the member may have looked at the message. `mayReplay`: the
    /// member may still be there, and suppresses what it has.
    ///
    /// What certainly was not looked at goes on until its deadline, to another member where there is one.
    /// What may have been executed is repeated only where that does no harm: because the policy says so, or
    /// because the same member gets it again.
    package mutating func linkLost(wasTaken: Bool, mayReplay: Bool = false, route: Route) -> Verdict {
        if wasTaken, !mayRepeat(route) { return mayReplay ? .replay : .end(.lost) }
        // What nobody has looked at was no attempt.
        if wasTaken { mayHaveRun = true } else { count -= 1 }
        if wasTaken, route.retry == .same { onlyNode = member?.name } else { avoidMember() }
        return .again
    }

    /// The member gave the message back without executing it. `isLeaving`: because it is stopping.
    package mutating func released(isLeaving: Bool, isPinned: Bool, route: Route) -> Verdict {
        let mayGoOn = isLeaving || (route.retry == .otherMember && count < route.attempts)
        guard mayGoOn, !isPinned else { return .end(.released) }
        onlyNode = nil
        avoidMember()
        return .again
    }

    /// Those of `members` that should have it: who has not failed and is not in back-off, as far as there
    /// are any.
    package func preferred(_ members: [Member], isBackingOff: (NodeIdentity) -> Bool) -> [Member] {
        if let onlyNode { return members.filter { $0.identity.name == onlyNode } }
        guard members.count > 1 else { return members }
        let untried = failed.isEmpty ? members : members.filter { !failed.contains($0.identity) }
        let some = untried.isEmpty ? members : untried
        guard some.contains(where: { isBackingOff($0.identity) }) else { return some }
        let open = some.filter { !isBackingOff($0.identity) }
        return open.isEmpty ? some : open
    }

    private func mayRepeat(_ route: Route) -> Bool {
        PlantedBug.repeatsAnyway.isPlanted
            || route.retry != .none && route.idempotent && count < route.attempts
    }

    private mutating func avoidMember() {
        if let member { failed.insert(member) }
    }
}
