public import CastnetCore
import CastnetMulticast
import Foundation
public import Logging
public import NIOCore
import NIOPosix
public import ServiceLifecycle
import Synchronization

/// One running Castnet in one process: sends, serves, subscribes.
///
/// Make it from a ``Configuration``, then either `run()` it as a service, or use ``withNode(_:logger:_:)``,
/// which starts and stops it around a closure. Every method may be called from any task.
///
/// Threads: one event loop for all links and the directory, one engine thread per process for all channels.
/// Memory: bounded by `limits.memory` as `castnet check` prints it.
public final class Node: Service, Sendable {
    /// What it was made from.
    public let configuration: Configuration
    /// Its name and which start of it this is.
    public let identity: NodeIdentity

    let loop: any EventLoop
    let shell: NodeShell
    let registry: Registry
    let sender: Sender
    let view: MembershipView
    let counters: NodeCounters
    let outbox: LoopMailbox<Outgoing>
    private let ownGroup: MultiThreadedEventLoopGroup?
    private let log: Logger
    private let tokens = Atomic<UInt64>(1)
    private let state = Mutex(State())

    private struct State {
        enum Phase { case made, running, stopped }
        var phase = Phase.made
        var channels: [String: OpenChannel] = [:]
        var copiesInFlight = 0
        var listening: HostPort?
        var adminURL: String?
    }
    private let lossReaders = EventReaders<Loss>()
    private let pathReaders = EventReaders<PathChange>()
    private let copiesGate: SpaceGate
    /// Where senders wait for slow members of this very node.
    let readersGate: SpaceGate

    /// Makes a node; nothing is opened before it runs.
    ///
    /// Throws `invalidConfiguration` with every problem of `configuration`. `discovery` are sources of peers
    /// beside those the configuration names. `eventLoopGroup` lends an event loop; nil: the node has one of
    /// its own.
    public init(
        configuration: Configuration, discovery: [any Discovery] = [], logger: Logger? = nil,
        eventLoopGroup: (any EventLoopGroup)? = nil
    ) throws {
        let problems = configuration.validate()
        guard problems.isEmpty else {
            let text = problems.map(\.description).joined(separator: "\n")
            throw CastnetError(.invalidConfiguration, text)
        }
        let name = configuration.node.name ?? Self.defaultName()
        guard NodeIdentity.isValid(name: name) else {
            throw CastnetError(
                .invalidConfiguration, "node.name: \(quoted(name)) must be 1 to 64 printable ASCII characters"
            )
        }
        var generator = SystemRandomNumberGenerator()
        let identity = NodeIdentity(
            name: name,
            incarnation: Incarnation(startedAt: wallClockMicroseconds() / 1000, using: &generator))
        self.configuration = configuration
        self.identity = identity
        let group = eventLoopGroup == nil ? MultiThreadedEventLoopGroup(numberOfThreads: 1) : nil
        ownGroup = group
        loop = eventLoopGroup?.next() ?? group!.next()
        counters = NodeCounters()
        registry = Registry(topicsMax: configuration.limits.topics, counters: counters)
        view = MembershipView(topicsMax: configuration.limits.topics)
        sender = Sender(
            router: Router(table: configuration.table, topicCountMax: configuration.limits.topics))
        var log = logger ?? Logger(label: "castnet")
        log[metadataKey: "castnet.node"] = "\(identity.name)"
        self.log = log
        copiesGate = SpaceGate(loop: loop)
        readersGate = SpaceGate(loop: loop)
        let shell = NodeShell(
            loop: loop, identity: identity, configuration: configuration, registry: registry, view: view,
            discovery: discovery, counters: counters, log: log, seed: generator.next())
        self.shell = shell
        outbox = LoopMailbox(loop: loop) { shell.carryOut($0) }
        shell.node = self
    }

    private static func defaultName() -> String {
        let host = ProcessInfo.processInfo.hostName.prefix(48).filter { $0.isASCII && $0 > " " }
        return "\(host)-\(ProcessInfo.processInfo.processIdentifier)"
    }

    // MARK: Life

    /// Runs the node until its task is cancelled or the service group shuts down gracefully; then drains.
    public func run() async throws {
        try await start()
        try? await gracefulShutdownOrCancellation()
        await stop()
    }

