import DequeModule

/// Which links may be dialled now: bounds on dials in flight, on links in all and per peer, and back-off.
///
/// Links are named by numbers of the caller. Each number that `enqueue` took comes out of `next` once, unless
/// `forget` took it back. Urgent ones (persistent links, repair) go first, and may use a reserve of links
/// that the others leave alone.
package struct DialQueue: Sendable {
    package enum Action: Sendable, Hashable {
        /// Dial this link now; then report `dialled` or `failed`, and `closed` at its end.
        case dial(UInt64)
        /// Nothing may be dialled now.
        case none
        /// A dial waits for room among `limits.dials`.
        case dialsFull
        /// A dial waits because every link allowed is open: closing an idle one makes room.
        case linksFull
    }

    /// One of each: for urgent links, and for the others.
    private struct Ranked<Value: Sendable>: Sendable {
        var urgent: Value
        var ordinary: Value

        subscript(isUrgent: Bool) -> Value {
            get { isUrgent ? urgent : ordinary }
            _modify {
                if isUrgent { yield &urgent } else { yield &ordinary }
            }
        }
    }

    private struct Peer {
        var waiting = Ranked(urgent: Deque<UInt64>(), ordinary: Deque<UInt64>())
        /// Links of this node to the peer that are being dialled or open.
        var links = 0
        var backoff = Backoff()
        /// True while the peer's name stands in `ready`.
        var isReady = Ranked(urgent: false, ordinary: false)
        var hasNoneWaiting: Bool { waiting.urgent.isEmpty && waiting.ordinary.isEmpty }
        var isInNoTurn: Bool { !isReady.urgent && !isReady.ordinary }
    }

    /// While the process has no descriptor left, nothing is dialled for so long.
    private static let shortagePause = Duration.milliseconds(50)

    private let dialsMax: Int
    private let linksMax: Int
    private let ordinaryMax: Int
    private let perPeerMax: Int
    private var peers: [NodeIdentity: Peer] = [:]
    /// Peers with a link waiting that back-off and the limit per peer allow, in turns.
    private var ready = Ranked(urgent: Deque<NodeIdentity>(), ordinary: Deque<NodeIdentity>())
    private var pausedUntil: Instant?
    /// Peers with a link waiting for the end of a back-off.
    private var backingOff = Set<NodeIdentity>()
    private var generator: SeededGenerator
    package private(set) var dialsInFlight = 0
    /// Dials held back at the limit per peer.
    package private(set) var perPeerHits = 0

    /// `linksMax` links may be open in all, `ordinaryMax` of them are not only for urgent ones.
    package init(dialsMax: Int, linksMax: Int, ordinaryMax: Int? = nil, perPeerMax: Int, seed: UInt64) {
        self.dialsMax = max(1, dialsMax)
        self.linksMax = max(1, linksMax)
        self.ordinaryMax = max(1, ordinaryMax ?? linksMax)
        self.perPeerMax = max(1, perPeerMax)
        generator = SeededGenerator(seed: seed)
    }

    /// True where a dial to the peer would have to wait for its back-off.
    package func isBackingOff(_ peer: NodeIdentity, now: Instant) -> Bool {
        (peers[peer]?.backoff.until).map { $0 > now } ?? false
    }

    /// When the peer's back-off ends; nil: it has none.
    package func backoffEnd(_ peer: NodeIdentity) -> Instant? { peers[peer]?.backoff.until }

    /// When `timerFired` is due.
    package var nextDeadline: Instant? {
        backingOff.reduce(pausedUntil) { earliest($0, peers[$1]?.backoff.until) }
    }

    /// Back-offs may have ended: ask `next`.
    package mutating func timerFired(now: Instant) {
        if let until = pausedUntil, until <= now { pausedUntil = nil }
        for peer in backingOff { makeReady(peer, now: now) }
    }

    package mutating func enqueue(
        _ link: UInt64, to peer: NodeIdentity, isUrgent: Bool = false, now: Instant
    ) {
        peers[peer, default: Peer()].waiting[isUrgent].append(link)
        if let count = peers[peer]?.links, count >= perPeerMax { perPeerHits += 1 }
        makeReady(peer, now: now)
    }

    /// What may be dialled; `openLinks` counts all links of the node, accepted ones too, that are open.
    package mutating func next(openLinks: Int, now: Instant) -> Action {
        if pausedUntil != nil { return .none }
        while let (peer, isUrgent) = nextPeer() {
            if dialsInFlight >= dialsMax { return .dialsFull }
            let most = isUrgent ? linksMax : ordinaryMax
            if openLinks + dialsInFlight >= most { return .linksFull }
            takeTurn(isUrgent)
            guard let link = peers[peer]?.waiting[isUrgent].popFirst() else { continue }
            peers[peer]?.links += 1
            dialsInFlight += 1
            makeReady(peer, now: now)
            return .dial(link)
        }
        return .none
    }

    /// The peer whose turn it is; turns of those that have nothing waiting any more, or may have no more
    /// links, are skipped.
    private mutating func nextPeer() -> (NodeIdentity, isUrgent: Bool)? {
        for isUrgent in [true, false] {
            while let peer = ready[isUrgent].first {
                if let entry = peers[peer], !entry.waiting[isUrgent].isEmpty, entry.links < perPeerMax {
                    return (peer, isUrgent)
                }
                takeTurn(isUrgent)
            }
        }
        return nil
    }

    private mutating func takeTurn(_ isUrgent: Bool) {
        guard let peer = ready[isUrgent].popFirst() else { return }
        peers[peer]?.isReady[isUrgent] = false
        forgetIfIdle(peer)
    }

    /// The process had no descriptor for the dial of `link`, which `next` named: it waits, first in turn, and
    /// nothing else is dialled for a moment. That is not the peer's fault.
    package mutating func unaffordable(_ link: UInt64, to peer: NodeIdentity, now: Instant) {
        dialled()
        var entry = peers[peer] ?? Peer()
        entry.waiting.urgent.prepend(link)
        entry.links = max(0, entry.links - 1)
        peers[peer] = entry
        pausedUntil = now + Self.shortagePause
        makeReady(peer, now: now)
    }

    /// A dial made a connection.
    package mutating func dialled() { dialsInFlight = max(0, dialsInFlight - 1) }

    /// A dial failed; `closed` must not follow.
    package mutating func failed(_ peer: NodeIdentity, now: Instant) {
        dialled()
        closed(peer, inOrder: false, now: now)
    }

    /// The peer's hello was accepted.
    package mutating func opened(_ peer: NodeIdentity, now: Instant) {
        peers[peer]?.backoff.opened(now: now)
        makeReady(peer, now: now)
    }

    /// A link that was dialled to `name` turned out to lead to `peer`, and counts as one of its links.
    package mutating func renamed(_ name: NodeIdentity, to peer: NodeIdentity, now: Instant) {
        peers[name]?.links -= 1
        peers[peer, default: Peer()].links += 1
        makeReady(name, now: now)
        forgetIfIdle(name)
    }

    /// A link that was dialled is gone; `isRefused`: the peer had no room for it.
    package mutating func closed(
        _ peer: NodeIdentity, inOrder: Bool, isRefused: Bool = false, now: Instant
    ) {
        let count = peers[peer]?.links ?? 0
        peers[peer]?.links = max(0, count - 1)
        if !inOrder {
            peers[peer, default: Peer()].backoff.failed(now: now, isRefused: isRefused, using: &generator)
        }
        makeReady(peer, now: now)
        forgetIfIdle(peer)
    }

    /// A link that was dialled is gone: the peer is busy, and has said after what time to come back.
    package mutating func paced(_ peer: NodeIdentity, for time: Duration, now: Instant) {
        peers[peer, default: Peer()].backoff.paced(for: time, now: now)
        closed(peer, inOrder: true, now: now)
    }

    /// A link is not wanted any more; false where it does not wait here.
    @discardableResult
    package mutating func forget(_ link: UInt64, to peer: NodeIdentity) -> Bool {
        for isUrgent in [true, false] {
            guard let place = peers[peer]?.waiting[isUrgent].firstIndex(of: link) else { continue }
            peers[peer]?.waiting[isUrgent].remove(at: place)
            forgetIfIdle(peer)
            return true
        }
        return false
    }

    /// The peer is gone for good: nothing is remembered against it.
    package mutating func peerGone(_ peer: NodeIdentity, now: Instant) {
        peers[peer]?.backoff.forget()
        makeReady(peer, now: now)
        forgetIfIdle(peer)
    }

    private mutating func makeReady(_ peer: NodeIdentity, now: Instant) {
        backingOff.remove(peer)
        guard let entry = peers[peer], !entry.hasNoneWaiting, entry.links < perPeerMax else { return }
        if let until = entry.backoff.until, until > now {
            backingOff.insert(peer)
            return
        }
        for isUrgent in [true, false] where !entry.waiting[isUrgent].isEmpty && !entry.isReady[isUrgent] {
            peers[peer]?.isReady[isUrgent] = true
            ready[isUrgent].append(peer)
        }
    }

    private mutating func forgetIfIdle(_ peer: NodeIdentity) {
        guard let entry = peers[peer], entry.links == 0, entry.hasNoneWaiting, entry.isInNoTurn,
            entry.backoff.until == nil
        else { return }
        peers[peer] = nil
    }
}
