public import CastnetCore
import CastnetMulticast
import NIOCore

extension Node {
    /// What the handler of a served topic is, so that it can be withdrawn.
    public struct Service: Sendable {
        /// The topic served.
        public let topic: Topic
        /// The name it is served under.
        public let server: String
        fileprivate let withdrawal: @Sendable () async -> Void

        /// Stops serving: takes nothing new, releases what waits, returns once no handler runs.
        public func withdraw() async { await withdrawal() }
    }

    /// Serves a topic: calls and casts come to one of its servers, fanouts to all.
    ///
    /// `server` names this server among several (the node's name by default). At most `concurrency` handlers
    /// run at a time; what comes meanwhile waits, up to the policy's `backlog`. A handler that throws rejects
    /// the message with the error's description. Returns when the directory has been told.
    @discardableResult
    public func serve(
        _ topic: Topic, server: String? = nil, concurrency: Int = 64, on place: HandlerPlace = .pool,
        handler: @escaping @Sendable (Message) async throws -> Response
    ) async throws -> Service {
        let executor: (any TaskExecutor)? =
            switch place {
            case .pool: nil
            case .loop: shell.executor
            }
        return try await serve(topic, server, max(1, concurrency), .asynchronous(handler, executor))
    }

    /// Serves a topic with a handler that is called right where the message arrives: the fastest, for
    /// handlers that compute and never wait. Calls and casts run on the event loop, multicast fanouts on the
    /// engine thread, so it must be quick.
    @discardableResult
    public func serve(
        _ topic: Topic, server: String? = nil,
        inline handler: @escaping @Sendable (Message) throws -> Response
    ) async throws -> Service {
        try await serve(topic, server, 1, .inline(handler))
    }

    /// Serves a topic's calls and casts only: its fanouts are left to subscriptions, which take them in
    /// batches.
    package func serveUnicast(
        _ topic: Topic, inline handler: @escaping @Sendable (Message) throws -> Response
    ) async throws {
        _ = try await serve(topic, nil, 1, .inline(handler), hearsFanouts: false)
    }

    private func serve(
        _ topic: Topic, _ server: String?, _ concurrency: Int, _ work: ServedTopic.Work,
        hearsFanouts: Bool = true
    ) async throws -> Service {
        try checkRunning()
        let server = server ?? identity.name
        guard NodeIdentity.isValid(name: server) else {
            throw CastnetError(
                .invalidArgument, "server name \(quoted(server)): must be 1 to 64 printable ASCII characters")
        }
        let backlog = sender.policy(for: topic, kind: .call, size: 0).route.backlog
        let served = ServedTopic(
            topic: topic, server: server, concurrency: concurrency, hearsFanouts: hearsFanouts,
            backlogMax: backlog, work: work, bytesMax: configuration.limits.subscriptionBacklog,
            counters: counters, clock: { MonotonicClock.now },
            wakeAt: { [loop] instant, body in loop.scheduleTask(deadline: instant.nioDeadline, body) }
        ) { [weak self] in self?.resumeReading() }
        try registry.add(served)
        try await announce()
        return Service(topic: topic, server: server) { [registry, weak self] in
            registry.remove(served)
            try? await self?.announce()
            await served.withdraw()
            self?.resumeReading()
        }
    }

    /// Hears the fanouts of every topic that matches `pattern`.
    ///
    /// Returns when the directory has been told: a fanout sent after its news has spread arrives.
    public func subscribe(_ pattern: TopicPattern) async throws -> Subscription {
        try checkRunning()
        let queue = SubscriptionQueue(pattern: pattern, bytesMax: configuration.limits.subscriptionBacklog) {
            [weak self] in self?.resumeReading()
        }
        try registry.add(queue)
        try await announce()
        return Subscription(queue: queue) { [registry, weak self] in
            registry.remove(queue)
            // A node that has stopped has said goodbye already.
            guard let self, (try? checkRunning()) != nil else { return }
            loop.execute { [shell] in shell.announce() }
            // It may have been the full one that everybody waited for.
            resumeReading()
        }
    }

    /// A full queue of this node has room again.
    private func resumeReading() {
        readersGate.open()
        guard (try? checkRunning()) != nil else { return }
        let limit = configuration.limits.subscriptionBacklog
        loop.execute { [shell, registry] in
            // Another queue that is still full says so itself once it has room.
            if registry.backlogBytes < limit { shell.unicast?.resumeReading() }
        }
    }

    private func announce() async throws {
        try await loop.submit { [shell] in shell.announce() }.get()
    }

    // MARK: What the node knows

    /// Which rule decides for a message, and why the others do not.
    public func explain(_ topic: Topic, kind: MessageKind, size: Int = 0) -> Explanation {
        sender.table.explain(topic: topic, kind: kind, size: size)
    }

    /// Every node the directory knows, this one included.
    public func members() async throws -> [NodeSummary] {
        try await loop.submit { [shell] in shell.summaries() }.get()
    }

    /// How many members other than this node hear `topic` now.
    public func memberCount(hearing topic: Topic) async throws -> Int {
        try await membership(of: topic).members.count
    }

    /// How many members, this node included, serve `topic` now.
    public func memberCount(serving topic: Topic) async throws -> Int {
        try await loop.submit { [shell] in shell.members(serving: topic).count }.get()
    }
}

/// A node as the directory knows it.
public struct NodeSummary: Sendable {
    /// Its name and which start of it this is.
    public var identity: NodeIdentity
    /// Which of several behind one server name.
    public var instance: String?
    /// Where it listens.
    public var address: HostPort?
    /// What it serves.
    public var services: [(topic: Topic, server: String)]
    /// What it subscribes.
    public var subscriptions: [TopicPattern]
    /// What the directory believes of it.
    public var state: NodeState
    /// How long it has been known.
    public var age: Duration
    /// Since it was heard last; nil: never.
    public var heard: Duration?
    /// `own`, `beacon`, `static`, `link` or `discovery`.
    public var source: String
    /// The channels both sides have, and whether this node reaches it there.
    public var paths: [(channel: String, path: String, why: String)]
}
