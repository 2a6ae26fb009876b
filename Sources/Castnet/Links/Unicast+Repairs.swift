package import CastnetCore
import NIOCore

/// Requests for missing frames and their answers: on links of their own, so that large repairs never stand
/// before a call.
extension Unicast {
    /// How long a link for requests stays open without one.
    static let repairLinger = Duration.seconds(10)

    /// Sends a request to the sender of a stream; false: the directory knows no address of it.
    package func ask(_ request: RepairPacket, of sender: NodeIdentity, at addresses: [PeerAddress]) -> Bool {
        tick()
        guard !addresses.isEmpty, !isClosing else { return false }
        let key = Link.Key(purpose: .service, peer: sender, topic: nil, slot: 0)
        let link = dialled[key] ?? dial(key, at: addresses, heartbeat: .zero)
        link.ask(request)
        flushLinks()
        return true
    }

    /// Answers a request on the link it came by; `written` hears when the bytes have left, or never will.
    package func answer(
        _ packet: RepairPacket, to member: NodeIdentity, written: @escaping @Sendable () -> Void
    ) {
        tick()
        guard let link = askingLinks[member].flatMap({ links[$0] }), link.isConnected else {
            askingLinks[member] = nil
            return written()
        }
        link.answer(packet, written: written)
    }

    /// A repair packet came on a link.
    func received(_ packet: RepairPacket, on link: Link) {
        guard let peer = link.peer else { return }
        if packet.isForSender { askingLinks[peer] = link.number }
        sink.repairReceived(packet, from: peer)
    }
}
