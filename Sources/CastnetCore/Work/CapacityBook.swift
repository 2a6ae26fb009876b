/// How much each member of a topic takes now: for topics that are balanced by `capacity`.
///
/// Work goes only to members that have a free handler, as far as this side knows: one that turned a message
/// away gets the next when it calls for it or has finished another. Of the others that one is next that has
/// been given the least, where a message counts as long as the member takes for one.
package struct CapacityBook: Sendable {
    private struct Account: Sendable {
        var outstanding = 0
        /// How many more it takes; nil: it has not turned any away.
        var room: Int?
        /// Seconds a message takes, smoothed; 0: not known yet.
        var service = 0.0
        /// What it has been given, in seconds of its time.
        var given = 0.0
        /// Messages it finished since it last turned one away.
        var finished = 0

        /// From where on the next message counts: who could take none for a while is owed a few for that.
        func start(_ time: Double) -> Double { max(given, time - CapacityBook.owed * service) }

        mutating func measured(_ seconds: Double) {
            guard service > 0 else { return service = seconds }
            let known = min(service, CapacityBook.outlier * seconds)
            // This one and those under way were counted as if they took so long.
            given -= (service - known) * Double(outstanding + 1)
            service = known + CapacityBook.smoothing * (min(seconds, CapacityBook.outlier * known) - known)
        }
    }

    private struct Accounts: Sendable {
        var of: [NodeIdentity: Account] = [:]
        /// What the member that was picked last had been given.
        var time = 0.0
    }

    /// After so many finished messages a full member is offered one more: others may have left it.
    private static let probedEvery = 16
    private static let smoothing = 0.2
    /// Other clients fill a member for a moment; a long job does for long.
    private static let owed = 16.0
    /// One message that takes very long says little about the next, nor do those before one that is quick.
    private static let outlier = 4.0

    private var topics: [Topic: Accounts] = [:]
    private let topicsMax: Int

    package init(topicsMax: Int) { self.topicsMax = topicsMax }

    /// The one of `members` that gets the next message; nil: none has a free handler.
    package func pick(_ members: [Member], topic: Topic) -> Member? {
        let accounts = topics[topic]
        var best: (member: Member, given: Double, outstanding: Int)?
        for member in members {
            let account = accounts?.of[member.identity] ?? Account()
            if account.room == 0 { continue }
            let given = account.start(accounts?.time ?? 0)
            if let best, (best.given, best.outstanding) <= (given, account.outstanding) { continue }
            best = (member, given, account.outstanding)
        }
        return best?.member
    }

    /// A message goes to a member that was picked.
    package mutating func sent(_ topic: Topic, to member: NodeIdentity) {
        if topics[topic] == nil, topics.count >= topicsMax { topics.removeAll(keepingCapacity: true) }
        change(topic, member) { account, time in
            account.outstanding += 1
            account.room = account.room.map { max(0, $0 - 1) }
            let start = account.start(time)
            time = max(time, start)
            account.given = start + account.service
        }
    }

    /// The member turned a message away.
    package mutating func turnedAway(_ topic: Topic, by member: NodeIdentity) {
        change(topic, member) { account, _ in
            account.outstanding -= 1
            account.room = 0
            account.finished = 0
            account.given -= account.service
        }
    }

    /// The member calls for so many messages; 0: as many as there are.
    package mutating func called(_ topic: Topic, by member: NodeIdentity, for count: UInt32) {
        change(topic, member) { account, _ in account.room = count == 0 ? nil : Int(count) }
    }

    /// The member has answered a message. `service`: how long it took; nil: that is not known.
    package mutating func answered(_ topic: Topic, by member: NodeIdentity, service: Duration?) {
        change(topic, member) { account, _ in
            account.outstanding -= 1
            account.finished += 1
            guard let service else {
                // Its handler may be busy with it, or done: the next one finds out.
                account.room = account.room.map { max(1, $0) }
                return
            }
            if let room = account.room {
                account.room = room + (account.finished % Self.probedEvery == 0 ? 2 : 1)
            }
            account.measured(Double(service.nanoseconds) / 1e9)
        }
    }

    /// A message ended without an answer: its handler may still be busy with it. The next one finds out.
    package mutating func gaveUp(_ topic: Topic, at member: NodeIdentity) {
        change(topic, member) { account, _ in
            account.outstanding -= 1
            account.room = account.room.map { max(1, $0) }
        }
    }

    /// Nothing is known of a member any more: a link to it has ended.
    package mutating func forget(_ member: NodeIdentity) {
        for topic in Array(topics.keys) { topics[topic]?.of[member] = nil }
    }

    private mutating func change(
        _ topic: Topic, _ member: NodeIdentity, _ body: (inout Account, inout Double) -> Void
    ) {
        var time = topics[topic]?.time ?? 0
        body(&topics[topic, default: Accounts()].of[member, default: Account()], &time)
        topics[topic]?.time = time
        if let account = topics[topic]?.of[member], account.outstanding < 0 {
            topics[topic]?.of[member]?.outstanding = 0
        }
    }
}
