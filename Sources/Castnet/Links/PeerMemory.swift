import CastnetCore
import DequeModule
import NIOCore

/// What is known of the messages that one start of a peer sent over its persistent links: shared by those
/// links.
final class PeerMemory {
    var window: ReplayWindow
    /// Since when it has no link.
    fileprivate var unusedSince: Instant?

    fileprivate init(forgotten: UInt64) { window = ReplayWindow(forgotten: forgotten) }
}

/// The memories of all peers, on the node's event loop.
///
/// One without links goes after ``keptFor``, or sooner where there are more than `unusedMax` of them; of it
/// remains up to which message something may have come.
struct PeerMemories {
    static let keptFor = Duration.seconds(60)
    private static let unusedMax = 1024

    private var memories: [NodeIdentity: PeerMemory] = [:]
    /// Those without links, by the time since when; may hold some that have been used again.
    private var unused = Deque<(peer: NodeIdentity, since: Instant)>()
    private var forgotten: [NodeIdentity: UInt64] = [:]
    /// What is no longer known even so: every message that comes again may have come before.
    private var hasForgottenPeers = false
    private let peersMax: Int

    init(peersMax: Int) { self.peersMax = peersMax }

    /// The memory for one more link of `peer`.
    mutating func open(_ link: UInt64, of peer: NodeIdentity) -> PeerMemory {
        let memory =
            memories[peer]
            ?? PeerMemory(forgotten: forgotten.removeValue(forKey: peer) ?? (hasForgottenPeers ? .max : 0))
        memory.window.opened(link)
        memory.unusedSince = nil
        memories[peer] = memory
        return memory
    }

    /// A link of `peer` has ended; returns how many memories had to go before their time.
    mutating func close(_ link: UInt64, of peer: NodeIdentity, _ memory: PeerMemory, now: Instant) -> Int {
        memory.window.closed(link)
        guard memory.window.openLinks == 0 else { return 0 }
        memory.unusedSince = now
        unused.append((peer, now))
        return forgetUnused(now: now)
    }

    private mutating func forgetUnused(now: Instant) -> Int {
        var early = 0
        while let (peer, since) = unused.first {
            let isDue = now >= since + Self.keptFor
            guard isDue || unused.count > Self.unusedMax else { break }
            unused.removeFirst()
            guard let memory = memories[peer], memory.unusedSince == since else { continue }
            memories[peer] = nil
            forgotten[peer] = memory.window.idMax
            if !isDue { early += 1 }
        }
        if forgotten.count > peersMax {
            forgotten = [:]
            hasForgottenPeers = true
        }
        return early
    }
}
