#if Multicast
    internal import CastnetCore
    internal import COpenPGM

    /// How many packets the kernel dropped at a receive buffer that was full.
    ///
    /// Two figures bound it from above and the smaller one is told. The socket's own counter also counts what
    /// its filter refuses, which is what the socket itself sent; the namespace's counter of full buffers
    /// counts every socket's.
    struct KernelDrops {
        private(set) var count: UInt64 = 0
        private let descriptor: Int32
        private let hearsOwn: Bool
        private let statistics: Statistics
        private let errorsAtStart: Int64
        private var refreshedAt: Instant

        init(descriptor: Int32, hearsOwn: Bool, now: Instant) {
            self.descriptor = descriptor
            self.hearsOwn = hearsOwn
            statistics = Statistics()
            errorsAtStart = castnet_receive_errors(statistics.descriptor)
            refreshedAt = now
        }

        /// Reads both figures, at most once a second. `sent`: messages to the group that the kernel took.
        mutating func refresh(sent: UInt64, now: Instant) {
            guard now >= refreshedAt + .seconds(1) else { return }
            refreshedAt = now
            let atSocket = castnet_socket_drops(descriptor)
            guard atSocket >= 0 else { return }
            var dropped = UInt64(atSocket)
            if hearsOwn { dropped -= min(dropped, sent) }
            let errors = castnet_receive_errors(statistics.descriptor)
            if errors >= 0, errorsAtStart >= 0 {
                dropped = min(dropped, UInt64(max(0, errors - errorsAtStart)))
            }
            count = max(count, dropped)
        }

        /// The open statistics file of the engine thread's network namespace.
        private final class Statistics {
            let descriptor = castnet_statistics_open()
            deinit { castnet_descriptor_close(descriptor) }
        }
    }
#endif
