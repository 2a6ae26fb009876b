package import CastnetCore
package import NIOCore

/// The clocks of the shell; machines get their values handed down.
package enum MonotonicClock {
    /// The monotonic clock that NIO schedules by.
    package static var now: Instant { Instant(nanoseconds: Int64(NIODeadline.now().uptimeNanoseconds)) }

    /// The time of a loop: a simulated one has its own.
    static func now(of loop: any EventLoop) -> Instant {
        Instant(nanoseconds: Int64(loop.now.uptimeNanoseconds))
    }
}

extension Instant {
    /// The same point as NIO writes it.
    package var nioDeadline: NIODeadline { .uptimeNanoseconds(UInt64(max(0, nanoseconds))) }
}
