import Castnet
import Foundation
import Synchronization

/// One node behind C functions, with what its subscription has heard.
final class Embedded: Sendable {
    struct Heard: Encodable {
        var messages = 0
        var bytes = 0
        /// Messages by the sender's name.
        var from: [String: Int] = [:]
        /// Messages by how they came.
        var by: [String: Int] = [:]
        var losses: UInt64 = 0
    }

    let node: Node
    private let heard = Mutex(Heard())

    init(_ path: String, name: String) throws {
        node = try Node(configuration: try Configuration.load(path: path, overrides: [.name(name)]))
    }

    func start(hearing pattern: String?) async throws {
        try await node.start()
        Task { for await loss in node.losses() { heard.withLock { $0.losses += loss.count } } }
        guard let pattern else { return }
        let subscription = try await node.subscribe(try TopicPattern(pattern))
        Task { for await message in subscription { note(message) } }
    }

    private func note(_ message: Message) {
        heard.withLock { heard in
            heard.messages += 1
            heard.bytes += message.payload.readableBytes
            heard.from[message.from.name, default: 0] += 1
            heard.by[message.carrier.rawValue, default: 0] += 1
        }
    }

    /// How many of `count` fanouts every one of the members has received; -1: not so many members in time.
    func fanout(_ topic: Topic, size: Int, count: Int, members: Int) async throws -> Int {
        let deadline = ContinuousClock.now + .seconds(30)
        while try await node.memberCount(hearing: topic) < members {
            guard ContinuousClock.now < deadline else { return -1 }
            try await Task.sleep(for: .milliseconds(5))
        }
        let payload = ByteBuffer(repeating: 7, count: size)
        var complete = 0
        for _ in 0..<count {
            let receipt = try await node.fanout(topic, payload, receipt: .received)
            if receipt.isComplete, receipt.rows.count(where: { $0.node != node.identity }) == members {
                complete += 1
            }
        }
        return complete
    }

    func report() async throws -> String {
        struct Report: Encodable {
            var node: String
            var heard: Heard
            var counters: [String: UInt64]
        }
        let counters = try await node.snapshot().counters.filter { $0.value > 0 }
        let report = Report(
            node: node.identity.name, heard: heard.withLock { $0 }, counters: counters)
        return String(decoding: try JSONEncoder().encode(report), as: UTF8.self)
    }
}

// MARK: The C functions

/// The nodes by their numbers, from 1.
private let nodes = Mutex<[Embedded]>([])

private func node(_ number: Int32) -> Embedded? {
    nodes.withLock { $0.indices.contains(Int(number) - 1) ? $0[Int(number) - 1] : nil }
}

private final class Slot<Value: Sendable>: Sendable { let value = Mutex<Value?>(nil) }

/// Runs `body` and waits for it, on a thread that is not Swift's; nil and a line on standard error when it
/// throws.
private func wait<Result: Sendable>(_ body: @escaping @Sendable () async throws -> Result) -> Result? {
    let (slot, done) = (Slot<Result>(), DispatchSemaphore(value: 0))
    Task {
        do {
            let result = try await body()
            slot.value.withLock { $0 = result }
        } catch {
            FileHandle.standardError.write(Data("embedded: \(error)\n".utf8))
        }
        done.signal()
    }
    done.wait()
    return slot.value.withLock { $0 }
}

/// Starts a node, which hears `pattern` if there is one; its number, or 0.
@_cdecl("embedded_start")
public func embeddedStart(
    _ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ pattern: UnsafePointer<CChar>?
) -> Int32 {
    let (path, name, pattern) = (
        String(cString: path), String(cString: name), pattern.map(String.init(cString:))
    )
    let started = wait {
        let node = try Embedded(path, name: name)
        try await node.start(hearing: pattern)
        return node
    }
    guard let started else { return 0 }
    return nodes.withLock { nodes in
        nodes.append(started)
        return Int32(nodes.count)
    }
}

/// Sends and waits for the receipts: how many were complete, or a negative number.
@_cdecl("embedded_fanout")
public func embeddedFanout(
    _ number: Int32, _ topic: UnsafePointer<CChar>, _ size: Int32, _ count: Int32, _ members: Int32
) -> Int32 {
    guard let node = node(number) else { return -2 }
    let topic = String(cString: topic)
    let complete = wait {
        try await node.fanout(try Topic(topic), size: Int(size), count: Int(count), members: Int(members))
    }
    return complete.map(Int32.init) ?? -3
}

/// What the node has heard and its counters, as JSON that the caller frees; NULL when it does not run.
@_cdecl("embedded_report")
public func embeddedReport(_ number: Int32) -> UnsafeMutablePointer<CChar>? {
    guard let node = node(number), let text = wait({ try await node.report() }) else { return nil }
    return strdup(text)
}

/// Stops the node; its number stays its own.
@_cdecl("embedded_stop")
public func embeddedStop(_ number: Int32) {
    guard let node = node(number)?.node else { return }
    _ = wait { await node.stop() }
}
