#if Multicast
    internal import CastnetCore
    internal import COpenPGM
    internal import Logging

    /// The engine thread's own state: everything in it belongs to that thread.
    final class EngineLoop {
        private let epoll: Int32
        private let engine: Engine
        private var channels: [UInt64: OpenDriver] = [:]
        private var nextKey: UInt64 = 1
        private var ready = [castnet_ready](repeating: castnet_ready(), count: 64)
        private var scratch = ChannelDriver.Scratch()
        private var now = Instant(nanoseconds: castnet_now())
        private let log = Logger(label: "castnet.multicast")

        /// The tag of the mailbox's descriptor; a channel's tags are its key × 8 and the descriptor's role.
        private static let wakeTag: UInt64 = 0

        init(epoll: Int32, engine: Engine) {
            self.epoll = epoll
            self.engine = engine
        }

        static func makeEpoll(wake: Int32) throws -> Int32 {
            let epoll = castnet_epoll_create()
            guard epoll >= 0 else {
                throw CastnetError(.multicastUnavailable, "no epoll: \(errorText(-epoll))")
            }
            let result = castnet_epoll_set(epoll, wake, wakeTag, true, false)
            guard result == 0 else {
                castnet_descriptor_close(epoll)
                throw CastnetError(.multicastUnavailable, "epoll: \(errorText(-result))")
            }
            return epoll
        }

        /// Runs for ever: wait, read the clock once, empty the mailbox, serve the channels that are due.
        func run() {
            while true {
                let count = wait()
                now = Instant(nanoseconds: castnet_now())
                noteReady(count)
                let mail = engine.takeMail()
                for command in mail.commands { command(self) }
                for key in mail.filled { channels[key]?.driver.due.insert(.outbox) }
                for (key, channel) in channels where channel.driver.isDue(now) {
                    channel.driver.service(now, &scratch)
                    if channel.driver.isFinished { remove(key) }
                }
                forwardLog()
            }
        }

        private func wait() -> Int {
            var deadline: Instant?
            for channel in channels.values { deadline = earliest(deadline, channel.driver.deadline) }
            rest(before: deadline)
            let timeout =
                deadline.map { max(0, ($0 - Instant(nanoseconds: castnet_now())).nanoseconds) } ?? -1
            let count = unsafe ready.withUnsafeMutableBufferPointer { buffer in
                guard let base = buffer.baseAddress else { return Int32(0) }
                return unsafe castnet_epoll_wait(epoll, base, Int32(buffer.count), timeout)
            }
            return max(0, Int(count))
        }

        /// Leaves packets alone for a moment where they come densely; commands end the rest.
        private func rest(before deadline: Instant?) {
            var until: Instant?
            for channel in channels.values {
                // Whoever has work keeps everybody awake.
                guard channel.driver.due.isEmpty else { return }
                until = earliest(until, channel.driver.restsUntil)
            }
            guard let rested = until, let until = earliest(rested, deadline) else { return }
            let pause = (until - Instant(nanoseconds: castnet_now())).nanoseconds
            if pause > 0 { castnet_rest(engine.wakeDescriptor, pause) }
        }

        private func noteReady(_ count: Int) {
            for event in ready.prefix(count) {
                if event.tag == Self.wakeTag {
                    castnet_eventfd_drain(engine.wakeDescriptor)
                } else {
                    channels[event.tag >> 3]?.driver.noteReady(role: event.tag & 7, now: now)
                }
            }
        }

        /// libpgm's warnings become ours; what it says below that stays in its ring's order but is not told.
        private func forwardLog() {
            while let line = PGMLog.take() {
                let level: Logger.Level = line.level >= 5 ? .error : line.level == 4 ? .warning : .debug
                log.log(level: level, "\(line.text)")
            }
        }

        // MARK: Commands

        func open(_ opening: ChannelOpening) throws -> (key: UInt64, seamProblem: String?) {
            let key = nextKey
            nextKey += 1
            let opened = OpenDriver(
                try ChannelDriver.open(key: key, opening: opening, epoll: epoll, now: now))
            channels[key] = opened
            return (key, opened.driver.seamProblem)
        }

        func membersChanged(_ members: [NodeIdentity], frameSizeMax: Int?, of key: UInt64) {
            channels[key]?.driver.membersChanged(members, frameSizeMax: frameSizeMax, now: now)
        }

        func subscriptionsChanged(epoch: UInt64, of key: UInt64) {
            channels[key]?.driver.subscriptionsChanged(epoch: epoch)
        }

        func listens(replays: Bool, on key: UInt64) {
            channels[key]?.driver.listens(replays: replays, now: now)
        }

        func ended(_ mark: FrameMark, isHandled: Bool, on key: UInt64) {
            channels[key]?.driver.ended(mark, isHandled: isHandled, now: now)
        }

        func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity, on key: UInt64) {
            channels[key]?.driver.repairReceived(packet, from: peer, now: now)
        }

        func repairFailed(_ stream: UInt64, on key: UInt64) {
            channels[key]?.driver.repairFailed(stream, now: now)
        }

        func repairWritten(_ bytes: Int, to member: NodeIdentity, on key: UInt64) {
            channels[key]?.driver.repairWritten(bytes, to: member, now: now)
        }

        /// The interface of a channel is another one now.
        func move(_ key: UInt64, to interface: InterfaceChoice) throws {
            try channels[key]?.driver.move(to: interface, now: now)
        }

        func close(_ key: UInt64, linger: Duration, then done: @escaping @Sendable () -> Void) {
            guard let channel = channels[key] else { return done() }
            channel.driver.beginClose(at: now, until: now + linger, then: done)
        }

        private func remove(_ key: UInt64) {
            guard let channel = channels.removeValue(forKey: key) else { return }
            if let error = channel.driver.failure { log.error("\(error)") }
            channel.driver.finish()
        }
    }

    /// A driver's place. The driver is a value so that a turn of it is one access to this memory, not one for
    /// each of its properties.
    private final class OpenDriver {
        var driver: ChannelDriver

        init(_ driver: consuming ChannelDriver) { self.driver = driver }
    }
#endif
