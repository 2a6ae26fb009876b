extension DirectoryEntry {
    /// What a sign of life touches, and what silence is judged by: numbers only, which are copied without
    /// counting who holds what.
    ///
    /// What comes before `askAt` is touched most, and lies in one line of memory.
    struct Life: Sendable {
        /// Names the record's name, incarnation and version. Nearly all that is heard is compared with it
        /// alone: the record is somewhere else in memory.
        var stamp: UInt64
        private var heardAt = never
        private var intervalMilliseconds: UInt32 = 0
        var state: NodeState = .alive
        var sources: RecordSources
        /// Set by a broken link or a failed dial, until it is heard.
        var unreachable = false
        /// Nothing is true of it that is true of a few nodes only (``Rare``).
        var isPlain = true
        private var askAt = never
        /// Since when the node is in its state.
        var since: Instant

        private static let never = Instant(nanoseconds: .min)

        init(stamp: UInt64, sources: RecordSources, since: Instant) {
            (self.stamp, self.sources, self.since) = (stamp, sources, since)
        }

        /// The last sign of life of this incarnation.
        var heard: Instant? {
            get { heardAt == Self.never ? nil : heardAt }
            set { heardAt = newValue ?? Self.never }
        }

        /// When this node asks it for a sign of life, once it is suspect: not before what others have asked
        /// is answered.
        var probeAt: Instant? {
            get { askAt == Self.never ? nil : askAt }
            set { askAt = newValue ?? Self.never }
        }

        /// How often it sends beacons, as it said itself; to the millisecond, as on the wire.
        var interval: Duration {
            get { Duration(nanoseconds: Int64(intervalMilliseconds) * 1_000_000) }
            set { intervalMilliseconds = newValue.wireMilliseconds }
        }

        /// In nanoseconds; `pace` in milliseconds.
        func interval(atLeast pace: UInt32) -> Int64 { Int64(max(intervalMilliseconds, pace)) * 1_000_000 }

        /// True for nodes that messages may be sent to.
        var isPresent: Bool { state == .alive || state == .suspect }

        /// True for nodes that no silence removes, because a source vouches for them.
        var isVouched: Bool { !sources.isDisjoint(with: [.own, .fixed, .discovery]) }

        /// Its record is the one that the stamp names, and nothing is true of it that is true of few nodes.
        func isJust(_ stamp: UInt64) -> Bool { self.stamp == stamp && state != .left && isPlain }
    }
}

// MARK: What is heard

extension DirectoryEntry.Life {
    /// What a sign of life comes to.
    enum Refresh {
        /// It may tell more: look closer.
        case nothing
        /// It puts off what the entry needs next.
        case later
        /// The node is heard more often from now on: the entry may need something sooner than it was to.
        case sooner
    }

    /// The way of nearly all that is heard: nothing is new but that the node lives.
    mutating func refresh(_ stamp: UInt64, interval: UInt32, now: Instant) -> Refresh {
        guard self.stamp == stamp, state == .alive, !unreachable, sources.contains(.beacon) else {
            return .nothing
        }
        let isSooner = interval < intervalMilliseconds
        heardAt = now
        intervalMilliseconds = interval
        return isSooner ? .sooner : .later
    }

    /// True where another's word that the node lived at `instant` tells nothing: it was heard here as late.
    /// The same beacon seems a little later there, for the word took its time.
    func knows(_ stamp: UInt64, at instant: Instant) -> Bool {
        self.stamp == stamp && state == .alive && instant <= after(6, since: heardAt)
    }
}

// MARK: What silence means

extension DirectoryEntry.Life {
    /// From this silence on a node is suspect: so many beacons are certainly missing, of which one comes
    /// after at most 90 % of the interval.
    private func suspicion(of heard: Instant, _ times: DirectoryEntry.Times) -> Instant {
        after(times.patience == 1 ? 150 : times.patience == 2 ? 200 : 272, pace: times.pace, since: heard)
    }

    /// So many hundredths of its interval after an instant. In integers: this is asked of every entry.
    func after(_ hundredths: Int64, pace: UInt32 = 0, since instant: Instant) -> Instant {
        let (sum, overflow) = instant.nanoseconds.addingReportingOverflow(
            interval(atLeast: pace) / 100 * hundredths)
        return Instant(nanoseconds: overflow ? .max : sum)
    }

    private func suspicionAt(_ times: DirectoryEntry.Times) -> Instant? {
        guard state == .alive, sources.contains(.beacon), heardAt != Self.never else { return nil }
        return suspicion(of: max(heardAt, times.notBefore), times)
    }

    /// From here on the suspect is dead. Just under three intervals after the last sign of life, so that a
    /// node killed right behind a beacon is gone within three. A node that never sent a beacon and that a
    /// source vouches for does not die of silence.
    func deathAt(_ times: DirectoryEntry.Times) -> Instant? {
        guard times.mayDie, state == .suspect, sources.contains(.beacon) || !isVouched else { return nil }
        return after(290, pace: times.pace, since: max(heard ?? since, times.notBefore))
    }

    /// When a vouched node that never sent a beacon is given another try: nothing else would refute.
    var retryAt: Instant? {
        guard state == .suspect, isVouched, !sources.contains(.beacon) else { return nil }
        return since + max(.seconds(2), interval * 2)
    }

    /// When it needs something next, but for what is true of few nodes.
    func next(_ times: DirectoryEntry.Times) -> Instant? {
        switch state {
        case .alive: suspicionAt(times)
        case .suspect: earliest(endsAt(times), probeAt)
        case .left, .dead: forgottenAt(after: times.goneKept)
        }
    }

    /// When a suspect is dead, or alive for want of proof.
    func endsAt(_ times: DirectoryEntry.Times) -> Instant? { earliest(deathAt(times), retryAt) }

    /// When a node that is gone is forgotten.
    func forgottenAt(after kept: Duration) -> Instant? { !isPresent && !isVouched ? since + kept : nil }
}

extension DirectoryEntry {
    /// What the times of all entries depend on.
    struct Times: Hashable {
        /// So many beacons in a row may be missing.
        var patience: Int
        /// In milliseconds: the time between two beacons of a node in a group as large as this one, which it
        /// may keep although its word of it was missed.
        var pace: UInt32
        /// No silence before this counts.
        var notBefore: Instant
        var mayDie: Bool
        var goneKept: Duration

        /// True where an entry may need something well before what was computed with `others`.
        func mayComeSooner(than others: Times) -> Bool {
            patience != others.patience || notBefore != others.notBefore || mayDie != others.mayDie
                || Int(pace) * 8 < Int(others.pace) * 7
        }
    }
}
