internal import Castnet
internal import CastnetLab
internal import Foundation
internal import NIOCore

/// The demo's steps: each starts services on hosts of the lab, sends from another one, and judges what both
/// sides say by what the interface counted.
final class Demo {
    private let lab: Lab
    private let agents: [String]
    private let computes: [String]
    private let json: Bool
    let folder: String
    private var failedCount = 0
    private var stepCount = 0
    private let startedAt = ContinuousClock.now

    private static let callCount = 1000
    private static let castCount = 50
    private static let smallCount = 10_000
    private static let smallBytes = 200
    private static let fileBytes = 16 << 20

    init(lab: Lab, agents: [String], computes: [String], json: Bool) throws {
        self.lab = lab
        self.agents = agents
        self.computes = computes
        self.json = json
        folder = "\(NSTemporaryDirectory())castnet-demo-\(ProcessInfo.processInfo.processIdentifier)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try DemoPolicies.multicast.write(toFile: path("multicast.yaml"), atomically: true, encoding: .utf8)
        try DemoPolicies.persistent.write(toFile: path("persistent.yaml"), atomically: true, encoding: .utf8)
        let file = Data(ByteBuffer.generated(seed: 16, number: 0, size: Self.fileBytes).readableBytesView)
        try file.write(to: URL(fileURLWithPath: path("image")))
    }

    func removeFiles() { try? FileManager.default.removeItem(atPath: folder) }

    private func path(_ name: String) -> String { "\(folder)/\(name)" }

    /// Runs every step; returns how many failed.
    func run() async throws -> Int {
        try await calls()
        try await fanouts("fanout by multicast", config: "multicast.yaml", copies: 1, carrier: .multicast)
        try await casts()
        try await fanouts(
            "the same binary, fanout by persistent", config: "persistent.yaml", copies: agents.count,
            carrier: .persistent)
        let seconds = (ContinuousClock.now - startedAt).inSeconds
        let line = DemoSummary(steps: stepCount, failed: failedCount, seconds: seconds)
        if json {
            try JSONLine.print(line)
        } else {
            JSONLine.write("\(stepCount - failedCount) of \(stepCount) steps passed in \(Int(seconds)) s")
        }
        return failedCount
    }

    // MARK: Steps

    /// 1,000 calls from api to the scheduler: exactly one connection.
    private func calls() async throws {
        let services = try await serve(["scheduler"], topic: "scheduler", config: "multicast.yaml")
        let before = try await lab.host("api").wireBytes()
        let sent = try await send(
            "scheduler", "call", config: "multicast.yaml",
            ["--count", "\(Self.callCount)", "--size", "100", "--in-flight", "16", "--members", "1"])
        let wire = try await lab.host("api").wireBytes() - before
        let served = try await stop(services)
        let connections = served.map { $0.number("connections_accepted") }.reduce(0, +)
        judge(
            "1,000 calls api → scheduler", "scheduler", .call, config: "multicast.yaml",
            counts: [
                "calls": sent.summary.number("sent"), "replies": sent.summary.number("accepted"),
                "handled": served.map { $0.number("messages") }.reduce(0, +),
                "connections_opened": sent.summary.number("connections_opened"),
                "connections_accepted": connections,
            ], wire: wire,
            problems: [
                sent.summary.number("accepted") == Self.callCount ? nil : "not every call was answered",
                sent.summary.number("connections_opened") == 1 && connections == 1
                    ? nil : "not exactly one connection",
                sent.summary.carriers == ["persistent": Self.callCount] ? nil : "another carrier was used",
            ])
    }

    /// 50 casts to 10 hosts over connections that are gone after the linger.
    private func casts() async throws {
        let services = try await serve(computes, topic: "compute.build", config: "multicast.yaml")
        let before = try await lab.host("api").wireBytes()
        let sent = try await send(
            "compute.build", "cast", config: "multicast.yaml",
            [
                "--count", "\(Self.castCount)", "--size", "500", "--in-flight", "10", "--members",
                "\(computes.count)", "--stay", "2s",
            ])
        let wire = try await lab.host("api").wireBytes() - before
        let served = try await stop(services)
        let shares = served.map { $0.number("messages") }
        let open =
            sent.summary.number("connections_open")
            + served.map { $0.number("connections_open") }.reduce(0, +)
        judge(
            "50 casts to 10 compute hosts", "compute.build", .cast, config: "multicast.yaml",
            counts: [
                "casts": sent.summary.number("sent"), "accepted": sent.summary.number("accepted"),
                "handled": shares.reduce(0, +), "hosts": shares.filter { $0 > 0 }.count,
                "connections_opened": sent.summary.number("connections_opened"), "connections_open": open,
            ], wire: wire,
            problems: [
                sent.summary.number("accepted") == Self.castCount && shares.reduce(0, +) == Self.castCount
                    ? nil : "not every cast was handled",
                Set(shares) == [Self.castCount / computes.count] ? nil : "the shares are \(shares)",
                open == 0 ? nil : "\(open) connections are open after the linger",
                sent.summary.carriers == ["ephemeral": Self.castCount] ? nil : "another carrier was used",
            ])
    }

