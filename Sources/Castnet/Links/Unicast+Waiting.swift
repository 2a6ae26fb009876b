import CastnetCore
import DequeModule

/// Messages that must wait: for a member, for room, for a free handler. Their senders wait with them.
extension Unicast {
    /// Its sender waits until others have ended.
    func park(_ id: UInt64, _ entry: Outstanding) {
        counters.add(.limitPendingCallsHit)
        entry.isParked = true
        compact(&parked)
        parked.append(id)
        parkedCount += 1
    }

    /// Another has ended: the first that waits may go.
    func unpark() {
        while outstanding.count - parkedCount < configuration.limits.pendingCalls, let id = parked.popFirst()
        {
            guard let entry = outstanding[id] else { continue }
            entry.isParked = false
            parkedCount -= 1
            route(id, entry)
        }
    }

    func hasEnded(_ entry: Outstanding, at member: NodeIdentity, isAnswered: Bool) {
        let message = entry.message
        guard isAnswered else { return capacity.gaveUp(message.topic, at: member) }
        // A cast that is settled when it was received says nothing of its handler.
        let isDone = message.kind == .call || message.settle == .processed
        capacity.answered(message.topic, by: member, service: isDone ? now - entry.sentAt : nil)
    }

    /// Every member has its hands full.
    func crowd(_ id: UInt64, _ target: Target) {
        var waiting = crowded.removeValue(forKey: target) ?? []
        compact(&waiting)
        // One that was turned away is older than most.
        let place = waiting.last.map { $0 < id } ?? true ? waiting.endIndex : waiting.firstIndex { $0 > id }
        waiting.insert(id, at: place ?? waiting.endIndex)
        crowded[target] = waiting
    }

    /// Those that ended while they waited must not pile up.
    func compact(_ waiting: inout Deque<UInt64>) {
        if waiting.count > 64 + 2 * outstanding.count { waiting.removeAll { outstanding[$0] == nil } }
    }

    /// A member may have a free handler again: the first that wait for one go.
    func wakeCrowded(_ topic: Topic) {
        guard !crowded.isEmpty else { return }
        for target in crowded.keys.filter({ $0.topic == topic }) { wakeCrowded(target) }
    }

    func wakeCrowded(_ target: Target) {
        while let id = crowded[target]?.first {
            guard let entry = outstanding[id], !entry.isParked else {
                crowded[target]?.removeFirst()
                continue
            }
            let candidates = candidates(for: entry)
            guard candidates.isEmpty || capacity.pick(candidates, topic: target.topic) != nil else { break }
            crowded[target]?.removeFirst()
            route(id, entry, isFirst: true)
        }
        if crowded[target]?.isEmpty == true { crowded[target] = nil }
    }

    /// A message has ended: where it was the last that waited, nothing is left of that.
    func stopWaiting(_ entry: Outstanding) {
        let (target, topic) = (entry.target, entry.message.topic)
        if crowded[target] != nil { trim(&crowded[target]) }
        if unserved[topic] != nil { trim(&unserved[topic]) }
    }

    private func trim(_ waiting: inout Deque<UInt64>?) {
        while let first = waiting?.first, outstanding[first] == nil { waiting?.removeFirst() }
        if waiting?.isEmpty == true { waiting = nil }
    }

    func waitForMember(_ id: UInt64, _ entry: Outstanding) {
        let topic = entry.message.topic
        if entry.message.mandatory { return finish(id, .unroutable, "nobody serves \(topic)") }
        var waiting = unserved.removeValue(forKey: topic) ?? []
        if waiting.count >= entry.message.route.backlog { counters.add(.limitBacklogHit) }
        compact(&waiting)
        waiting.append(id)
        unserved[topic] = waiting
    }

    /// Others may have waited for the room that a message took.
    func makeWay(after entry: Outstanding) {
        guard !isMakingWay else { return }
        // What goes on may end at once, and make way again: not from within.
        isMakingWay = true
        defer { isMakingWay = false }
        if entry.isPrompt { wakeCrowded(entry.message.topic) }
        if parkedCount > 0, !PlantedBug.forgetsParked.isPlanted { unpark() }
    }

    /// A member had no room for a message of this node, and has not looked at it.
    func turnedAway(_ id: UInt64) {
        guard let entry = outstanding[id], let member = entry.member?.identity else { return }
        if entry.isPrompt {
            entry.attempts.turnedAway()
            capacity.turnedAway(entry.message.topic, by: member)
            if let link = entry.link {
                link.unassign(id)
                let route = entry.message.route
                wait(at: Door(member: member, topic: entry.message.topic), on: link, linger(of: route))
            }
            entry.link = nil
            entry.member = nil
            entry.replayTo = nil
            route(id, entry, isFirst: true)
        } else if let link = entry.link {
            link.putBack(id, entry.message.topic, entry.message.payload)
        } else {
            waitForOwnRoom(id, entry)
        }
    }

    /// A member has room for so many messages of a topic; 0: as many as credit allows. False: none waits for
    /// a free handler.
    @discardableResult
    func called(_ topic: Topic, by member: NodeIdentity, for count: UInt32) -> Bool {
        let isWanted = crowded.keys.contains { $0.topic == topic }
        if PlantedBug.ignoresCalls.isPlanted { return isWanted }
        capacity.called(topic, by: member, for: count)
        wakeCrowded(topic)
        leave(Door(member: member, topic: topic))
        guard member == identity else { return isWanted }
        if !isWanted { sink.passed(topic, by: identity) }
        for id in ownWaiting.removeValue(forKey: topic) ?? [] {
            if let entry = outstanding[id] { deliverHere(id, entry) }
        }
        return isWanted
    }

    /// The member calls on a link it turned a message away on: those stay open until then.
    private func wait(at door: Door, on link: Link, _ linger: Duration) {
        if doors[door, default: (linger, [])].links.insert(link.number).inserted { link.doorCount += 1 }
    }

    private func leave(_ door: Door) {
        guard let (linger, numbers) = doors.removeValue(forKey: door) else { return }
        for link in numbers.compactMap({ links[$0] }) {
            link.doorCount -= 1
            link.closeIfDone(linger: linger)
        }
    }

    /// The link has ended: nobody can call on it. What the member takes is not known any more.
    func leaveDoors(of link: Link) {
        guard link.doorCount > 0, let member = link.key?.peer else { return }
        for door in doors.keys.filter({ $0.member == member }) {
            doors[door]?.links.remove(link.number)
            if doors[door]?.links.isEmpty == true { doors[door] = nil }
        }
        capacity.forget(member)
        for target in Array(crowded.keys) { wakeCrowded(target) }
    }

    /// How many messages of its topic may be on the way over `link`; nil: it has ended, or goes another way.
    func backlog(of id: UInt64, on link: Link) -> Int? {
        guard let entry = outstanding[id], entry.link === link else { return nil }
        return max(1, entry.message.route.backlog)
    }

    func waitForOwnRoom(_ id: UInt64, _ entry: Outstanding) {
        ownWaiting[entry.message.topic, default: []].append(id)
    }
}
