import Castnet
import CastnetCore
import NIOCore

/// Knows what was sent, what handlers did and what senders were told, and says where that does not fit.
struct UnicastOracle {
    private struct Run {
        var member: NodeIdentity
        var sequence: UInt64
        /// Which of all runs it was.
        var ordinal: Int
        var startedAt: Instant
        var endedAt: Instant?
    }

    private struct Sent {
        var order: WorkOrder
        var plan: UnicastSimulation.TopicPlan
        var kind: MessageKind
        var from: NodeIdentity
        var at: Instant
        var deadline: Instant
        var results: [(result: SendResult, at: Instant)] = []
        var runs: [Run] = []
        var mustBeAccepted = false

        /// The sender was told when the handler was done.
        var isProcessed: Bool { kind == .call || plan.route.settle == .processed }
    }

    private var messages: [UInt64: Sent] = [:]
    private var accepted: Set<UInt64> = []
    /// Nodes that did not run to the end, and those of them that were killed.
    private var ending: Set<NodeIdentity> = []
    private var killed: Set<NodeIdentity> = []
    private(set) var outcome = UnicastSimulation.Outcome()

    mutating func sent(
        _ order: WorkOrder, _ plan: UnicastSimulation.TopicPlan, _ kind: MessageKind, from: NodeIdentity,
        at: Instant, deadline: Instant
    ) {
        messages[order.key] = Sent(
            order: order, plan: plan, kind: kind, from: from, at: at, deadline: deadline,
            mustBeAccepted: accepted.contains(order.key))
    }

    mutating func mustBeAccepted(_ key: UInt64) { accepted.insert(key) }
    mutating func ends(_ member: NodeIdentity) { ending.insert(member) }
    mutating func killed(_ member: NodeIdentity) { killed.insert(member) }

    mutating func began(
        _ order: WorkOrder, _ message: Message, at member: NodeIdentity, now: Instant
    ) -> Int {
        outcome.runs += 1
        let run = Run(member: member, sequence: message.sequence, ordinal: outcome.runs, startedAt: now)
        messages[order.key]?.runs.append(run)
        return (messages[order.key]?.runs.count ?? 0) - 1
    }

    mutating func ended(_ order: WorkOrder, _ run: Int, now: Instant) {
        messages[order.key]?.runs[run].endedAt = now
    }

    mutating func ended(_ key: UInt64, _ result: SendResult, now: Instant) {
        messages[key]?.results.append((result, now))
    }

    /// How long calls of some topics took that were sent within a time, and how many of them failed.
    func latencies(of topics: Set<Topic>, sentIn time: Range<Instant>) -> (took: [Duration], failed: Int) {
        var took: [Duration] = []
        var failed = 0
        for sent in messages.values where topics.contains(sent.plan.topic) && time.contains(sent.at) {
            guard let (result, at) = sent.results.first else { continue }
            if result.outcome == .accepted { took.append(at - sent.at) } else { failed += 1 }
        }
        return (took.sorted(), failed)
    }

    /// When each of the members first handled a message of each sender.
    func firstRuns(at members: Set<NodeIdentity>) -> [NodeIdentity: [NodeIdentity: Instant]] {
        var first: [NodeIdentity: [NodeIdentity: Instant]] = [:]
        for sent in messages.values {
            for run in sent.runs where members.contains(run.member) {
                let before = first[run.member]?[sent.from] ?? run.startedAt
                first[run.member, default: [:]][sent.from] = min(before, run.startedAt)
            }
        }
        return first
    }

    // MARK: Judging

    /// `retrying`: who tried another member for some message.
    mutating func judge(_ scenario: UnicastSimulation.Scenario, retrying: Set<NodeIdentity>) {
        outcome.messages = messages.count
        for (key, sent) in messages.sorted(by: { $0.key < $1.key }) {
            // Nobody is left to be told.
            if killed.contains(sent.from) { continue }
            judgeEnding(key, sent)
            judgeRuns(key, sent, scenario)
        }
        if scenario.isCalm {
            judgeOrder()
            judgeTurns(scenario, retrying)
        }
    }

    private mutating func fault(_ key: UInt64, _ sent: Sent, _ text: String) {
        let results = sent.results.map { result, at in
            let member = result.member?.description ?? "nobody"
            return "\(result.outcome) at \(member) (\(result.why ?? "")) after \(at - sent.at)"
        }
        let runs = sent.runs.map { run in
            let end = run.endedAt.map { "\($0 - sent.at)" } ?? "-"
            return "\(run.member) from \(run.startedAt - sent.at) to \(end)"
        }
        outcome.faults.append(
            "message \(key) (\(sent.kind), \(sent.plan.topic), \(sent.order.verdict), "
                + "\(sent.order.size) bytes, from \(sent.from) at \(sent.at), "
                + "\(sent.deadline - sent.at)): \(text); \(results); "
                + "runs \(runs)")
    }

