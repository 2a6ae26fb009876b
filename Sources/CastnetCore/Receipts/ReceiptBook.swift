internal import DequeModule

/// Which members have which fanouts: open receipts of one node, filled by what carriers and directory report.
///
/// A machine: it holds a row per member and open receipt (bounded by the caller's admission of receipts),
/// never asks for the time and never forgets one: each receipt comes out of `takeFinished` exactly once.
package struct ReceiptBook: ~Copyable {
    /// Names a receipt while it is open.
    package typealias Token = UInt64

    /// A receipt that is complete, or whose deadline has passed.
    package struct Finished: Sendable {
        package var token: Token
        package var rows: [Receipt.Row]
    }

    /// What the directory says about a member and a topic at the time of a report.
    package enum Claim: Sendable {
        /// The member heard the topic.
        case holds
        /// It did not any more.
        case dropped
        /// The member has changed what it hears, and the directory does not know yet to what.
        case unknown
    }

    private struct Entry {
        let topic: Topic
        var rows: [Receipt.Row]
        /// Where a member's row is.
        var places: [NodeIdentity: Int]
        /// Rows nobody has reported about; a row is open exactly while its bit is set.
        var isOpen: [Bool]
        var openCount: Int
        let openedAt: Instant
        let deadline: Instant
        let channel: String?
        let settle: Settlement
        /// The frames that hold the message's begin and end; nil until the stream has cut it so far.
        var firstFrame: UInt64?
        var lastFrame: UInt64?
        /// Rows of members that may lack a part of the message, whatever they report later.
        var doubtful: Set<Int> = []
        /// Rows of members that got a part of it over TCP.
        var repaired: Set<Int> = []

        /// True when a part of the message is in these frames, `to` left out.
        func hasPart(from: UInt64, to: UInt64) -> Bool {
            guard let firstFrame else { return false }
            return firstFrame < to && lastFrame ?? .max >= from
        }
    }

    /// The open receipts of a channel whose messages have begun to leave, in the order of their ends.
    private struct Lane {
        var begun: [Token] = []
        var sent = Deque<(token: Token, lastFrame: UInt64)>()
        var isEmpty: Bool { begun.isEmpty && sent.isEmpty }
        var tokens: [Token] { begun + sent.map(\.token) }

        /// The first of those sent that ends in `frame` or later.
        func index(from frame: UInt64) -> Int {
            sent.indices.partitioningIndex { sent[$0].lastFrame >= frame }
        }
    }

    private var entries: [Token: Entry] = [:]
    /// When each receipt times out, in order; some of these are closed already.
    private var deadlines = Deque<(at: Instant, token: Token)>()
    private var lanes: [String: Lane] = [:]
    /// What members reported before the directory knew what they heard then, by channel.
    private var unjudged: [NodeIdentity: [String: Progress]] = [:]
    private var finished: [Finished] = []

    package init() {}

    /// How many receipts are open.
    package var openCount: Int { entries.count }

    /// When the next receipt times out.
    package var nextDeadline: Instant? { deadlines.first?.at }

    /// Opens a receipt: `delivered` rows are complete already, `waiting` ones wait for a report.
    package mutating func open(
        _ token: Token, _ topic: Topic, delivered: [Receipt.Row], waiting: [NodeIdentity], channel: String?,
        settle: Settlement = .received, deadline: Instant, now: Instant
    ) {
        let waiting = PlantedBug.forgetsMembers.isPlanted ? Array(waiting.dropLast()) : waiting
        let rows = delivered + waiting.map { Receipt.Row(node: $0, outcome: .timedOut) }
        let isOpen = delivered.map { _ in false } + waiting.map { _ in true }
        let places = rows.enumerated().map { ($0.element.node, $0.offset) }
        entries[token] = Entry(
            topic: topic, rows: rows, places: Dictionary(places) { first, _ in first }, isOpen: isOpen,
            openCount: waiting.count, openedAt: now, deadline: deadline, channel: channel,
            settle: settle)
        let index = deadlines.indices.partitioningIndex { deadlines[$0].at > deadline }
        deadlines.insert((deadline, token), at: index)
        finishIfComplete(token)
    }

    /// The message begins in this frame.
    package mutating func began(_ token: Token, firstFrame: UInt64) {
        guard let channel = entries[token]?.channel else { return }
        entries[token]?.firstFrame = firstFrame
        lanes[channel, default: Lane()].begun.append(token)
    }

    /// The message ends in this frame, which is the last of its channel so far.
    package mutating func sent(_ token: Token, lastFrame: UInt64) {
        guard let channel = entries[token]?.channel else { return }
        entries[token]?.lastFrame = lastFrame
        lanes[channel]?.begun.removeAll { $0 == token }
        lanes[channel, default: Lane()].sent.append((token, lastFrame))
    }

    /// A member of a channel has come on. What it lost on the way is not known frame by frame, so it may be
    /// any message there; such a row stays open.
    package mutating func position(
        _ member: NodeIdentity, _ progress: Progress, channel: String, now: Instant,
        claim: (Topic) -> Claim
    ) {
        let unjudged = unjudged[member]?.removeValue(forKey: channel)
        guard let lane = lanes[channel] else { return }
        let position = progress.position
        if progress.hasLost, !PlantedBug.claimsLost.isPlanted {
            for token in lane.tokens {
                doubt(token, member, from: progress.before, to: position.received)
            }
        }
        if progress.hasRefused, !PlantedBug.claimsRefused.isPlanted {
            for (token, _) in lane.sent where entries[token]?.settle == .processed {
                doubt(token, member, from: progress.processedBefore, to: position.received)
            }
        }
        // What ended below that was judged with an earlier report.
        let from = min(
            progress.before, progress.processedBefore, unjudged?.before ?? .max,
            unjudged?.processedBefore ?? .max)
        for (token, lastFrame) in lane.sent[lane.index(from: from)...] {
            if lastFrame >= position.received { break }
            guard let entry = entries[token], let place = entry.places[member], entry.isOpen[place],
                !entry.doubtful.contains(place)
            else {
                continue
            }
            // The member began behind it, and never had it.
            guard (entry.firstFrame ?? 0) >= position.first else { continue }
            guard
                entry.settle == .received || position.isProcessed(lastFrame)
                    || PlantedBug.claimsUnprocessed.isPlanted
            else { continue }
            switch claim(entry.topic) {
            case .holds:
                settle(token, member, entry.repaired.contains(place) ? .repaired : .multicast, now: now)
            case .dropped: settle(token, member, .left, now: now)
            case .unknown: postpone(member, progress, from: from, channel)
            }
        }
    }

    /// The report is judged once the directory knows what the member heard then.
    private mutating func postpone(
        _ member: NodeIdentity, _ progress: Progress, from: UInt64, _ channel: String
    ) {
        var rest = progress
        rest.before = from
        // That has been taken into account.
        rest.hasLost = false
        rest.hasRefused = false
        unjudged[member, default: [:]][channel] = rest
    }

    /// The directory knows anew what a member hears: where it dropped a topic, it has left.
    package mutating func memberUpdated(
        _ member: NodeIdentity, now: Instant, hears: (Topic) -> Bool, claim: (UInt64) -> (Topic) -> Claim
    ) {
        for (channel, progress) in unjudged.removeValue(forKey: member) ?? [:] {
            position(member, progress, channel: channel, now: now, claim: claim(progress.epoch))
        }
        for (token, entry) in entries {
            guard let place = entry.places[member], entry.isOpen[place], !hears(entry.topic) else { continue }
            settle(token, member, .left, now: now)
        }
    }

    private mutating func doubt(_ token: Token, _ member: NodeIdentity, from: UInt64, to: UInt64) {
        guard let entry = entries[token], let place = entry.places[member],
            entry.hasPart(from: from, to: to)
        else { return }
        entries[token]?.doubtful.insert(place)
    }

    /// A member was sent frames over TCP.
    package mutating func served(_ member: NodeIdentity, _ frames: ClosedRange<UInt64>, channel: String) {
        guard let lane = lanes[channel] else { return }
        for token in lane.tokens {
            guard let entry = entries[token], let place = entry.places[member],
                entry.hasPart(from: frames.lowerBound, to: frames.upperBound + 1)
            else { continue }
            entries[token]?.repaired.insert(place)
        }
    }

    /// A copy sent by unicast has ended.
    package mutating func settle(
        _ token: Token, _ member: NodeIdentity, _ outcome: Receipt.Outcome, now: Instant
    ) {
        guard let place = entries[token]?.places[member], entries[token]?.isOpen[place] == true else {
            return
        }
        entries[token]?.isOpen[place] = false
        entries[token]?.openCount -= 1
        entries[token]?.rows[place].outcome = outcome
        if outcome.isDelivered, let openedAt = entries[token]?.openedAt {
            entries[token]?.rows[place].latency = now - openedAt
        }
        finishIfComplete(token)
    }

    /// A member is gone: it cannot report any more.
    package mutating func memberGone(_ member: NodeIdentity, now: Instant) {
        unjudged[member] = nil
        for token in entries.keys { settle(token, member, .left, now: now) }
    }

    /// Closes every receipt whose deadline has passed.
    package mutating func timerFired(now: Instant) {
        while let first = deadlines.first, first.at <= now {
            deadlines.removeFirst()
            if let entry = entries[first.token] { finish(first.token, entry) }
        }
    }

    /// The receipts that closed since the last call.
    package mutating func takeFinished() -> [Finished] {
        defer { finished = [] }
        return finished
    }

    private mutating func finishIfComplete(_ token: Token) {
        guard let entry = entries[token], entry.openCount == 0 else { return }
        finish(token, entry)
    }

    private mutating func finish(_ token: Token, _ entry: Entry) {
        entries[token] = nil
        if let channel = entry.channel {
            if let lastFrame = entry.lastFrame {
                remove(token, lastFrame, channel)
            } else {
                lanes[channel]?.begun.removeAll { $0 == token }
            }
            if lanes[channel]?.isEmpty == true { lanes[channel] = nil }
        }
        finished.append(Finished(token: token, rows: entry.rows))
        // Closed ones go once they are first, or most.
        while let first = deadlines.first, entries[first.token] == nil { deadlines.removeFirst() }
        if deadlines.count > 2 * entries.count + 64 {
            deadlines.removeAll { entries[$0.token] == nil }
        }
    }

    private mutating func remove(_ token: Token, _ lastFrame: UInt64, _ channel: String) {
        // Not by way of a copy, which the removal would have to leave as it is.
        guard let first = lanes[channel]?.index(from: lastFrame),
            let index = lanes[channel]?.sent[first...].firstIndex(where: { $0.token == token })
        else { return }
        lanes[channel]?.sent.remove(at: index)
    }
}
