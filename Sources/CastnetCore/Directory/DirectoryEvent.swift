/// What the directory believes of a node.
public enum NodeState: String, Hashable, Sendable, CaseIterable {
    /// Heard lately, or known from a source that vouches for it.
    case alive
    /// Silent for too long or unreachable; it is being asked. May become alive, or dead.
    case suspect
    /// It said goodbye. A newer incarnation may follow.
    case left
    /// Silent for three intervals. It becomes alive when it is heard again.
    case dead
}

/// Where the directory knows a node from.
package struct RecordSources: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// It is this node.
    package static let own = RecordSources(rawValue: 1)
    /// The configuration file names it.
    package static let fixed = RecordSources(rawValue: 2)
    /// Its beacons were heard.
    package static let beacon = RecordSources(rawValue: 4)
    /// A ``Discovery`` source told of it.
    package static let discovery = RecordSources(rawValue: 8)
    /// It said hello on a link.
    package static let link = RecordSources(rawValue: 16)

    /// Another node told of it, over a link; it was not heard itself.
    package static let seeds = RecordSources(rawValue: 32)

    /// The best source's word, as `castnet members` prints it.
    package var label: String {
        if contains(.own) { return "own" }
        if contains(.seeds) { return "seeds" }
        if contains(.beacon) { return "beacon" }
        if contains(.discovery) { return "discovery" }
        return contains(.fixed) ? "static" : "link"
    }
}

/// A change the directory's owner should know of.
package enum DirectoryEvent: Hashable, Sendable {
    /// A node nobody had told of before, or one that was gone.
    case joined(NodeIdentity)
    /// A node's record changed.
    case updated(NodeIdentity)
    case suspected(NodeIdentity, SuspicionReason)
    /// A suspect or dead node was heard.
    case refuted(NodeIdentity)
    case left(NodeIdentity)
    case died(NodeIdentity)
    /// A newer incarnation took the name over.
    case superseded(old: NodeIdentity, new: NodeIdentity)
    /// Two running nodes use one name.
    case nameConflict(Conflict)
    /// A peer has a channel of the same name with another group, port or MTU.
    case channelDiffers(own: NodeIdentity, peer: NodeIdentity, channel: String)
    /// Own beacons no longer come back: the multicast source is down. Nobody is given up meanwhile.
    case beaconsSilent
    case beaconsBack
    /// Own beacons come back, but no other node's have come for as long as that; so many nodes that sent some
    /// are kept, because something else says that they live. Said once until one comes.
    case othersSilent(age: Duration, kept: Int)
    case othersBack
    /// No partner of `directory.seeds` answers, for as long as that; nil: none ever did. Said once until one
    /// does.
    case seedsSilent(age: Duration?)
    case seedsBack
    /// `limits.members` was reached; said once until there is room again.
    case membersLimit(Int)
    /// A source tells where a sender's streams stand.
    case heads(NodeIdentity, [Beacon.Head])
    /// The own record cannot be announced; the one before stays.
    case ownRecordUnfit(String)

    package enum SuspicionReason: String, Hashable, Sendable {
        case silent
        case linkLost = "link-lost"
        case dialFailed = "dial-failed"
    }

    package struct Conflict: Hashable, Sendable, CustomStringConvertible {
        package var name: String
        package var first: Incarnation
        package var firstAddress: HostPort?
        package var second: Incarnation
        package var secondAddress: HostPort?

        package var description: String {
            func place(_ incarnation: Incarnation, _ address: HostPort?) -> String {
                "\(incarnation) at \(address?.description ?? "an unknown address")"
            }
            return "\(name): \(place(first, firstAddress)) and \(place(second, secondAddress))"
        }
    }
}

/// What the driver of ``DirectoryMachine`` must do, in order.
package enum DirectoryAction: Hashable, Sendable {
    /// Send this datagram to the group.
    case send(Beacon)
    /// Say these to the partner over a link, if it can be had; there is another one soon.
    case exchange(ExchangePartner, [Beacon])
    /// Say these on the link that the peer has just said something on.
    case tell(NodeIdentity, [Beacon])
    case changed(DirectoryEvent)
    /// Both goodbyes are sent: the sources may be closed.
    case stopped
}

/// What a link tells of its peer.
package enum LinkFact: Hashable, Sendable {
    /// Hello was exchanged; the address is the peer's listener, where known.
    case opened(address: HostPort?)
    /// Something was received.
    case heard
    /// The link was closed in order.
    case closed
    /// The link broke or its peer stopped answering.
    case lost
}

/// A node as `castnet members` shows it.
package struct DirectoryNode: Hashable, Sendable {
    package var record: NodeRecord
    package var state: NodeState
    /// How long the node has been known.
    package var age: Duration
    /// Since the last sign of life; nil: never heard.
    package var heard: Duration?
    package var sources: RecordSources
    /// The numbers of the ``Discovery`` sources that tell of it.
    package var discoverers: Set<Int> = []
    /// True when a link to it broke or a dial failed since it was last heard.
    package var unreachable: Bool
    /// Open links to or from it.
    package var links: Int
}
