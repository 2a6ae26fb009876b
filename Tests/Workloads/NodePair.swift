internal import Castnet
internal import Dispatch
internal import Foundation
internal import NIOCore
internal import Synchronization

/// Two nodes with sockets over loopback, by the public functions.
enum NodePair {
    private static let text = """
        node: {interface: lo, listen: "127.0.0.1:0", unix: off}
        directory: {beacon: {group: 239.192.0.1, port: 18399, interval: 5s}}
        channels: {wide: {group: 239.192.9.9, port: 18398}}
        policies:
          - {match: "**", kinds: [fanout], carrier: multicast, channel: wide, fallback: none}
          - {match: "**", kinds: [cast], carrier: ephemeral}
          - {match: "**", carrier: persistent, heartbeat: 30s}
        """

    /// Sends so many messages; returns how many arrived. The calling thread waits.
    static func send(_ count: Int, _ workload: Workload) throws -> Int {
        let done = DispatchSemaphore(value: 0)
        let result = Mutex<Result<Int, any Error>>(.success(0))
        Task {
            do {
                let arrived = try await talk(count, workload)
                result.withLock { $0 = .success(arrived) }
            } catch {
                result.withLock { $0 = .failure(error) }
            }
            done.signal()
        }
        done.wait()
        return try result.withLock { $0 }.get()
    }

    private static func configuration(_ name: String) throws -> Configuration {
        let report = Configuration.parse(text, file: "workload")
        guard var configuration = report.configuration else {
            throw CastnetError(.invalidConfiguration, report.problems.map(\.description).joined())
        }
        configuration.node.name = name
        return configuration
    }

    private static func talk(_ count: Int, _ workload: Workload) async throws -> Int {
        let topic = try Topic("work")
        return try await Node.withNode(try configuration("far")) { far in
            try await far.serve(topic, inline: { $0.kind == .call ? .reply($0.payload) : .done })
            let heard = try await far.subscribe(TopicPattern(topic))
            return try await Node.withNode(try configuration("near")) { near in
                try await known(far, to: near)
                let payload = ByteBuffer(repeating: 7, count: workload.size)
                guard workload.isFanout else { return try await ask(near, topic, payload, count, workload) }
                return try await fanOut(near, topic, payload, count, workload, heard)
            }
        }
    }

    /// Both know each other, and whom the group reaches.
    private static func known(_ far: Node, to near: Node) async throws {
        let clock = ContinuousClock()
        let end = clock.now + .seconds(60)
        while clock.now < end {
            let isKnown = try await near.members().contains {
                $0.identity == far.identity && $0.state == .alive
            }
            if isKnown { return }
            try await clock.sleep(for: .milliseconds(5))
        }
        throw CastnetError(.unreachable, "the nodes did not find each other in a minute")
    }

    private static func ask(
        _ near: Node, _ topic: Topic, _ payload: ByteBuffer, _ count: Int, _ workload: Workload
    ) async throws -> Int {
        var sent = 0
        while sent < count {
            let batch = min(workload.batch, count - sent)
            if workload != .castEphemeral {
                _ = try await near.call(topic, payload)
            } else {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<batch { group.addTask { _ = try await near.cast(topic, payload) } }
                    try await group.waitForAll()
                }
            }
            sent += batch
        }
        return sent
    }

    private static func fanOut(
        _ near: Node, _ topic: Topic, _ payload: ByteBuffer, _ count: Int, _ workload: Workload,
        _ heard: Subscription
    ) async throws -> Int {
        var iterator = heard.makeAsyncIterator()
        var (sent, arrived) = (0, 0)
        while sent < count {
            let batch = min(workload.batch, count - sent)
            try await near.fanout(topic, contentsOf: Array(repeating: payload, count: batch))
            sent += batch
            while arrived < sent, let batch = await iterator.nextBatch() {
                batch.forEachBytes { _ in arrived += 1 }
            }
        }
        return arrived
    }
}
