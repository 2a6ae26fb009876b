// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import Castnet
internal import Foundation
internal import NIOCore
internal import Synchronization

/// What `castnet serve` does with messages, and what it tells of them.
final class Server: Sendable {
    private struct State {
        var messages = 0
        var bytes = 0
        var byCarrier: [String: Int] = [:]
        var repaired: [String: Int] = ["pgm": 0, "tcp": 0]
        var losses = 0
        var descriptorsMax = 0
        var subscriptions: [Subscription] = []
        var services: [String: Node.Service] = [:]
        var readers: [Task<Void, Never>] = []
        var lastSnapshot: NodeSnapshot?
        var isComplete = false
        var waiter: CheckedContinuation<Void, Never>?
    }

    private let node: Node
    private let options: ServeCommand
    private let json: Bool
    private let state = Mutex(State())

    init(node: Node, options: ServeCommand) {
        self.node = node
        self.options = options
        json = options.common.json
    }

    // MARK: Topics

    func add(_ name: String) async throws {
        if options.join {
            let subscription = try await node.subscribe(try TopicPattern(name))
            let reader = Task {
                for await message in subscription { _ = try? await self.handle(message) }
            }
            state.withLock { state in
                state.subscriptions.append(subscription)
                state.readers.append(reader)
            }
        } else {
            let service = try await node.serve(
                try Topic(name), server: options.server, concurrency: options.concurrency
            ) { try await self.handle($0) }
            state.withLock { $0.services[name] = service }
        }
        tell(TopicLine(topic: name, state: "serving"))
    }

    private func remove(_ name: String) async {
        let service = state.withLock { $0.services.removeValue(forKey: name) }
        await service?.withdraw()
        let gone = state.withLock { state in
            defer { state.subscriptions.removeAll { $0.pattern.text == name } }
            return state.subscriptions.filter { $0.pattern.text == name }
        }
        for subscription in gone { subscription.cancel() }
        tell(TopicLine(topic: name, state: "withdrawn"))
    }

    /// Reads `+topic` and `-topic` lines until the input ends.
    func followInput() async {
        for await line in StandardInput.lines() {
            let name = String(line.dropFirst())
            do {
                if line.hasPrefix("+") {
                    try await add(name)
                } else if line.hasPrefix("-") {
                    await remove(name)
                } else {
                    Diagnostics.print("--topics-from: \(line): expected +topic or -topic")
                }
            } catch {
                Diagnostics.print("--topics-from: \(error)")
            }
        }
    }

    func finishSubscriptions() async {
        let (subscriptions, readers) = state.withLock { ($0.subscriptions, $0.readers) }
        for subscription in subscriptions { subscription.cancel() }
        for reader in readers { await reader.value }
        state.withLock { $0.subscriptions = [] }
        let snapshot = try? await node.snapshot()
        state.withLock { $0.lastSnapshot = snapshot }
    }

    // MARK: Messages

    private func handle(_ message: Message) async throws -> Response {
        let sha256 = message.payload.sha256
        if let out = options.out {
            let path = "\(out)/\(message.id)"
            try Data(message.payload.readableBytesView).write(to: URL(fileURLWithPath: path))
        }
        // Before the work: who kills this process can see what it had begun.
        if json { tell(MessageLine(message, sha256: sha256)) }
        if let work = options.work { try await Task.sleep(for: work.duration) }
        count(message)
        switch options.reply {
        case .echo: return .reply(message.payload, headers: message.headers)
        case .sha256: return .reply(ByteBuffer(string: sha256))
        case .none: return .done
        case .reject: return .reject("serve --reply reject")
        case .release: return .release("serve --reply release")
        case .exec(let command): return try await Handler.run(command, message)
        }
    }

