import CastnetCore
import CastnetMulticast
import Logging

/// What passes between channels and links when frames are missing.
extension NodeShell {
    private func channel(_ name: String) -> PGMChannel? {
        node?.openChannels.first { $0.name == name }?.channel
    }

    /// A channel wants something from the sender of a stream.
    func ask(_ packet: RepairPacket, of sender: NodeIdentity, on name: String) {
        guard unicast.ask(packet, of: sender, at: ways(to: sender)) else {
            channel(name)?.repairFailed(packet.stream)
            return
        }
        repairing[sender, default: [:]][packet.stream] = name
    }

    /// A member seems not to hear the group: its head goes over a link, where the policy has another way.
    func tell(_ head: RepairPacket, to member: NodeIdentity, on name: String) {
        guard unicastChannels.contains(name) else { return }
        _ = unicast.ask(head, of: member, at: ways(to: member))
    }

    private func ways(to peer: NodeIdentity) -> [PeerAddress] {
        guard let record = directory?.record(of: peer.name) else { return [] }
        return unicast.ways(record.addresses, unixPath: record.unixPath, hostID: record.hostID)
    }

    /// How frames travel between this node and a peer has changed, one way or the other.
    func pathChanged(
        _ peer: NodeIdentity, isOwnStream: Bool, _ reason: PathChange.Reason, on channel: String
    ) {
        let key = PathKey(peer: peer, channel: channel, isOwnStream: isOwnStream)
        let before = unicastPaths[key]
        if reason.path == .multicast {
            guard let before, reason.ends(before) else { return }
            unicastPaths[key] = nil
        } else {
            guard before != reason else { return }
            unicastPaths[key] = reason
        }
        let change = PathChange(peer: peer, channel: channel, why: reason)
        log.warning(
            isOwnStream
                ? "how a member gets this node's frames has changed"
                : "how this node gets a sender's frames has changed",
            metadata: [
                "castnet.peer": "\(peer)", "castnet.channel": "\(channel)",
                "castnet.path": "\(change.path.rawValue)", "castnet.reason": "\(change.why.rawValue)",
            ])
        node?.pathChanged(change)
    }

    /// A channel answers a member.
    func answer(_ packet: RepairPacket, to member: NodeIdentity, _ bytes: Int, on name: String) {
        let channel = channel(name)
        unicast.answer(packet, to: member) {
            if bytes > 0 { channel?.repairWritten(bytes, to: member) }
        }
    }

    func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {
        if packet.isForSender {
            let own = node?.openChannels.first { $0.channel.facts.streamID == packet.stream }
            guard let own else { return counters.add(.streamRepairsRefused) }
            own.channel.repairReceived(packet, from: peer)
        } else if case .head(_, let digest, _) = packet {
            let heard = node?.openChannels.first { $0.channel.facts.digest == digest }
            guard let heard else { return counters.add(.streamRepairsRefused) }
            heard.channel.repairReceived(packet, from: peer)
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

/// Whose frames go how.
struct PathKey: Hashable {
    var peer: NodeIdentity
    var channel: String
    /// True: this node's frames to the peer; false: the peer's frames to this node.
    var isOwnStream: Bool
}
