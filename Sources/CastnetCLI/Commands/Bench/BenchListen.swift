internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore
internal import NIOFoundationCompat
internal import Synchronization

/// `castnet bench listen`: counts what is fanned out, echoes what is called.
struct BenchListen: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "listen", abstract: "The far end of a measurement, until SIGINT or SIGTERM.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions
    @Argument(help: "The topic.")
    var topic: String

    mutating func run() async throws {
        let configuration = try config.configuration(json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let topic = try Topic(self.topic)
        let stop = StopSignals()
        let node = try Node(configuration: configuration)
        try await node.start()
        let tally = BenchTally(node: node.identity.name)
        let subscription = try await node.subscribe(TopicPattern(topic))
        // Served under the node's own name, so that the near end can ask each listener alone.
        let control = try Topic("\(topic).bench")
        try await node.serve(control, inline: { message in tally.answer(message) })
        // Fanouts are the subscription's; calls are echoed, casts taken.
        try await node.serveUnicast(
            topic, inline: { message in message.kind == .call ? .reply(message.payload) : .done })
        let losses = Task { for await loss in node.losses() { tally.lost(Int(clamping: loss.count)) } }
        let reader = Task {
            var iterator = subscription.makeAsyncIterator()
            while let batch = await iterator.nextBatch() { tally.take(batch) }
        }
        if common.json {
            try JSONLine.print(BenchReady(node: node.identity.name, topic: topic.name))
        } else {
            JSONLine.write("listening: \(node.identity.name) on \(topic)")
        }
        _ = await stop.first(within: .seconds(86_400))
        subscription.cancel()
        await reader.value
        losses.cancel()
        await node.stop(drain: .seconds(1))
        if common.json { try JSONLine.print(tally.report()) }
    }
}

private struct BenchReady: Encodable {
    var event = "ready"
    var node: String
    var topic: String
    var pid = ProcessInfo.processInfo.processIdentifier
}

/// What one listener has counted since the last reset.
final class BenchTally: Sendable {
    private let state: Mutex<BenchReport>
    private let cpuAtReset = Mutex(ProcessFacts.processorSeconds)

    init(node: String) { state = Mutex(BenchReport(node: node)) }

    func take(_ batch: MessageBatch) {
        let now = ProcessFacts.now
        state.withLock { state in
            state.last_s = now
            batch.forEachBytes { payload in
                if state.messages & (state.samples_one_in - 1) == 0 { state.sample(payload, now: now) }
                state.messages += 1
                state.bytes += payload.byteCount
            }
        }
    }

    func lost(_ count: Int) { state.withLock { $0.lost += count } }

    func report() -> BenchReport {
        let cpu = ProcessFacts.processorSeconds - cpuAtReset.withLock { $0 }
        return state.withLock { state in
            var report = state
            report.cpu_s = cpu
            report.rss_max_bytes = ProcessFacts.residentMax
            return report
        }
    }

    /// Answers the near end.
    func answer(_ message: Message) -> Response {
        switch message.headers[BenchControl.header] {
        case BenchControl.reset:
            state.withLock { $0 = BenchReport(node: $0.node) }
            cpuAtReset.withLock { $0 = ProcessFacts.processorSeconds }
            return .done
        case BenchControl.count:
            return .reply(ByteBuffer(integer: state.withLock(\.messages)))
        case BenchControl.report:
            guard let data = try? JSONEncoder().encode(report()) else { return .reject("no report") }
            return .reply(ByteBuffer(data: data))
        default: return .reject("unknown \(BenchControl.header) header")
        }
    }
}
