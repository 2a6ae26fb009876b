#if Redis
    import CastnetCore
    import CastnetRedis
    import DequeModule
    import Logging
    import Synchronization

    /// The store of `directory.redis` as one more source of nodes.
    ///
    /// It never fails as a whole: the store's thread tries again by itself, and keeps what is known
    /// meanwhile.
    final class RedisDiscovery: Discovery {
        let name = "redis"
        private let store: RedisStore
        private let news: StoreNews

        /// Nil where the configuration names no store. Its thread starts when the node publishes its record.
        init?(
            _ configuration: Configuration, identity: NodeIdentity, seed: UInt64, counters: NodeCounters,
            log: Logger
        ) {
            guard let settings = configuration.directory.redis, let address = try? RedisAddress(settings.url)
            else { return nil }
            news = StoreNews(counters: counters)
            let options = RedisOptions(
                address: address, prefix: settings.prefix, name: identity.name,
                cluster: configuration.node.cluster, timeToLive: settings.timeToLive,
                membersMax: configuration.limits.members, seed: seed)
            store = RedisStore(options, sink: news, log: log)
        }

        func publish(_ own: DiscoveredNode) async throws { try store.publish(own.record) }

        func withdraw(_ own: DiscoveredNode) async throws { await store.withdraw() }

        func events() async throws -> StoreNews { news }
    }

    /// The newest that a store has told of each node, until the directory has taken it: never more entries
    /// than names that the store may have. Read by one task.
    final class StoreNews: AsyncSequence, RedisSink {
        private struct State {
            var events: [String: DiscoveryEvent] = [:]
            var order: Deque<String> = []
            var reader: UnsafeContinuation<DiscoveryEvent?, Never>?
        }

        private let counters: NodeCounters
        private let state = Mutex(State())

        init(counters: NodeCounters) { self.counters = counters }

        func count(_ counter: Counter) { counters.add(counter) }

        func found(_ record: NodeRecord) {
            put(.found(DiscoveredNode(record)), of: record.identity.name)
        }

        func gone(_ name: String) { put(.gone(name: name), of: name) }

        private func put(_ event: DiscoveryEvent, of name: String) {
            let reader = state.withLock { state -> UnsafeContinuation<DiscoveryEvent?, Never>? in
                if let reader = state.reader {
                    state.reader = nil
                    return reader
                }
                if state.events.updateValue(event, forKey: name) == nil { state.order.append(name) }
                return nil
            }
            reader?.resume(returning: event)
        }

        private enum Turn {
            case event(DiscoveryEvent)
            case wait, end
        }

        fileprivate func next() async -> DiscoveryEvent? {
            await withTaskCancellationHandler {
                await withUnsafeContinuation { continuation in
                    let turn = state.withLock { state -> Turn in
                        if Task.isCancelled { return .end }
                        guard let event = Self.first(&state) else {
                            state.reader = continuation
                            return .wait
                        }
                        return .event(event)
                    }
                    switch turn {
                    case .event(let event): continuation.resume(returning: event)
                    case .end: continuation.resume(returning: nil)
                    case .wait: break
                    }
                }
            } onCancel: {
                let reader = state.withLock { state in
                    defer { state.reader = nil }
                    return state.reader
                }
                reader?.resume(returning: nil)
            }
        }

        private static func first(_ state: inout State) -> DiscoveryEvent? {
            guard !state.order.isEmpty else { return nil }
            return state.events.removeValue(forKey: state.order.removeFirst())
        }

        func makeAsyncIterator() -> Iterator { Iterator(news: self) }

        struct Iterator: AsyncIteratorProtocol {
            fileprivate let news: StoreNews
            mutating func next() async -> DiscoveryEvent? { await news.next() }
        }
    }
#endif
