package import CastnetCore

#if Redis
    internal import Foundation
    package import Logging
    internal import Synchronization
#endif

/// What a Redis store tells; called on its thread, which waits meanwhile.
package protocol RedisSink: Sendable {
    /// The node is registered, or its record changed, or it is told again.
    func found(_ record: NodeRecord)
    /// The node's record was withdrawn or has expired.
    func gone(_ name: String)
    func count(_ counter: Counter)
}

/// What a node says to a store and about itself.
package struct RedisOptions: Sendable {
    package var address: RedisAddress
    package var prefix: String
    package var name: String
    package var cluster: String
    package var timeToLive: Duration
    package var membersMax: Int
    package var seed: UInt64

    package init(
        address: RedisAddress, prefix: String, name: String, cluster: String, timeToLive: Duration,
        membersMax: Int, seed: UInt64
    ) {
        self.address = address
        self.prefix = prefix
        self.name = name
        self.cluster = cluster
        self.timeToLive = timeToLive
        self.membersMax = membersMax
        self.seed = seed
    }
}

#if Redis
    /// A node's registration in Redis, and its eyes on those of the others.
    ///
    /// All of it happens on one thread of its own, from the first ``publish(_:)`` to ``withdraw()``: it
    /// blocks in hiredis, which neither an event loop nor a task may. Two connections: one for commands, one
    /// for notifications. Memory: what ``StoreMachine`` and two ``RedisConnection`` hold. Methods: any
    /// thread, and none waits for the store but ``withdraw()``.
    package final class RedisStore: Sendable {
        /// How long ``withdraw()`` waits for the thread.
        private static let withdrawMax: Duration = .seconds(3)

        private let options: RedisOptions
        private let sink: any RedisSink
        private let log: Logger
        private let mailbox = RedisMailbox()
        private let hasThread = Mutex(false)

        /// Nothing is opened before the first record is published.
        package init(_ options: RedisOptions, sink: any RedisSink, log: Logger) {
            self.options = options
            self.sink = sink
            var log = log
            log[metadataKey: "castnet.discovery"] = "redis"
            log[metadataKey: "castnet.redis"] = "\(options.address)"
            self.log = log
        }

        deinit { mailbox.stop() }

        /// Makes the own record known, in place of the one before.
        package func publish(_ record: NodeRecord) throws {
            mailbox.put(record)
            try hasThread.withLock { hasThread in
                guard !hasThread else { return }
                let wake = try mailbox.open()
                hasThread = true
                let thread = Thread { [options, sink, log, mailbox] in
                    var loop = RedisLoop(options, mailbox: mailbox, wake: wake, sink: sink, log: log)
                    loop.run()
                }
                thread.name = "castnet-redis"
                thread.start()
            }
        }

        /// Takes the own record back and ends the thread: after a few milliseconds where the store answers,
        /// and in any case within three seconds; then the record expires by itself.
        package func withdraw() async {
            guard hasThread.withLock({ $0 }) else { return }
            mailbox.stop()
            let limit = Task { [mailbox] in
                try? await Task.sleep(for: Self.withdrawMax)
                mailbox.release()
            }
            await mailbox.ended()
            limit.cancel()
        }
    }
#endif
