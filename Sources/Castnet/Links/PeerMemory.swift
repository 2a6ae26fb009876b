import CastnetCore
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
/// One without links goes after ``keptFor``; of it remains up to which message something may have come.
struct PeerMemories {
    static let keptFor = Duration.seconds(60)

    private var memories: [NodeIdentity: PeerMemory] = [:]
    private var forgotten: [NodeIdentity: UInt64] = [:]
    /// What is no longer known even so: every message that comes again may have come before.
    private var hasForgottenPeers = false
    private let peersMax: Int

    init(peersMax: Int) { self.peersMax = peersMax }

    /// The memory for one more link of `peer`.
    mutating func open(_ link: UInt64, of peer: NodeIdentity, now: Instant) -> PeerMemory {
        let memory =
            memories[peer]
            ?? PeerMemory(forgotten: forgotten.removeValue(forKey: peer) ?? (hasForgottenPeers ? .max : 0))
        memory.window.opened(link)
        memory.unusedSince = nil
        memories[peer] = memory
        forgetUnused(now: now)
        return memory
    }

    func close(_ link: UInt64, of memory: PeerMemory, now: Instant) {
        memory.window.closed(link)
        if memory.window.openLinks == 0 { memory.unusedSince = now }
    }

    private mutating func forgetUnused(now: Instant) {
        for (peer, memory) in memories {
            guard let since = memory.unusedSince, now >= since + Self.keptFor else { continue }
            memories[peer] = nil
            forgotten[peer] = memory.window.idMax
        }
        guard forgotten.count > peersMax else { return }
        forgotten = [:]
        hasForgottenPeers = true
    }
}
