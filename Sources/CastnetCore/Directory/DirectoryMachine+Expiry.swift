/// When this node asks suspects for a sign of life: in turn, and not while others ask.
struct LifeQuestions: Sendable {
    /// Meant for then; nil: there is nobody to ask for.
    var at: Instant?
    /// Others ask.
    var notBefore = Instant(nanoseconds: .min)
    /// Between two questions, whoever asks them; answers are on their way.
    static let pause: Duration = .milliseconds(40)
    /// Of a turn: longer than a datagram takes, so that who comes first is heard before the next.
    static let slot: Int64 = 10_000_000

    var nextDeadline: Instant? { at.map { max($0, notBefore) } }
}

extension DirectoryMachine {
    /// Something may be due then.
    mutating func look(at instant: Instant?) { lookAt = earliest(lookAt, instant) }

    /// Suspects and gives up nodes that were silent, forgets those long gone.
    ///
    /// Signs of life only move an entry's own times, so now and then all are looked at, one after the other
    /// as they lie in memory: some microseconds for a thousand, whatever has happened to them.
    mutating func expire(now: Instant, _ actions: inout [DirectoryAction]) {
        guard let due = lookAt, due <= now else { return }
        counters.add(.beaconPartsTimeout, assembler.expire(now: now))
        noticeNobodyHeard(now: now, &actions)
        let times = times
        var next = assembler.isEmpty ? nil : now + BeaconAssembler.age
        var (asks, forgotten): (Bool, [String]) = (false, [])
        for position in entries.due(times, now: now, &next) {
            switch expire(position, times, now: now, &actions) {
            case .nothing: next = earliest(next, entries[position].next(times))
            case .question:
                asks = true
                next = earliest(next, entries.asked(position, times))
            case .forgotten: forgotten.append(entries[position].identity.name)
            }
        }
        for name in forgotten { remove(name) }
        if asks, questions.at == nil { questions.at = now + questionTurn() }
        let pause = Duration(nanoseconds: max(5_000_000, interval.nanoseconds / 128))
        lookAt = next.map { max($0, now + pause) }
    }

    // MARK: Questions

    /// This node or another has asked. Who means to ask for the same nodes waits for a turn anew: they are
    /// the whole group's suspects. Who means to ask for others keeps what is left of the turn, so that it
    /// comes.
    mutating func asked(forSame: Bool, now: Instant) {
        var turn = questionTurn()
        if !forSame, let mine = questions.nextDeadline {
            turn = min(turn, max(.zero, mine - now) + jitter(LifeQuestions.pause))
        }
        questions.notBefore = now + LifeQuestions.pause + turn
    }

    private mutating func questionTurn() -> Duration {
        Duration(nanoseconds: turn(in: turnSlots * LifeQuestions.slot))
    }

    /// Whom to ask for now (as digests): the suspects whose turn would come before the next question. Of many
    /// all nodes take the same ones, so that each question is one less for everybody.
    mutating func dueQuestions(now: Instant) -> [UInt64] {
        guard let due = questions.nextDeadline, due <= now else { return [] }
        questions.at = nil
        // Others may have asked for all that was due.
        guard let first = entries.firstProbe else { return [] }
        guard first <= now else {
            look(at: first)
            return []
        }
        var soon: [(position: Int, digest: UInt64)] = []
        for position in entries.suspects where isSoonDue(entries[position].life, now: now) {
            soon.append((position, entries[position].digest))
        }
        soon.sort { $0.digest < $1.digest }
        let asked = soon.prefix(BeaconFormat.requestEntriesMax)
        for (position, _) in asked {
            entries[position].probeAt = now + untilNextProbe(of: entries[position].life, now: now)
        }
        self.asked(forSame: true, now: now)
        if asked.count < soon.count { questions.at = now }
        // For the next time.
        look(at: now)
        return asked.map(\.digest)
    }

