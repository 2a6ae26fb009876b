// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore
internal import NIOFoundationCompat

/// `castnet bench fanout`: how much reaches every member.
struct BenchFanout: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fanout", abstract: "Fan out for some seconds and ask every listener what arrived.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions
    @Argument(help: "The topic.")
    var topic: String
    @OptionGroup var options: BenchOptions

    mutating func run() async throws {
        let topic = try Topic(self.topic)
        let configuration = try options.configuration(config, topic: topic, json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let (options, interface) = (options, configuration.node.interface)
        let line = try await Node.withNode(configuration) { node in
            let listeners = try await BenchListeners.find(options.members, of: topic, node)
            try await listeners.reset()
            let cpu = ProcessFacts.processorSeconds
            let wire = ProcessFacts.wireBytes(on: interface)
            let began = ProcessFacts.now
            let sent = try await Self.send(topic, options, node)
            let reports = try await listeners.reports(when: sent)
            let seconds = max(1e-9, (reports.map(\.last_s).max() ?? began) - began)
            let fewest = reports.map(\.messages).min() ?? 0
            let bytes = Double(fewest * options.size.bytes)
            let sentCPU = ProcessFacts.processorSeconds - cpu
            let cpuInAll = sentCPU + reports.map(\.cpu_s).reduce(0, +)
            return FanoutLine(
                members: reports.count, size: options.size.bytes, batch: options.batch, sent: sent,
                received_min: fewest, received_max: reports.map(\.messages).max() ?? 0,
                lost: reports.map { sent - $0.messages }.reduce(0, +), seconds: seconds,
                messages_per_s: Double(fewest) / seconds, bytes_per_s: bytes / seconds,
                latency_s: LatencySummary(reports.flatMap(\.latencies)),
                cpu_s_per_gb: cpuInAll / max(1e-9, bytes / 1e9), sender_cpu_s: sentCPU,
                wire_bytes: ProcessFacts.wireBytes(on: interface) - wire,
                carrier: node.explain(topic, kind: .fanout, size: options.size.bytes).policy.route.carrier
                    .rawValue,
                rss_max_bytes: max(ProcessFacts.residentMax, reports.map(\.rss_max_bytes).max() ?? 0))
        }
        if common.json {
            try JSONLine.print(line)
        } else {
            JSONLine.write(
                "\(line.members) members, \(line.size) B: \(Int(line.messages_per_s)) messages/s, "
                    + "\(Int(line.bytes_per_s / 1e6)) MB/s at every member, \(line.lost) lost")
        }
        if line.lost != 0 { throw ExitStatus.incomplete.code }
    }

    /// Sends for the time asked for; returns how many messages.
    private static func send(_ topic: Topic, _ options: BenchOptions, _ node: Node) async throws -> Int {
        let clock = ContinuousClock()
        let (began, end) = (clock.now, clock.now + .seconds(options.seconds))
        var filler = ByteBuffer(repeating: 0x5A, count: options.size.bytes)
        if options.size.bytes >= 8 { filler.setInteger(BenchReport.unstamped, at: 0) }
        // A stamp is a copy of the message: of large ones few have one, so that it is not what is measured.
        let stampedEvery = options.size.bytes >= 4096 ? 16 : 1
        var sent = 0
        while clock.now < end {
            if let rate = options.rate { try await clock.sleep(until: began + .seconds(Double(sent) / rate)) }
            var payload = filler
            if options.size.bytes >= 8, sent % stampedEvery == 0 {
                payload.setInteger(UInt64(ProcessFacts.now * 1e6), at: 0)
            }
            if options.batch == 1 {
                try await node.fanout(topic, payload)
            } else {
                try await node.fanout(topic, contentsOf: Array(repeating: payload, count: options.batch))
            }
            sent += options.batch
        }
        return sent
    }
}

/// The far ends of a measurement.
struct BenchListeners {
    let node: Node
    let control: Topic
    let names: [String]

    /// Waits until `count` listeners are known and hear the topic.
    static func find(_ count: Int, of topic: Topic, _ node: Node) async throws -> BenchListeners {
        let control = try Topic("\(topic).bench")
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(20)
        var names: [String] = []
        while clock.now < deadline {
            names = try await node.members().filter { member in
                member.state == .alive && member.services.contains { $0.topic == control }
                    && member.subscriptions.contains { $0.matches(topic) }
            }.map(\.identity.name)
            if names.count >= count { return BenchListeners(node: node, control: control, names: names) }
            try await clock.sleep(for: .milliseconds(20))
        }
        throw CastnetError(.unreachable, "\(names.count) of \(count) listeners of \(topic) found in 20 s")
    }

    private func ask(_ name: String, _ what: String) async throws -> Reply {
        try await node.call(
            Target(control, server: name), ByteBuffer(),
            options: SendOptions(deadline: .seconds(10), headers: [BenchControl.header: what]))
    }

    func reset() async throws { for name in names { _ = try await ask(name, BenchControl.reset) } }

    /// Waits until everybody has `count` messages, or nothing more has come for two seconds. What is asked
    /// until then is little: the listeners are still at work.
    func reports(when count: Int) async throws -> [BenchReport] {
        let clock = ContinuousClock()
        var (seen, quietSince) = (-1, clock.now)
        while true {
            var counts: [Int] = []
            for name in names {
                let payload = try await ask(name, BenchControl.count).payload
                counts.append(payload.getInteger(at: payload.readerIndex) ?? 0)
            }
            if counts.allSatisfy({ $0 >= count }) { break }
            let now = counts.reduce(0, +)
            if now != seen { (seen, quietSince) = (now, clock.now) }
            if clock.now > quietSince + .seconds(2) { break }
            try await clock.sleep(for: .milliseconds(50))
        }
        var reports: [BenchReport] = []
        for name in names {
            let data = Data(try await ask(name, BenchControl.report).payload.readableBytesView)
            reports.append(try JSONDecoder().decode(BenchReport.self, from: data))
        }
        return reports
    }
}

private struct FanoutLine: Encodable, Sendable {
    var what = "fanout"
    var members: Int
    var size: Int
    var batch: Int
    var sent: Int
    var received_min: Int
    var received_max: Int
    var lost: Int
    var seconds: Double
    var messages_per_s: Double
    var bytes_per_s: Double
    var latency_s: LatencySummary
    var cpu_s_per_gb: Double
    var sender_cpu_s: Double
    var wire_bytes: Int
    var carrier: String
    var rss_max_bytes: Int
}
