import DequeModule

/// How a node keeps its record in an outside store with expiring keys and notifications (Redis), and what it
/// concludes from what others keep there.
///
/// The driver asks ``next(now:)`` for one step, does it, and tells the result. A store that cannot be reached
/// withdraws nobody: what is known stays, and absence counts again when everybody has had the time to come
/// back and register anew. Confined to its driver; it holds at most `membersMax` names,
/// as many to read, and 1,024 names of values that are no records.
package struct StoreMachine: ~Copyable {
    package struct Rules: Hashable, Sendable {
        /// How long a record lives in the store without being refreshed.
        package var timeToLive: Duration = .seconds(30)
        package var membersMax = 16_384
        /// Names read in one exchange.
        package var batchSize = 32
        /// Known records read again with each look at all names, in turns: heals lost notifications.
        package var rereads = 64
        /// The first and the longest pause before a new try.
        package var pause: ClosedRange<Duration> = .milliseconds(500)...(.seconds(5))
        /// Own changes are written at most this often.
        package var changeGap: Duration = .milliseconds(50)
        /// Exchanges of one look at all names: past that the store holds too many foreign keys.
        package var scanStepsMax = 20_000

        package init() {}

        /// After so long everybody else is back, too: the longest pause, a try that fails late, and the pause
        /// before what is written first.
        var returnTime: Duration { pause.upperBound + .seconds(1) + pause.lowerBound }
    }

    private enum Phase {
        /// No connection. May become up, or ended.
        case down(retryAt: Instant)
        /// Connected and subscribed. May become down, or ended.
        case up
        case ended
    }

    private struct Known {
        /// The last whole look at all names did not find it.
        var isMissing = false
        /// The store may have lost it: it has not been seen since the return.
        var isOwed = false
        /// Since when its value is no record.
        var unfitSince: Instant?

        mutating func seen() { (isMissing, isOwed) = (false, false) }

        mutating func missed(isOwed: Bool) {
            isMissing = true
            if isOwed { self.isOwed = true }
        }
    }

    /// A look at all names under way.
    private struct Pass {
        var cursor = "0"
        var steps = 0
        var seen: Set<String> = []
    }

    private static let unfitNamesMax = 1024

    let rules: Rules
    private let name: String
    private let cluster: String
    private var own: NodeRecord?
    private var phase: Phase
    private var isStopping = false
    private var known: [String: Known] = [:]
    private var events: [StoreEvent] = []
    private var generator: SeededGenerator
    /// Failures in a row.
    private var attempts = 0
    private var hasConnected = false
    private var isDownTold = false
    private var isUnfitTold = false
    private var isOwnFaultTold = false
    /// When everything was read last.
    private var readAt: Instant?

    private var putAt: Instant?
    private var lastPut: Instant?
    private var scanAt: Instant
    private var pass: Pass?
    /// True until everything has been read once on this connection.
    private var isFirstPass = true
    private var wasFetch = false
    /// Until then a name that is owed and not found is not gone.
    private var graceUntil: Instant
    private var wanted: Deque<String> = []
    /// The wanted names; true: a notification named it.
    private var wantedNames: [String: Bool] = [:]
    /// The same of the names that are being read.
    private var reading: [String: Bool] = [:]
    /// Names whose values are no records, and until when no look at all names has them read again.
    private var unfitNames: [String: Instant] = [:]
    private var rereadAfter = ""

    package init(name: String, cluster: String, rules: Rules = Rules(), seed: UInt64, now: Instant) {
        self.name = name
        self.cluster = cluster
        self.rules = rules
        generator = SeededGenerator(seed: seed)
        phase = .down(retryAt: now)
        (scanAt, graceUntil) = (now, now)
    }

    /// What happened since this was asked last, in order.
    package mutating func takeEvents() -> [StoreEvent] {
        defer { events = [] }
        return events
    }

    // MARK: What the node wants

    /// The own record, in place of the one before.
    package mutating func publish(_ record: NodeRecord, now: Instant) {
        own = record
        putAt = max(now, lastPut.map { $0 + rules.changeGap } ?? now)
    }

    /// Takes the own record back, if there is a connection, and ends.
    package mutating func stop() { isStopping = true }

    // MARK: What is next

    /// The next thing to do.
    package mutating func next(now: Instant) -> StoreStep {
        switch phase {
        case .ended: return .end
        case .down(let retryAt):
            if isStopping {
                phase = .ended
                return .end
            }
            return retryAt <= now ? .connect : .rest(until: retryAt)
        case .up: return nextWhileUp(now: now)
        }
    }

    private mutating func nextWhileUp(now: Instant) -> StoreStep {
        if isStopping {
            phase = .ended
            return own.map { .remove($0.identity) } ?? .end
        }
        if let own, let putAt, putAt <= now { return .put(own) }
        let isScanDue = pass != nil || scanAt <= now
        // Neither a flood of notifications nor a large store holds up the other.
        if !wanted.isEmpty, !(wasFetch && isScanDue) {
            wasFetch = true
            let names = Array(wanted.prefix(rules.batchSize))
            wanted.removeFirst(names.count)
            for name in names { reading[name] = wantedNames.removeValue(forKey: name) }
            return .fetch(names)
        }
        wasFetch = false
        if isScanDue {
            let pass = self.pass ?? Pass()
            self.pass = pass
            return .scan(cursor: pass.cursor)
        }
        return .rest(until: min(scanAt, putAt ?? scanAt))
    }

    // MARK: The connection

    /// Connected and subscribed: from now on every change is heard, so all there is is read once.
    package mutating func connected(now: Instant) {
        phase = .up
        events.append(.count(.redisConnects))
        // After an outage all nodes come back at once: the first of them is in nobody's way.
        let start = hasConnected ? now + generator.jitter(rules.pause.lowerBound, in: 0...1) : now
        hasConnected = true
        if own != nil { putAt = start }
        scanAt = start
        graceUntil = now + max(rules.timeToLive, rules.returnTime)
        for name in known.keys { known[name]?.isOwed = true }
        (isFirstPass, isUnfitTold) = (true, false)
        unfitNames = [:]
        forgetWork()
    }

    /// The store cannot be reached, does not answer, or answers what makes no sense. Nothing is forgotten.
    package mutating func failed(now: Instant) {
        guard !isEnded else { return }
        events.append(.count(.redisFailures))
        if !isDownTold {
            isDownTold = true
            events.append(.down(age: readAt.map { now - $0 }, known: known.count))
        }
        let doubled = rules.pause.lowerBound * (1 << min(attempts, 10))
        attempts += 1
        phase = .down(
            retryAt: now + generator.jitter(min(doubled, rules.pause.upperBound), in: 0.5...1))
        forgetWork()
    }

    private var isEnded: Bool { if case .ended = phase { true } else { false } }

    private mutating func forgetWork() {
        pass = nil
        wanted = []
        wantedNames = [:]
        reading = [:]
    }

    // MARK: The own record

    /// What became of the own record. It is refreshed in a third of the time that it lives.
    package mutating func stored(_ answer: StoreAnswer, now: Instant) {
        lastPut = now
        putAt = now + generator.jitter(rules.timeToLive / 3, in: 0.8...1)
        switch answer {
        case .taken:
            events.append(.count(.redisRecordsStored))
            isOwnFaultTold = false
            return
        case .superseded: events.append(.count(.redisRecordsRefused))
        case .refused: events.append(.count(.redisFailures))
        }
        guard !isOwnFaultTold else { return }
        isOwnFaultTold = true
        if case .refused(let why) = answer {
            events.append(.refused(why))
        } else {
            events.append(.superseded)
        }
    }

    // MARK: The others' records

    /// A notification: the record of `name` has changed or was withdrawn.
    package mutating func notified(_ name: String) {
        guard case .up = phase else { return }
        events.append(.count(.redisNotifications))
        guard BeaconFormat.isNodeName(name.utf8) else { return events.append(.count(.redisRecordsRejected)) }
        want(name, isNotified: true)
    }

    /// Names of the store, and where to go on; "0": that was all.
    package mutating func scanned(_ names: [String], next: String, now: Instant) {
        guard var pass else { return }
        self.pass = nil
        pass.steps += 1
        for name in names where BeaconFormat.isNodeName(name.utf8) && name != self.name {
            guard pass.seen.contains(name) || pass.seen.count < rules.membersMax else {
                events.append(.count(.limitMembersHit))
                continue
            }
            guard pass.seen.insert(name).inserted else { continue }
            known[name]?.seen()
            let isOpen = known[name].map { isFirstPass || $0.unfitSince != nil } ?? true
            if isOpen, unfitNames[name].map({ $0 <= now }) ?? true { want(name) }
        }
        pass.cursor = next
        if next == "0" {
            finish(pass, now: now)
            scanAt = now + generator.jitter(rules.timeToLive / 2, in: 0.8...1)
            // Who has died meanwhile is known as soon as absence counts again.
            if now < graceUntil { scanAt = min(scanAt, graceUntil) }
        } else if pass.steps < rules.scanStepsMax {
            self.pass = pass
        } else {
            // What is beyond was not looked at, so nobody is missing.
            scanAt = now + rules.timeToLive
        }
    }

    /// Whoever was not seen is looked at once more by name; only that can tell that it is gone.
    private mutating func finish(_ pass: Pass, now: Instant) {
        events.append(.count(.redisScans))
        readAt = now
        attempts = 0
        isFirstPass = false
        if isDownTold {
            isDownTold = false
            events.append(.back(known: known.count))
        }
        let missing = known.filter { !pass.seen.contains($0.key) }
        let fresh = missing.count { !$0.value.isMissing }
        // Half of all nodes do not die within one look: the store has lost what it had.
        let isLost = fresh > 1 && fresh * 2 > known.count
        if isLost { graceUntil = max(graceUntil, now + rules.timeToLive) }
        for name in missing.keys.sorted() {
            known[name]?.missed(isOwed: isLost)
            want(name)
        }
        let names = known.keys.filter { pass.seen.contains($0) }.sorted()
        let later = names.filter { $0 > rereadAfter }.prefix(rules.rereads)
        let turn = later + names.prefix(rules.rereads - later.count).filter { $0 <= rereadAfter }
        for name in turn { want(name) }
        rereadAfter = turn.last ?? ""
    }

    private mutating func want(_ name: String, isNotified: Bool = false) {
        guard name != self.name else { return }
        if let isAlready = wantedNames[name] {
            wantedNames[name] = isAlready || isNotified
        } else if wantedNames.count < rules.membersMax {
            wantedNames[name] = isNotified
            wanted.append(name)
        } else {
            // Found again by the next look at all names.
            events.append(.count(.limitMembersHit))
        }
    }

    /// What the store has under the key of `name`.
    package mutating func fetched(_ name: String, _ value: StoredValue, now: Instant) {
        let isNotified = reading.removeValue(forKey: name) ?? false
        switch value {
        case .absent:
            unfitNames[name] = nil
            guard let entry = known[name] else { return }
            // What was withdrawn says so; what is only not there may have been lost with the store.
            if isNotified || !entry.isOwed || now >= graceUntil { forget(name) }
        case .foreign: unfit(name, "its key holds no string", now: now)
        case .bytes(let bytes):
            do throws(BeaconFault) {
                let record = try StoredRecord.decode(bytes)
                guard record.identity.name == name else { throw .invalid(.name) }
                guard record.cluster == cluster else { throw .invalid(.cluster) }
                found(record)
            } catch {
                unfit(name, "\(error)", now: now)
            }
        }
    }

    private mutating func found(_ record: NodeRecord) {
        let name = record.identity.name
        unfitNames[name] = nil
        guard known[name] != nil || known.count < rules.membersMax else {
            return events.append(.count(.limitMembersHit))
        }
        known[name] = Known()
        events.append(.count(.redisRecordsRead))
        events.append(.found(record))
    }

    private mutating func forget(_ name: String) {
        known[name] = nil
        events.append(.gone(name))
    }

    /// A node whose value somebody has spoilt writes it anew soon; if it does not it is gone.
    private mutating func unfit(_ name: String, _ why: String, now: Instant) {
        events.append(.count(.redisRecordsRejected))
        if !isUnfitTold {
            isUnfitTold = true
            events.append(.unfit(name: name, why: why))
        }
        if let since = known[name]?.unfitSince {
            if since + rules.timeToLive <= now, now >= graceUntil { forget(name) }
        } else {
            known[name]?.unfitSince = now
        }
        guard known[name] == nil else { return }
        if unfitNames.count >= Self.unfitNamesMax { unfitNames = [:] }
        unfitNames[name] = now + rules.timeToLive * 4
    }
}
