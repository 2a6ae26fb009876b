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

    private struct Entry {
        var rows: [Receipt.Row]
        /// Where a member's row is.
        var places: [NodeIdentity: Int]
        /// Rows nobody has reported about; a row is open exactly while its bit is set.
        var isOpen: [Bool]
        var openCount: Int
        let openedAt: Instant
        let deadline: Instant
        let channel: String?
        /// The frame that holds the message's end; nil until the stream has cut it.
        var lastFrame: UInt64?
    }

    private var entries: [Token: Entry] = [:]
    /// Open receipts of a channel in sending order, so that a position ends a prefix.
    private var byChannel: [String: [Token]] = [:]
    private var finished: [Finished] = []

    package init() {}

    /// How many receipts are open.
    package var openCount: Int { entries.count }

    /// When the next receipt times out.
    package var nextDeadline: Instant? { entries.values.map(\.deadline).min() }

    /// Opens a receipt: `delivered` rows are complete already, `waiting` ones wait for a report.
    package mutating func open(
        _ token: Token, delivered: [Receipt.Row], waiting: [NodeIdentity], channel: String?,
        deadline: Instant,
        now: Instant
    ) {
        let rows = delivered + waiting.map { Receipt.Row(node: $0, outcome: .timedOut) }
        let isOpen = delivered.map { _ in false } + waiting.map { _ in true }
        let places = rows.enumerated().map { ($0.element.node, $0.offset) }
        entries[token] = Entry(
            rows: rows, places: Dictionary(places) { first, _ in first }, isOpen: isOpen,
            openCount: waiting.count, openedAt: now, deadline: deadline, channel: channel)
        if let channel { byChannel[channel, default: []].append(token) }
        finishIfComplete(token)
    }

    /// The stream has cut the message: `lastFrame` holds its end.
    package mutating func sent(_ token: Token, lastFrame: UInt64) { entries[token]?.lastFrame = lastFrame }

    /// A member of a channel has everything below `position`.
    package mutating func position(_ member: NodeIdentity, at position: UInt64, channel: String, now: Instant)
    {
        for token in byChannel[channel] ?? [] {
            guard let lastFrame = entries[token]?.lastFrame else { continue }
            // Frames leave in order, so no later receipt can be covered either.
            if lastFrame >= position { break }
            settle(token, member, .multicast, now: now)
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
        for token in entries.keys { settle(token, member, .left, now: now) }
    }

    /// Closes every receipt whose deadline has passed.
    package mutating func timerFired(now: Instant) {
        for (token, entry) in entries where entry.deadline <= now { finish(token, entry) }
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
            byChannel[channel]?.removeAll { $0 == token }
            if byChannel[channel]?.isEmpty == true { byChannel[channel] = nil }
        }
        finished.append(Finished(token: token, rows: entry.rows))
    }
}
