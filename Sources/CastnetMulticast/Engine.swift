#if Multicast
    internal import CastnetCore
    internal import COpenPGM
    internal import Glibc
    internal import Synchronization

    /// What the engine thread needs to open a channel.
    struct ChannelOpening: Sendable {
        var settings: ChannelSettings
        var limits: LimitSettings
        var identity: NodeIdentity
        var facts: PGMChannel.Facts
        var options: PGMOptions
        /// True: what comes is listened to from the beginning, see ``PGMChannel/listens(replays:)``.
        var listens: Bool
        var seed: UInt64
        var sink: any ChannelSink
        var mailbox: ChannelMailbox
    }

    /// The one thread that drives every multicast channel of the process.
    ///
    /// Other threads reach it only through its mailbox; it is emptied whole at each wake-up, and the wake-up
    /// costs a system call only for the first entry.
    package final class Engine: Sendable {
        typealias Command = @Sendable (EngineLoop) -> Void

        private struct Mailbox {
            var commands: [Command] = []
            /// Channels whose outbox was empty and is not any more.
            var filled: [UInt64] = []
            var hasThread = false

            var isEmpty: Bool { commands.isEmpty && filled.isEmpty }
        }

        /// The process's engine.
        package static let shared = Engine()

        private let mailbox = Mutex(Mailbox())
        let wakeDescriptor: Int32
        private let prepareThread: @Sendable () -> Void

        /// An engine of its own; tests give each host one. `prepareThread` runs first on the new thread. The
        /// thread starts with the first channel and stays for the life of the process.
        package init(prepareThread: @escaping @Sendable () -> Void = {}) {
            wakeDescriptor = castnet_eventfd_create()
            self.prepareThread = prepareThread
        }

        func open(_ opening: ChannelOpening) async throws -> (key: UInt64, seamProblem: String?) {
            try startThread()
            return try await withCheckedThrowingContinuation { continuation in
                post { loop in
                    continuation.resume(with: Result { try loop.open(opening) })
                }
            }
        }

        /// Runs `command` on the engine thread, in the order of the posts.
        func post(_ command: @escaping Command) {
            let wasEmpty = mailbox.withLock { mailbox in
                defer { mailbox.commands.append(command) }
                return mailbox.isEmpty
            }
            if wasEmpty { castnet_eventfd_signal(wakeDescriptor) }
        }

        /// The channel's outbox is not empty any more.
        func wake(_ key: UInt64) {
            let wasEmpty = mailbox.withLock { mailbox in
                defer { mailbox.filled.append(key) }
                return mailbox.isEmpty
            }
            if wasEmpty { castnet_eventfd_signal(wakeDescriptor) }
        }

        func takeMail() -> (commands: [Command], filled: [UInt64]) {
            mailbox.withLock { mailbox in
                guard !mailbox.isEmpty else { return ([], []) }
                let mail = (mailbox.commands, mailbox.filled)
                mailbox.commands = []
                mailbox.filled = []
                return mail
            }
        }

        /// Starts the thread unless it runs.
        private func startThread() throws {
            guard wakeDescriptor >= 0 else {
                throw CastnetError(.multicastUnavailable, "no eventfd: \(errorText(-wakeDescriptor))")
            }
            try mailbox.withLock { mailbox in
                guard !mailbox.hasThread else { return }
                let loop = try EngineLoop.makeEpoll(wake: wakeDescriptor)
                let start = ThreadStart { [prepareThread] in
                    prepareThread()
                    EngineLoop(epoll: loop, engine: self).run()
                }
                guard start.launch() else {
                    castnet_descriptor_close(loop)
                    throw CastnetError(.limitReached, "no thread can be made for the multicast engine")
                }
                mailbox.hasThread = true
            }
        }
    }

    /// The body of a thread on its way to it.
    private final class ThreadStart: Sendable {
        private let body: @Sendable () -> Void

        init(body: @escaping @Sendable () -> Void) { self.body = body }

        func launch() -> Bool {
            var thread = pthread_t()
            let box = unsafe Unmanaged.passRetained(self)
            let result = unsafe pthread_create(
                &thread, nil,
                { argument in
                    guard let argument = unsafe argument else { return nil }
                    unsafe castnet_thread_name("castnet-pgm")
                    unsafe Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue().body()
                    return nil
                }, box.toOpaque())
            guard result == 0 else {
                unsafe box.release()
                return false
            }
            pthread_detach(thread)
            return true
        }
    }
#endif
