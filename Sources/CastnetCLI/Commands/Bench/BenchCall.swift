// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore

/// `castnet bench call`: round trips, with so many under way.
struct BenchCall: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "call", abstract: "Call a listener for some seconds and time the replies.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions
    @Argument(help: "The topic.")
    var topic: String
    @OptionGroup var options: BenchOptions

    mutating func run() async throws {
        try await BenchExchange(kind: .call, topic: topic, options: options).run(config, common)
    }
}

/// `castnet bench cast`: acknowledged casts, with so many under way.
struct BenchCast: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cast", abstract: "Cast to listeners for some seconds and time the acknowledgements.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions
    @Argument(help: "The topic.")
    var topic: String
    @OptionGroup var options: BenchOptions

    mutating func run() async throws {
        try await BenchExchange(kind: .cast, topic: topic, options: options).run(config, common)
    }
}

/// Calls or casts for a time, from tasks on the node's own loop.
struct BenchExchange: Sendable {
    let kind: MessageKind
    let topic: String
    let options: BenchOptions

    func run(_ config: ConfigOptions, _ common: CommonOptions) async throws {
        let topic = try Topic(self.topic)
        let configuration = try options.configuration(config, topic: topic, json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let line = try await Node.withNode(configuration) { node in
            _ = try await BenchListeners.find(options.members, of: topic, node)
            let opened = try await node.snapshot().counters["link.opened"] ?? 0
            let cpu = ProcessFacts.processorSeconds
            let began = ContinuousClock.now
            let latencies = try await exchange(Target(topic), node)
            let seconds = (ContinuousClock.now - began).inSeconds
            let links = try await node.snapshot().counters["link.opened"] ?? 0
            return ExchangeLine(
                what: kind.rawValue, size: options.size.bytes, in_flight: options.inFlight,
                calls: latencies.count,
                calls_per_s: Double(latencies.count) / seconds, latency_s: LatencySummary(latencies),
                cpu_s_per_call: (ProcessFacts.processorSeconds - cpu) / Double(max(1, latencies.count)),
                connections_opened: links - opened, rss_max_bytes: ProcessFacts.residentMax)
        }
        if common.json {
            try JSONLine.print(line)
        } else {
            let p50 = (line.latency_s.p50 ?? 0) * 1e6
            JSONLine.write("\(Int(line.calls_per_s)) \(kind.rawValue)s/s, p50 \(Int(p50)) µs")
        }
    }

    private func exchange(_ target: Target, _ node: Node) async throws -> [Double] {
        let end = ContinuousClock.now + .seconds(options.seconds)
        let payload = ByteBuffer(repeating: 0x5A, count: options.size.bytes)
        return try await withThrowingTaskGroup(of: [Double].self) { group in
            for _ in 0..<options.inFlight {
                group.addTask(executorPreference: node.executor) {
                    var latencies: [Double] = []
                    while ContinuousClock.now < end {
                        switch kind {
                        case .call: latencies.append(try await node.call(target, payload).latency.inSeconds)
                        default: latencies.append(try await node.cast(target, payload).latency.inSeconds)
                        }
                    }
                    return latencies
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }
}

private struct ExchangeLine: Encodable, Sendable {
    var what: String
    var size: Int
    var in_flight: Int
    var calls: Int
    var calls_per_s: Double
    var latency_s: LatencySummary
    var cpu_s_per_call: Double
    var connections_opened: UInt64
    var rss_max_bytes: Int
}
