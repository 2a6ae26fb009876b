import CastnetCore
import CastnetMulticast

/// What passes between channels and links when frames are missing.
extension NodeShell {
    private func channel(_ name: String) -> PGMChannel? {
        node?.openChannels.first { $0.name == name }?.channel
    }

    /// A channel wants frames from the sender of a stream.
    func ask(
        for ranges: [ClosedRange<UInt64>], of stream: UInt64, _ sender: NodeIdentity, on name: String
    ) {
        let addresses = directory?.record(of: sender.name)?.addresses ?? []
        guard unicast.ask(.request(stream: stream, ranges), of: sender, at: addresses) else {
            channel(name)?.repairFailed(stream)
            return
        }
        repairing[sender, default: [:]][stream] = name
    }

    /// A channel answers a member.
    func answer(_ packet: RepairPacket, to member: NodeIdentity, _ bytes: Int, on name: String) {
        let channel = channel(name)
        unicast.answer(packet, to: member) {
            if bytes > 0 { channel?.repairWritten(bytes, to: member) }
        }
    }

    func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {
        if case .request(let stream, _) = packet {
            let own = node?.openChannels.first { $0.channel.facts.streamID == stream }
            guard let own else { return counters.add(.streamRepairsRefused) }
            own.channel.repairReceived(packet, from: peer)
        } else if let name = repairing[peer]?[packet.stream] {
            channel(name)?.repairReceived(packet, from: peer)
        } else {
            counters.add(.streamRepairsRefused)
        }
    }

    func repairLinkEnded(_ peer: NodeIdentity) {
        for (stream, name) in repairing.removeValue(forKey: peer) ?? [:] {
            channel(name)?.repairFailed(stream)
        }
    }
}
