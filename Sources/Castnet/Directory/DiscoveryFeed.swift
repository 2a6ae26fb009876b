import CastnetCore
import Logging
import NIOCore

/// One ``Discovery`` source in use: its events go to the directory's loop one by one, so a fast source waits
/// for it; the own record goes to the source, always the newest only.
final class DiscoveryFeed: Sendable {
    private let source: any Discovery
    private let log: Logger
    private let own: AsyncStream<DiscoveredNode>
    private let ownChanges: AsyncStream<DiscoveredNode>.Continuation
    private static let pauseMax: Duration = .seconds(30)

    init(_ source: any Discovery, log: Logger) {
        self.source = source
        self.log = log
        (own, ownChanges) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
    }

    /// The source's name.
    var name: String { source.name }

    /// The own record changed.
    func changed(_ record: NodeRecord) { ownChanges.yield(DiscoveredNode(record)) }

    /// Runs until cancelled; `handle` is called for every event and awaited.
    func run(_ handle: @escaping @Sendable (DiscoveryEvent) async -> Void) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.listen(handle) }
            group.addTask { await self.publish() }
        }
    }

    func withdraw(_ record: NodeRecord) async {
        do { try await source.withdraw(DiscoveredNode(record)) } catch { warn("cannot withdraw", error) }
    }

    private func listen(_ handle: @Sendable (DiscoveryEvent) async -> Void) async {
        await retrying("does not tell of nodes") { try await Self.read(self.source, handle) }
    }

    private static func read(
        _ source: some Discovery, _ handle: @Sendable (DiscoveryEvent) async -> Void
    ) async throws {
        for try await event in try await source.events() { await handle(event) }
    }

    private func publish() async {
        for await record in own {
            await retrying("does not take the own record") { try await self.source.publish(record) }
        }
    }

    /// Tries until it works, with growing pauses; warns at the first failure only.
    private func retrying(_ what: String, _ body: () async throws -> Void) async {
        var pause: Duration = .milliseconds(500)
        var isFirst = true
        while !Task.isCancelled {
            do {
                try await body()
                return
            } catch {
                if Task.isCancelled { return }
                if isFirst { warn(what, error) }
                isFirst = false
            }
            try? await Task.sleep(for: pause * Double.random(in: 0.5...1))
            pause = min(Self.pauseMax, pause * 2)
        }
    }

    private func warn(_ what: String, _ error: any Error) {
        log.warning(
            "discovery source \(what); known nodes are kept",
            metadata: ["castnet.discovery": "\(source.name)", "castnet.reason": "\(error)"])
    }
}
