// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import Castnet
internal import Foundation
internal import NIOCore
internal import Synchronization

/// One run of `castnet send`: its messages, their outcomes and the summary.
final class SendRun: Sendable {
    private struct State {
        var sent = 0
        var bytes = 0
        var outcomes: [String: Int] = [:]
        var carriers: [String: Int] = [:]
        var latencies: [Double] = []
        var descriptorsMax = 0
    }

    private let node: Node
    private let command: SendCommand
    private let target: Target
    private let fixed: ByteBuffer?
    private let options: SendOptions
    private let wireBefore: Int
    private let startedAt = ContinuousClock.now
    private let state = Mutex(State())

    init(node: Node, command: SendCommand, target: Target, fixed: ByteBuffer?) {
        self.node = node
        self.command = command
        self.target = target
        self.fixed = fixed
        wireBefore = ProcessFacts.wireBytes(on: node.configuration.node.interface)
        var headers = Headers()
        for header in command.header {
            let parts = header.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            headers[String(parts[0])] = String(parts[1])
        }
        options = SendOptions(
            deadline: command.deadline?.duration, headers: headers, settle: command.receipt.settlement,
            mandatory: command.mandatory ? true : nil)
    }

    /// Sends every message, at most so many under way at a time, at the rate asked for.
    func sendAll() async {
        await withTaskGroup(of: Void.self) { group in
            for number in 0..<command.count {
                if number >= command.inFlight { await group.next() }
                if Task.isCancelled { break }
                if let rate = command.rate {
                    try? await Task.sleep(until: startedAt + .seconds(Double(number) / rate))
                }
                group.addTask { await self.send(number) }
            }
        }
    }

    private func send(_ number: Int) async {
        let payload =
            fixed ?? .generated(seed: command.seed, number: number, size: command.size?.bytes ?? 0)
        let begun = ContinuousClock.now
        do {
            switch command.kind.kind {
            case .call:
                let reply = try await node.call(target, payload, options: options)
                ended(
                    number, payload, id: reply.id, .accepted, reply.latency, reply.carrier,
                    reply: reply.payload)
            case .cast:
                let receipt = try await node.cast(target, payload, options: options)
                ended(number, payload, id: receipt.id, .accepted, receipt.latency, receipt.carrier)
            case .fanout:
                let receipt = try await node.fanout(
                    target.topic, payload, receipt: command.receipt.settlement, options: options)
                fannedOut(payload, receipt, ContinuousClock.now - begun)
            }
        } catch let error as CastnetError {
            ended(
                number, payload, id: nil, Outcome(error.code), ContinuousClock.now - begun, nil,
                why: error.message)
        } catch {
            ended(number, payload, id: nil, .lost, ContinuousClock.now - begun, nil, why: "\(error)")
        }
    }

    private func ended(
        _ number: Int, _ payload: ByteBuffer, id: MessageID?, _ outcome: Outcome, _ latency: Duration,
        _ carrier: Carrier?, why: String? = nil, reply: ByteBuffer? = nil
    ) {
        let name = id?.description ?? "none-\(number)"
        tellSent(name, id, payload)
        note(outcome.rawValue, carrier, payload, latency)
        let isAsked = command.kind.kind == .call || command.receipt != .none || outcome != .accepted
        guard isAsked else { return }
        tell(
            OutcomeLine(
                id: name, kind: command.kind.kind.rawValue, outcome: outcome.rawValue, why: why,
                latency_s: latency.inSeconds, carrier: carrier?.rawValue, reply_bytes: reply?.readableBytes,
                reply_sha256: reply?.sha256))
    }

    private func fannedOut(_ payload: ByteBuffer, _ receipt: Receipt, _ latency: Duration) {
        tellSent(receipt.id.description, receipt.id, payload)
        let carrier = node.explain(target.topic, kind: .fanout, size: payload.readableBytes).policy.route
            .carrier
        let isComplete = receipt.isComplete
        note(isComplete ? "accepted" : "incomplete", carrier, payload, latency)
        guard command.receipt != .none else { return }
        tell(
            ReceiptLine(
                id: receipt.id.description, view: receipt.view,
                members: receipt.rows.map {
                    .init(node: $0.node.name, outcome: $0.outcome.rawValue, latency_s: $0.latency?.inSeconds)
                }))
    }

