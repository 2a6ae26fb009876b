/// The constants of docs/wire-frames.md.
package enum FrameWire {
    /// Two bytes that a stock ZeroMQ on the group skips, then "CN".
    ///
    /// ZeroMQ's epgm takes the first two bytes of a packet for the place where a message begins, and aborts
    /// its process when that lies behind the packet's end. 0xFFFF means that none begins here.
    package static let magic: UInt32 = 0xFFFF_434E
    package static let version: UInt8 = 1
    package static let headerLength = 48
    /// Where the header's flags stand: of a head, and of a frame that the group gets once more.
    static let flagsOffset = 5
    static let headFlag: UInt8 = 1
    static let againFlag: UInt8 = 2
    /// Every number on the wire is at most this, so that sums of a few never overflow.
    package static let numberMax: UInt64 = 1 << 62
    /// Room for a frame with an announcement and the start of a message with the longest topic.
    package static let frameSizeMin = 480
    /// The kind and the length in front of every record.
    package static let recordHeadLength = 3
    /// What IP, UDP and PGM put in front of each frame.
    package static let lowerHeaderLength = 20 + 8 + 24
}