    private func count(_ message: Message) {
        let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.messages += 1
            state.bytes += message.payload.readableBytes
            state.byCarrier[message.carrier.rawValue, default: 0] += 1
            if message.repaired != .none { state.repaired[message.repaired.rawValue, default: 0] += 1 }
            if state.messages % 64 == 1 {
                state.descriptorsMax = max(state.descriptorsMax, ProcessFacts.descriptors)
            }
            guard let count = options.count, state.messages >= count else { return nil }
            state.isComplete = true
            defer { state.waiter = nil }
            return state.waiter
        }
        waiter?.resume()
    }

    /// Returns when as many messages have come as were asked for.
    func waitForCount() async {
        guard options.count != nil else { return }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isComplete = state.withLock { state in
                    if !state.isComplete { state.waiter = continuation }
                    return state.isComplete || Task.isCancelled
                }
                if isComplete { resumeWaiter(or: continuation) }
            }
        } onCancel: {
            state.withLock { state in
                defer { state.waiter = nil }
                return state.waiter
            }?.resume()
        }
    }

    private func resumeWaiter(or continuation: CheckedContinuation<Void, Never>) {
        state.withLock { $0.waiter = nil }
        continuation.resume()
    }

    /// Returns when the last message has come or `signal` ends.
    func ended(or signal: Task<Int32?, Never>) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { _ = await signal.value }
            if options.count != nil {
                group.addTask { await self.waitUntilComplete() }
            }
            await group.next()
            signal.cancel()
            group.cancelAll()
        }
    }

    private func waitUntilComplete() async {
        while !Task.isCancelled, !state.withLock({ $0.isComplete }) {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    // MARK: Lines

    private func tell(_ line: some Encodable) { if json { try? JSONLine.print(line) } }

    func ready(_ topics: [String]) async throws {
        let address = node.listenAddress?.description ?? ""
        let own = try await node.members().first { $0.identity == node.identity }
        guard json else {
            return JSONLine.write(
                "ready: \(node.identity) on \(address), topics \(topics.joined(separator: " "))")
        }
        for topic in topics {
            try JSONLine.print(
                ReadyLine(
                    node: node.identity.name, topic: topic, listen: address,
                    pid: ProcessInfo.processInfo.processIdentifier,
                    incarnation: node.identity.incarnation.description,
                    addresses: own?.address.map { [$0.description] } ?? [address],
                    admin: node.adminURL))
        }
    }

    func tellLosses() async {
        for await loss in node.losses() where loss.member == nil {
            state.withLock { $0.losses += 1 }
            tell(
                LossLine(
                    from: loss.from, channel: loss.channel, first: loss.first, last: loss.last,
                    count: loss.count,
                    reason: loss.reason.rawValue))
        }
    }

    func tellPaths() async {
        for await change in node.pathChanges() {
            tell(
                PathLine(
                    peer: change.peer.name, channel: change.channel, path: change.path.rawValue,
                    why: change.why.rawValue, at_s: ProcessFacts.now))
        }
    }

    func tellStatistics(every interval: Duration) async {
        while (try? await Task.sleep(for: interval)) != nil {
            let counters = (try? await node.snapshot())?.activeCounters ?? [:]
            let (messages, bytes) = state.withLock { ($0.messages, $0.bytes) }
            let line = StatisticsLine(
                messages: messages, bytes: bytes, at_s: ProcessFacts.now, counters: counters)
            json ? tell(line) : JSONLine.write("\(messages) messages, \(bytes) bytes")
        }
    }

    func summary() async throws {
        let state = state.withLock { $0 }
        let counters = state.lastSnapshot?.activeCounters ?? [:]
        let line = ServeSummary(
            messages: state.messages, bytes: state.bytes, by_carrier: state.byCarrier,
            repaired_by: state.repaired,
            duplicates: counters["stream.duplicates"] ?? 0, losses: state.losses, counters: counters,
            connections_accepted: counters["link.accepted"] ?? 0,
            connections_open: state.lastSnapshot?.links.count ?? 0,
            descriptors_max: max(state.descriptorsMax, ProcessFacts.descriptors),
            rss_max_bytes: ProcessFacts.residentMax)
        if json {
            try JSONLine.print(line)
        } else {
            JSONLine.write("\(line.messages) messages, \(line.bytes) bytes, \(line.losses) losses")
        }
        if state.losses > 0 { throw ExitStatus.incomplete.code }
    }
}

private struct ReadyLine: Encodable {
    var event = "ready"
    var node: String
    var topic: String
    var listen: String
    var pid: Int32
    var incarnation: String
    var addresses: [String]
    var admin: String?
    var at_s = ProcessFacts.now
}

private struct TopicLine: Encodable {
    var event = "topic"
    var topic: String
    var state: String
}

private struct LossLine: Encodable {
    var event = "loss"
    var from: String
    var channel: String
    var first: UInt64
    var last: UInt64
    var count: UInt64
    var reason: String
}

private struct PathLine: Encodable {
    var event = "path"
    var peer: String
    var channel: String
    var path: String
    var why: String
    var at_s: Double
}

private struct StatisticsLine: Encodable {
    var event = "stats"
    var messages: Int
    var bytes: Int
    var at_s: Double
    var counters: [String: UInt64]
}

private struct ServeSummary: Encodable {
    var event = "summary"
    var messages: Int
    var bytes: Int
    var by_carrier: [String: Int]
    var repaired_by: [String: Int]
    var duplicates: UInt64
    var losses: Int
    var counters: [String: UInt64]
    var connections_accepted: UInt64
    var connections_open: Int
    var descriptors_max: Int
    var rss_max_bytes: Int
}

/// A message as a JSON line.
private struct MessageLine: Encodable {
    let message: Message
    let sha256: String

    init(_ message: Message, sha256: String) {
        self.message = message
        self.sha256 = sha256
    }

    private enum Key: String, CodingKey {
        case event, kind, topic, from, id, seq, sender_incarnation, headers, bytes, sha256, carrier, repaired
        case latency_s, at_s
    }

    func encode(to encoder: any Encoder) throws {
        var keys = encoder.container(keyedBy: Key.self)
        let now = ProcessFacts.now
        try keys.encode("message", forKey: .event)
        try keys.encode(message.kind.rawValue, forKey: .kind)
        try keys.encode(message.topic.name, forKey: .topic)
        try keys.encode(message.from.name, forKey: .from)
        try keys.encode(message.id.description, forKey: .id)
        try keys.encode(message.sequence, forKey: .seq)
        try keys.encode(message.from.incarnation.description, forKey: .sender_incarnation)
        let headers = message.headers.entries.map { ($0.name, $0.value) }
        try keys.encode(Dictionary(headers) { first, _ in first }, forKey: .headers)
        try keys.encode(message.payload.readableBytes, forKey: .bytes)
        try keys.encode(sha256, forKey: .sha256)
        try keys.encode(message.carrier.rawValue, forKey: .carrier)
        if message.repaired == .none {
            try keys.encode(false, forKey: .repaired)
        } else {
            try keys.encode(message.repaired.rawValue, forKey: .repaired)
        }
        try keys.encode(max(0, now - Double(message.sentAtMicroseconds) / 1e6), forKey: .latency_s)
        try keys.encode(now, forKey: .at_s)
    }
}