    private func note(_ outcome: String, _ carrier: Carrier?, _ payload: ByteBuffer, _ latency: Duration) {
        state.withLock { state in
            state.sent += 1
            state.bytes += payload.readableBytes
            state.outcomes[outcome, default: 0] += 1
            if let carrier { state.carriers[carrier.rawValue, default: 0] += 1 }
            if outcome == "accepted" { state.latencies.append(latency.inSeconds) }
            if state.sent % 64 == 1 {
                state.descriptorsMax = max(state.descriptorsMax, ProcessFacts.descriptors)
            }
        }
    }

    // MARK: Lines

    private func tell(_ line: some Encodable) {
        if command.common.json {
            try? JSONLine.print(line)
        } else if let text = try? JSONLine.text(line) {
            JSONLine.write(text)
        }
    }

    private func tellSent(_ name: String, _ id: MessageID?, _ payload: ByteBuffer) {
        guard command.list else { return }
        tell(
            SentLine(
                id: name, seq: id?.sequence, bytes: payload.readableBytes, sha256: payload.sha256,
                at_s: ProcessFacts.now))
    }

    /// A line of what was sent and counted so far, again and again.
    func tellStatistics(every interval: Duration) async {
        while (try? await Task.sleep(for: interval)) != nil {
            let counters = (try? await node.snapshot())?.activeCounters ?? [:]
            let (sent, bytes) = state.withLock { ($0.sent, $0.bytes) }
            tell(StatisticsLine(sent: sent, bytes: bytes, at_s: ProcessFacts.now, counters: counters))
        }
    }

    /// Prints the summary; ends with status 1 when not everything was accepted.
    func summary(_ snapshot: NodeSnapshot?) async throws {
        let seconds = (ContinuousClock.now - startedAt).inSeconds
        let state = state.withLock { $0 }
        let accepted = state.outcomes["accepted"] ?? 0
        let failed = state.sent - accepted
        let counters = snapshot?.activeCounters ?? [:]
        let line = SendSummary(
            sent: state.sent, accepted: accepted, failed: failed, by_outcome: state.outcomes,
            seconds: seconds,
            messages_per_s: Double(state.sent) / max(seconds, 1e-9),
            bytes_per_s: Double(state.bytes) / max(seconds, 1e-9), latency_s: LatencySummary(state.latencies),
            by_carrier: state.carriers, connections_opened: counters["link.opened"] ?? 0,
            connections_open: snapshot?.links.count ?? 0,
            descriptors_max: max(state.descriptorsMax, ProcessFacts.descriptors),
            wire_bytes: ProcessFacts.wireBytes(on: node.configuration.node.interface) - wireBefore,
            counters: counters)
        if command.common.json {
            try JSONLine.print(line)
        } else {
            JSONLine.write(
                "\(line.accepted) of \(command.count) accepted in \(line.seconds) s, \(line.messages_per_s)/s"
            )
        }
        if accepted < command.count { throw ExitStatus.incomplete.code }
    }
}

extension Outcome {
    /// The outcome an error of the library stands for.
    init(_ code: CastnetError.Code) {
        switch code {
        case .rejected, .tooLarge, .invalidArgument: self = .rejected
        case .released, .limitReached: self = .released
        case .expired: self = .expired
        case .unroutable, .multicastUnavailable: self = .unroutable
        default: self = .lost
        }
    }
}

private struct SentLine: Encodable {
    var event = "sent"
    var id: String
    var seq: UInt64?
    var bytes: Int
    var sha256: String
    var at_s: Double
}

private struct OutcomeLine: Encodable {
    var event = "outcome"
    var id: String
    var kind: String
    var outcome: String
    var why: String?
    var latency_s: Double
    var carrier: String?
    var reply_bytes: Int?
    var reply_sha256: String?
}

private struct ReceiptLine: Encodable {
    struct Row: Encodable {
        var node: String
        var outcome: String
        var latency_s: Double?
    }
    var event = "receipt"
    var id: String
    var view: UInt64
    var members: [Row]
}

private struct StatisticsLine: Encodable {
    var event = "stats"
    var sent: Int
    var bytes: Int
    var at_s: Double
    var counters: [String: UInt64]
}

private struct SendSummary: Encodable {
    var event = "summary"
    var sent: Int
    var accepted: Int
    var failed: Int
    var by_outcome: [String: Int]
    var seconds: Double
    var messages_per_s: Double
    var bytes_per_s: Double
    var latency_s: LatencySummary
    var by_carrier: [String: Int]
    var connections_opened: UInt64
    var connections_open: Int
    var descriptors_max: Int
    var wire_bytes: Int
    var counters: [String: UInt64]
}
