#if Redis
    import CastnetCore
    import CastnetTestKit
    import Logging
    import NIOCore
    import Synchronization
    import Testing

    @testable import CastnetRedis

    /// What one node's store has told.
    final class StoreLog: RedisSink, LogHandlerSource {
        struct State {
            var known: [String: NodeRecord] = [:]
            var gone: [String] = []
            var counters = CounterSet()
            var lines: [String] = []
        }
        let state = Mutex(State())

        func found(_ record: NodeRecord) { state.withLock { $0.known[record.identity.name] = record } }
        func gone(_ name: String) {
            state.withLock {
                $0.known[name] = nil
                $0.gone.append(name)
            }
        }
        func count(_ counter: Counter) { state.withLock { $0.counters.add(counter) } }
        func logged(_ line: String) { state.withLock { $0.lines.append(line) } }

        subscript(name: String) -> NodeRecord? { state.withLock { $0.known[name] } }
        subscript(counter: Counter) -> UInt64 { state.withLock { $0.counters[counter] } }
        var gone: [String] { state.withLock { $0.gone } }
        var names: Set<String> { state.withLock { Set($0.known.keys) } }
        var lines: [String] { state.withLock { $0.lines } }
    }

    protocol LogHandlerSource: Sendable {
        func logged(_ line: String)
    }

    /// Keeps lines with their metadata.
    struct KeptLog: LogHandler {
        let log: any LogHandlerSource
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            log.logged("\(event.level) \(event.message) \(metadata) \(event.metadata ?? [:])")
        }
    }

    /// A node's registration, without a node.
    struct StorePeer {
        let name: String
        let store: RedisStore
        let log = StoreLog()

        init(
            _ name: String, at address: RedisAddress, prefix: String = "castnet", cluster: String = "default",
            timeToLive: Duration = .seconds(2), membersMax: Int = 1000
        ) {
            self.name = name
            let kept = log
            store = RedisStore(
                RedisOptions(
                    address: address, prefix: prefix, name: name, cluster: cluster, timeToLive: timeToLive,
                    membersMax: membersMax, seed: UInt64.random(in: 0...UInt64.max)),
                sink: log, log: Logger(label: name) { _ in KeptLog(log: kept) })
        }

        static func record(
            _ name: String, _ incarnation: UInt64 = 1, version: UInt64 = 1, cluster: String = "default",
            topics: [String] = []
        ) -> NodeRecord {
            NodeRecord(
                identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation)), version: version,
                cluster: cluster, addresses: [HostPort(host: "10.0.0.1", port: 7400)],
                services: topics.map { .init(topic: Topic(unchecked: $0), server: name) })
        }

        func publish(_ incarnation: UInt64 = 1, version: UInt64 = 1, topics: [String] = []) throws {
            try store.publish(Self.record(name, incarnation, version: version, topics: topics))
        }
    }

    /// Asks until the condition holds; an issue after `limit`. Returns how long it took.
    @discardableResult
    func eventually(
        _ what: String, within limit: Duration = .seconds(20), _ condition: () async throws -> Bool
    ) async throws -> Duration {
        let start = clockNow()
        while clockNow() - start < limit * Patience.factor {
            if try await condition() { return clockNow() - start }
            try await HandlerWork.take(.milliseconds(2))
        }
        Issue.record("timed out waiting: \(what)")
        return clockNow() - start
    }
#endif