    /// A 16 MiB file and 10,000 small messages to six agents.
    private func fanouts(_ step: String, config: String, copies: Int, carrier: Carrier) async throws {
        let services = try await serve(agents, topic: "agents.image", config: config)
        let members = ["--members", "\(agents.count)", "--receipt", "received", "--list"]
        let before = try await lab.host("api").wireBytes()
        let file = try await send(
            "agents.image", "fanout", config: config, ["--file", path("image")] + members)
        let small = try await send(
            "agents.image", "fanout", config: config,
            ["--count", "\(Self.smallCount)", "--size", "\(Self.smallBytes)", "--in-flight", "256"] + members)
        let wire = try await lab.host("api").wireBytes() - before
        let ids = Dictionary((file.sent + small.sent).map { ($0.id, $0.sha256) }) { first, _ in first }
        let heard = services.map { service in
            Dictionary(service.process.output.compactMap(DemoLine.message).map { ($0.id, $0.sha256) }) {
                one, _ in one
            }
        }
        let served = try await stop(services)
        let payload = Self.fileBytes + Self.smallCount * Self.smallBytes
        let complete = heard.filter { $0 == ids }.count
        let copied = served.map { $0.carriers }.reduce(0) {
            $0 + ($1["persistent"] ?? 0) + ($1["ephemeral"] ?? 0)
        }
        let share = Double(wire) / Double(payload * copies)
        judge(
            step, "agents.image", .fanout, config: config,
            counts: [
                "messages": ids.count, "agents": agents.count, "agents_complete": complete,
                "unicast_copies": copied, "payload_bytes": payload,
                "wire_percent_of_copies": Int(share * 100),
                "losses": served.map { $0.number("losses") }.reduce(0, +),
            ], wire: wire,
            problems: [
                ids.count == Self.smallCount + 1 ? nil : "not every message was sent",
                complete == agents.count
                    ? nil : "only \(complete) agents have every message with its SHA-256",
                carrier == .multicast && copied > 0 ? "\(copied) unicast copies were sent" : nil,
                (0.85...1.15).contains(share)
                    ? nil : "the wire carried \(Int(share * 100)) % of \(copies) × payload",
            ])
    }

    // MARK: Services and senders

    private struct Running {
        var host: String
        var process: LabProcess
    }

    private func serve(_ hosts: [String], topic: String, config: String) async throws -> [Running] {
        var running: [Running] = []
        for host in hosts {
            let process = try await lab.host(host).spawn(
                PrivateLab.ownExecutable,
                [
                    "serve", path(config), topic, "--reply", "none", "--json", "--log-level", "error",
                    "--name", host,
                ])
            running.append(Running(host: host, process: process))
        }
        for service in running {
            _ = try await service.process.line(upTo: .seconds(20)) { $0.contains(#""event":"ready""#) }
        }
        return running
    }

    private func stop(_ services: [Running]) async throws -> [DemoReport] {
        for service in services { service.process.signal(SIGTERM) }
        var reports: [DemoReport] = []
        for service in services {
            _ = try await service.process.wait(upTo: .seconds(20))
            reports.append(DemoReport(service.process.output.last ?? ""))
        }
        return reports
    }

    private func send(
        _ topic: String, _ kind: String, config: String, _ arguments: [String]
    ) async throws -> (summary: DemoReport, sent: [DemoLine]) {
        let process = try await lab.host("api").spawn(
            PrivateLab.ownExecutable,
            ["send", path(config), topic, "--kind", kind, "--json", "--log-level", "error"] + arguments)
        _ = try await process.wait(upTo: .seconds(120))
        let lines = process.output
        for line in process.errors { Diagnostics.print("api: \(line)") }
        return (DemoReport(lines.last ?? ""), lines.compactMap(DemoLine.sent))
    }

    // MARK: Verdicts

    private func judge(
        _ step: String, _ topic: String, _ kind: MessageKind, config: String, counts: [String: Int],
        wire: Int,
        problems: [String?]
    ) {
        stepCount += 1
        let problems = problems.compactMap { $0 }
        if !problems.isEmpty { failedCount += 1 }
        let table = Configuration.read(path: path(config)).configuration?.table ?? PolicyTable()
        let explanation = (try? Topic(topic)).map { table.explain(topic: $0, kind: kind, size: 0) }
        let line = DemoStep(
            step: step, rule: explanation?.policy.place ?? "",
            carrier: explanation?.policy.route.carrier.rawValue ?? "",
            counts: counts, wire_bytes: wire, ok: problems.isEmpty, why: problems.joined(separator: "; "))
        if json {
            try? JSONLine.print(line)
        } else {
            let figures = counts.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(
                separator: ", ")
            JSONLine.write(
                """
                \(line.ok ? "ok    " : "FAILED") \(step)
                         \(line.rule) → \(line.carrier); \(wire) bytes on the wire
                         \(figures)\(line.ok ? "" : "\n         \(line.why)")
                """)
        }
    }
}
