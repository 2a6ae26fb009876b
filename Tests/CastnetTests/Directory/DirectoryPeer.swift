import CastnetCore
import Logging
import NIOCore

@testable import Castnet

/// A directory on a real loopback socket, with waits that end when a condition holds.
///
/// Confined to its loop, which makes it sendable.
final class DirectoryPeer: @unchecked Sendable {
    struct Late: Error, CustomStringConvertible {
        var description: String
    }
    private struct Waiter {
        var condition: (DirectoryShell) -> Bool
        var promise: EventLoopPromise<Instant>
    }

    let loop: any EventLoop
    let shell: DirectoryShell
    private(set) var events: [DirectoryEvent] = []
    private var waiters: [Waiter] = []

    static func beacon(port: UInt16, interval: Duration = .seconds(1)) -> DirectorySettings.BeaconSettings {
        var beacon = DirectorySettings.BeaconSettings()
        beacon.group = "239.192.77.\(UInt8.random(in: 1...254))"
        beacon.port = port
        beacon.interval = interval
        return beacon
    }

    init(
        _ name: String, on loop: any EventLoop, settings: DirectorySettings, services: [String] = [],
        subscriptions: [String] = [], interface: String = "lo", discovery: [any Discovery] = []
    ) {
        self.loop = loop
        var log = Logger(label: "test.\(name)")
        log.logLevel = .critical
        var configuration = Configuration()
        configuration.node.interface = interface
        configuration.directory = settings
        shell = DirectoryShell(
            loop: loop, identity: NodeIdentity(name: name, incarnation: Incarnation(1)),
            configuration: configuration, listening: HostPort(host: "127.0.0.1", port: 7400), channels: [],
            discovery: discovery, seed: .random(in: 0...UInt64.max), log: log)
        shell.onEvent = { [unowned self] in changed($0) }
        shell.update {
            $0.services = services.map { .init(topic: Topic(unchecked: $0), server: name) }
            $0.subscriptions = subscriptions.map { TopicPattern(unchecked: $0) }
        }
    }

    private func changed(_ event: DirectoryEvent) {
        events.append(event)
        let now = MonotonicClock.now
        for waiter in waiters where waiter.condition(shell) { waiter.promise.succeed(now) }
        waiters.removeAll { $0.condition(shell) }
    }

    func start() async throws { try await loop.flatSubmit { self.shell.start() }.get() }

    func stop() async throws { try await loop.flatSubmit { self.shell.stop() }.get() }

    func on<Value: Sendable>(_ body: @escaping @Sendable (DirectoryShell) -> Value) async throws -> Value {
        try await loop.submit { body(self.shell) }.get()
    }

    /// When the condition first held; throws if it does not within `limit`.
    func when(
        within limit: TimeAmount = .seconds(5), _ condition: @escaping @Sendable (DirectoryShell) -> Bool
    ) async throws -> Instant {
        let future = loop.flatSubmit {
            let promise = self.loop.makePromise(of: Instant.self)
            if condition(self.shell) {
                promise.succeed(MonotonicClock.now)
            } else {
                self.waiters.append(Waiter(condition: condition, promise: promise))
                let timeout = self.loop.scheduleTask(in: limit) {
                    promise.fail(Late(description: "not within \(limit); events: \(self.events)"))
                }
                promise.futureResult.whenComplete { _ in timeout.cancel() }
            }
            return promise.futureResult
        }
        return try await future.get()
    }
}
