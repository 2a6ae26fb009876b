import CastnetCore
import NIOCore

/// What directories say to each other: on links of their own, so that a large table never stands before a
/// call or a repair.
extension Unicast {
    private static let directorySlot: UInt64 = 1

    /// Says beacons to a node; where no link is open one is dialled for them, and the newest words wait for
    /// it.
    func say(_ words: [ByteBuffer], to partner: NodeIdentity, at addresses: [PeerAddress]) {
        tick()
        guard !addresses.isEmpty, !isClosing else { return }
        let key = Link.Key(purpose: .service, peer: partner, topic: nil, slot: Self.directorySlot)
        let link = dialled[key] ?? dial(key, at: addresses, heartbeat: .zero)
        link.say(words)
        flushLinks()
    }

    /// Says beacons to whoever listens at an address of the configuration.
    func say(_ words: [ByteBuffer], toSeed address: HostPort) {
        tick()
        guard !isClosing else { return }
        if let link = seedLinks[address].flatMap({ links[$0] }), link.closedBecause == nil {
            link.say(words)
        } else {
            let unknown = NodeIdentity(name: "\(address)", incarnation: Incarnation(0))
            let key = Link.Key(purpose: .service, peer: unknown, topic: nil, slot: Self.directorySlot)
            let link = dial(key, at: [.tcp(address)], heartbeat: .zero, isAnybody: true)
            seedLinks[address] = link.number
            link.say(words)
        }
        flushLinks()
    }

    /// Says beacons on the link on which the peer has just said some.
    func answer(_ words: [ByteBuffer], to peer: NodeIdentity) {
        tick()
        guard let link = directoryLinks[peer].flatMap({ links[$0] }), link.isConnected else {
            return directoryLinks[peer] = nil
        }
        link.say(words)
        flushLinks()
    }

    func received(directory word: ByteBuffer, on link: Link) {
        guard let peer = link.peer else { return }
        directoryLinks[peer] = link.number
        sink.directoryReceived(word, from: peer)
    }
}
