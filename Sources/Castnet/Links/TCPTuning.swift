import Foundation
import NIOCore

/// What a link wants of TCP, once its peer has said who it is.
enum TCPTuning {
    /// So much of what was written may wait in the kernel for its first transmission: a small message that
    /// follows a large one waits for this and no more.
    private static let unsentMax = 128 << 10
    /// TCP_RTO_MAX_MS of Linux 6.15, which the headers do not know yet; it takes 1,000 to 120,000.
    private static let retransmissionTimeoutMax: CInt = 44

    static func apply(to channel: any Channel, heartbeat: Duration?) {
        #if os(Linux)
            set(channel, TCP_NOTSENT_LOWAT, unsentMax)
            if let heartbeat {
                // The peer is given up after three intervals: what was lost on its way is to be sent often
                // enough until then, not ever more rarely. (The kernel gives up after some 12 of these.)
                let pause = heartbeat.nanoseconds / 2_000_000
                set(channel, TCP_THIN_LINEAR_TIMEOUTS, 1)
                return set(channel, retransmissionTimeoutMax, Int(min(max(pause, 1_000), 120_000)))
            }
            // Without heartbeats the kernel finds out that the peer is gone: after half a minute.
            channel.setOption(.socketOption(.so_keepalive), value: 1).whenFailure { _ in }
            set(channel, TCP_KEEPIDLE, 15)
            set(channel, TCP_KEEPINTVL, 5)
            set(channel, TCP_KEEPCNT, 3)
            set(channel, TCP_USER_TIMEOUT, 30_000)
        #endif
    }

    private static func set(_ channel: any Channel, _ option: CInt, _ value: Int) {
        // What the system does not know costs only its benefit.
        channel.setOption(.tcpOption(.init(rawValue: option)), value: value).whenFailure { _ in }
    }
}