    private func isSoonDue(_ life: DirectoryEntry.Life, now: Instant) -> Bool {
        let pause = probePause(every: life.interval(atLeast: pace))
        return life.probeAt.map { $0 < now + Duration(nanoseconds: pause) } ?? false
    }

    /// A vouched node is asked for as long as it is silent, but no more than its beacons would cost.
    private mutating func untilNextProbe(of life: DirectoryEntry.Life, now: Instant) -> Duration {
        let silence = now - (life.heard ?? life.since)
        let interval = Duration(nanoseconds: life.interval(atLeast: pace))
        return silence < interval * 3 ? nextProbe(every: interval.nanoseconds) : interval
    }

    /// What the times of all entries depend on.
    var times: DirectoryEntry.Times {
        .init(
            patience: patience, pace: pace, notBefore: echo.backAt, mayDie: !echo.isSilent,
            goneKept: goneKept)
    }

    private enum Due { case nothing, question, forgotten }

    /// One entry that is due.
    private mutating func expire(
        _ position: Int, _ times: DirectoryEntry.Times, now: Instant, _ actions: inout [DirectoryAction]
    ) -> Due {
        switch entries[position].life.state {
        case .alive:
            setState(at: position, .suspect, now: now)
            entries[position].probeAt = max(now, entries[position].probeAt ?? now)
            counters.add(.directorySuspected)
            actions.append(.changed(.suspected(entries[position].identity, .silent)))
            return .nothing
        case .suspect:
            if let death = entries[position].life.deathAt(times), death <= now {
                setState(at: position, .dead, now: now)
                fallBack(at: position)
                counters.add(.directoryDied)
                actions.append(.changed(.died(entries[position].identity)))
                return .nothing
            }
            if let retry = entries[position].life.retryAt, retry <= now {
                setReachable(at: position, true)
                setState(at: position, .alive, now: now)
                actions.append(.changed(.refuted(entries[position].identity)))
                return .nothing
            }
            if rules.beacons { return .question }
            entries[position].probeAt = now + entries[position].interval
            return .nothing
        case .left, .dead:
            return .forgotten
        }
    }

    /// Says once that nobody's beacons come any more, though nodes that sent some live: by now those that
    /// only beacons told of are given up.
    private mutating func noticeNobodyHeard(now: Instant, _ actions: inout [DirectoryAction]) {
        guard !hearing.isSilent, !echo.isSilent, let heardAt = hearing.heardAt,
            (now - heardAt).nanoseconds / 3 > interval.nanoseconds
        else { return }
        let kept = entries.entries.count { $0.isPresent && $0.sources.contains(.beacon) }
        guard kept > 0 else { return }
        hearing.isSilent = true
        actions.append(.changed(.othersSilent(age: now - heardAt, kept: kept)))
    }

    // MARK: Patience

    /// How many beacons in a row may be missing before a node is suspect. The group has presentCount² pairs
    /// that miss one now and then, each with a question and an answer that all hear: in a large group only
    /// what is rare may be asked about.
    var patience: Int { presentCount <= 128 ? 1 : presentCount <= 512 ? 2 : 3 }

    /// Between two questions about one suspect: there is less time for more of them where it became one late.
    /// In nanoseconds: this is asked for each name of each question.
    private func probePause(every interval: Int64) -> Int64 { interval / 100 * (patience < 3 ? 30 : 4) }

    /// Until the next of them, whoever asks it.
    mutating func nextProbe(every interval: Int64) -> Duration {
        let half = probePause(every: interval) / 2
        return Duration(nanoseconds: half + turn(in: half))
    }

    /// The interval of a group as large as this one, in milliseconds.
    var pace: UInt32 { UInt32(clamping: presentCount * 1000 / max(1, rules.packetsPerSecond)) }

    /// How long a node that is gone is remembered: what the slowest to notice tells of it is old by then.
    var goneKept: Duration { max(rules.goneKept, Duration(nanoseconds: interval.nanoseconds * 4)) }
}
