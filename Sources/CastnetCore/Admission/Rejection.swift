/// Why a packet from the network is not shown to libpgm.
package enum Rejection: String, Error, Hashable, Sendable, CaseIterable {
    /// Too short, too long, or not as long as it says.
    case length
    /// A kind of packet that is not used: polls, parity, fragments, congestion control.
    case type
    case options
    /// An address that is no IPv4 one.
    case family
    case checksum
    /// Another data-destination port: somebody else's session.
    case port
    /// The stream identifier is zero.
    case tsi
    /// The own stream coming back.
    case own
    /// libpgm would take the stream for another one, which would stop for good.
    case alias
    /// A known stream from another address.
    case source
    /// Too many streams, of one address or in all.
    case streams
    /// Not for the group, or to the wrong descriptor.
    case destination
    /// The payload is no frame: a stranger on the group.
    case magic
    /// Numbers that contradict each other, the window or what is known of the stream.
    case numbers
    /// So old that nobody waits for it.
    case behind
    /// A jump that the budget does not cover.
    case jump
    /// A jump past the window.
    case far
    /// The stream is being taken up again after an outage.
    case resync
    /// About a stream nobody knows.
    case unknown
    /// A stream that has sent no data.
    case quiet
    /// Repaired a moment ago.
    case holdoff
    /// Asked for too often.
    case rate
    /// A fault that the configuration asks for.
    case fault
}