    private func gracefulShutdownOrCancellation() async throws {
        try await withGracefulShutdownHandler {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await ServiceLifecycle.gracefulShutdown() }
                try await group.next()
                group.cancelAll()
            }
        } onGracefulShutdown: {
        }
    }

    /// Starts a node, gives it to `body`, and stops it when `body` is done.
    public static func withNode<Result>(
        _ configuration: Configuration, logger: Logger? = nil, _ body: (Node) async throws -> Result
    ) async throws -> Result {
        let node = try Node(configuration: configuration, logger: logger)
        try await node.start()
        do {
            let result = try await body(node)
            await node.stop()
            return result
        } catch {
            await node.stop()
            throw error
        }
    }

    /// Opens the listener, the channels and the directory. `run()` and `withNode` call it.
    ///
    /// Throws `unreachable` when the address cannot be bound. A channel that cannot be opened is logged: its
    /// topics go by unicast where the policy allows.
    public func start() async throws {
        try state.withLock { state in
            guard state.phase == .made else { throw CastnetError(.stopped, "a node starts once") }
            state.phase = .running
        }
        do {
            let listening = try await shell.start()
            state.withLock { $0.listening = listening }
        } catch {
            await stop()
            throw error
        }
    }

    /// Says goodbye: takes nothing new, lets handlers and what is under way finish for `drain`, closes.
    ///
    /// What a handler is still busy with then ends `lost` for its sender. The handler is not interrupted.
    public func stop(drain: Duration = .seconds(5)) async {
        let wasRunning = state.withLock { state in
            defer { state.phase = .stopped }
            return state.phase == .running
        }
        if wasRunning { await shell.stop(drain: drain) }
        for gate in state.withLock({ $0.channels.values.map(\.gate) }) { gate.open() }
        copiesGate.open()
        readersGate.open()
        lossReaders.finish()
        pathReaders.finish()
        try? await ownGroup?.shutdownGracefully()
    }

    func checkRunning() throws {
        switch state.withLock({ $0.phase }) {
        case .running: break
        case .made: throw CastnetError(.notRunning, "the node is not running yet")
        case .stopped: throw CastnetError(.stopped, "the node has stopped")
        }
    }

    /// Where the node listens, once it runs.
    public var listenAddress: HostPort? { state.withLock { $0.listening } }

    /// Where its admin page is, once it runs: `http://address:port` or `unix:/path`; nil: it has none.
    public var adminURL: String? { state.withLock { $0.adminURL } }

    func adminOpened(at url: String) { state.withLock { $0.adminURL = url } }

    /// Runs tasks on the node's event loop: the lowest latency for callers that never block.
    public var executor: any TaskExecutor { shell.executor }

    // MARK: What sending needs

    func nextToken() -> UInt64 { tokens.add(1, ordering: .relaxed).oldValue }

    func channel(_ name: String) -> OpenChannel? { state.withLock { $0.channels[name] } }

    func opened(_ channel: OpenChannel) { state.withLock { $0.channels[channel.name] = channel } }

    var openChannels: [OpenChannel] { state.withLock { $0.channels.values.map { $0 } } }

    /// The members of a topic as the directory knows them now.
    func membership(of topic: Topic) async throws -> MembershipView.Topical {
        if let known = view[topic] { return known }
        try checkRunning()
        return try await loop.submit { [shell] in shell.viewOf(topic) }.get()
    }

    func rows(of token: UInt64) async -> [Receipt.Row] {
        await withUnsafeContinuation { outbox.put(.await(token, $0)) }
    }

    /// Copies of fanouts under way may hold an eighth of `limits.memory`; past that senders wait.
    func waitForCopies(bytes: Int, until deadline: Instant, topic: Topic) async throws {
        let bytesMax = max(1 << 20, configuration.limits.memory / 8)
        while true {
            let openings = copiesGate.openings
            let fits = state.withLock { state in
                guard state.copiesInFlight == 0 || state.copiesInFlight + bytes <= bytesMax else {
                    return false
                }
                state.copiesInFlight += bytes
                return true
            }
            if fits { return }
            try checkRunning()
            try await copiesGate.wait(
                since: openings, until: deadline, for: "the copies of fanouts to \(topic)")
        }
    }

    /// A fanout waits while a member of this node that hears it has a full queue, as one elsewhere would make
    /// it wait.
    func waitForReaders(of topic: Topic, until deadline: Instant) async throws {
        let limit = configuration.limits.subscriptionBacklog
        while true {
            let openings = readersGate.openings
            guard registry.listeners(to: topic).backlogBytes >= limit else { return }
            try checkRunning()
            try await readersGate.wait(
                since: openings, until: deadline, for: "this node's readers of \(topic)")
        }
    }

    func copiesEnded(bytes: Int) {
        state.withLock { $0.copiesInFlight = max(0, $0.copiesInFlight - bytes) }
        copiesGate.open()
    }

    // MARK: Losses

    /// What this node's members lost, from now on; the newest 1,024 wait for a slow reader.
    public func losses() -> AsyncStream<Loss> { lossReaders.stream() }

    func lost(_ loss: Loss) { lossReaders.yield(loss) }

    /// Changes of how multicast frames travel between this node and others, from now on; the newest 1,024
    /// wait for a slow reader.
    public func pathChanges() -> AsyncStream<PathChange> { pathReaders.stream() }

    func pathChanged(_ change: PathChange) { pathReaders.yield(change) }
}

/// Microseconds since 1970.
func wallClockMicroseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(max(0, time.tv_sec)) * 1_000_000 + UInt64(time.tv_nsec) / 1000
}