    private mutating func judgeEnding(_ key: UInt64, _ sent: Sent) {
        guard sent.results.count == 1, let (result, at) = sent.results.first else {
            return fault(key, sent, "ended \(sent.results.count) times")
        }
        outcome.outcomes[result.outcome.rawValue, default: 0] += 1
        if at > sent.deadline { fault(key, sent, "ended \(at - sent.deadline) after its deadline") }
        if sent.mustBeAccepted, result.outcome != .accepted {
            fault(key, sent, "not accepted though all is well again")
        }
        if let wrong = contradiction(sent, result) { fault(key, sent, wrong) }
    }

    /// What the sender was told and did not happen.
    private func contradiction(_ sent: Sent, _ result: SendResult) -> String? {
        let verdict = sent.order.verdict
        switch result.outcome {
        case .accepted where sent.isProcessed:
            if verdict != .reply { return "accepted" }
            guard sent.kind == .call else {
                return sent.runs.contains { $0.endedAt != nil } ? nil : "accepted, and not handled"
            }
            guard let run = sent.order.run(of: result.payload), sent.runs.indices.contains(run) else {
                return "another's reply"
            }
            return sent.runs[run].endedAt != nil ? nil : "a reply before the handler returned"
        case .accepted:
            // It was taken in; only the end of the member, or its deadline, may keep it from being handled.
            guard sent.runs.isEmpty, let member = result.member, !ending.contains(member) else { return nil }
            return "received by \(member) and never handled"
        case .rejected: return verdict == .reject && !sent.runs.isEmpty ? nil : "rejected by nobody"
        case .released, .unroutable:
            return verdict == .release || sent.runs.isEmpty ? nil : "handled, though not executed"
        case .expired:
            return sent.results.allSatisfy { $0.at >= sent.deadline } ? nil : "expired before its deadline"
        case .lost: return nil
        }
    }

    private mutating func judgeRuns(_ key: UInt64, _ sent: Sent, _ scenario: UnicastSimulation.Scenario) {
        let route = sent.plan.route
        let mayRepeat = route.idempotent && route.retry != .none
        // What was handed back was not executed; so it may be given to the next.
        let isFree = sent.order.verdict == .release && route.retry == .otherMember
        // A node that stops hands back what others may take, however often it was tried.
        let left = sent.order.verdict == .release ? sent.runs.count { ending.contains($0.member) } : 0
        if sent.runs.count > (mayRepeat || isFree ? max(1, route.attempts) : 1) + left {
            fault(key, sent, "handled \(sent.runs.count) times")
        }
        if scenario.isCalm, let result = sent.results.first?.result {
            if result.outcome == .lost || result.outcome == .unroutable {
                fault(key, sent, "\(result.outcome) though nothing went wrong")
            }
            if sent.runs.count > 1, !isFree { fault(key, sent, "handled twice though nothing went wrong") }
        }
        let hasBlocks = scenario.troubles.contains { if case .block = $0 { true } else { false } }
        let late = sent.runs.map { $0.startedAt - sent.deadline }.max() ?? .zero
        if !hasBlocks, late > scenario.latency.upperBound * 4 + .milliseconds(10) {
            fault(key, sent, "started \(late) after its deadline")
        }
    }

    /// One handler of a topic gets what one sender sends over one connection in order.
    private mutating func judgeOrder() {
        var last: [String: UInt64] = [:]
        let small = messages.values.filter {
            $0.plan.isInOrder && $0.order.size < 8 << 10 && $0.runs.count == 1
        }
        for sent in small.sorted(by: { $0.runs[0].ordinal < $1.runs[0].ordinal }) {
            let run = sent.runs[0]
            let stream = "\(sent.from) \(sent.plan.topic) \(run.member)"
            if let before = last[stream], before > run.sequence {
                fault(sent.order.key, sent, "number \(run.sequence) came after \(before)")
            }
            last[stream] = run.sequence
        }
    }

    /// Where members take turns, none gets two more than another from the same sender.
    private mutating func judgeTurns(
        _ scenario: UnicastSimulation.Scenario, _ retrying: Set<NodeIdentity>
    ) {
        let groups = Dictionary(grouping: messages.values) { "\($0.from) \($0.plan.topic)" }
        for (name, group) in groups {
            guard let plan = group.first?.plan, plan.route.balance == .roundRobin, plan.released == 0,
                group.allSatisfy({ $0.runs.count == 1 && !retrying.contains($0.from) })
            else { continue }
            let counts = Dictionary(grouping: group) { $0.runs[0].member.name }.mapValues(\.count)
            let least = counts.count < plan.servers.count ? 0 : counts.values.min() ?? 0
            if (counts.values.max() ?? 0) - least > 1 { outcome.faults.append("turns of \(name): \(counts)") }
        }
    }
}

extension UnicastSimulation.TopicPlan {
    fileprivate var isInOrder: Bool {
        concurrency == 1 && route.balance != .capacity && route.connections == 1 && route.promote == nil
            && (route.share || route.carrier == .persistent)
    }
}
