package import CastnetCore
package import NIOCore

extension ChannelMachine {
    /// A frame that somebody keeps in a buffer.
    package mutating func frameReceived(_ frame: ByteBuffer, isRepaired: Bool = false, now: Instant) {
        frameReceived(frame.readableBytesSpan, isRepaired: isRepaired, now: now)
    }
}
