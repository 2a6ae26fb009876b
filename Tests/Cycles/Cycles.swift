internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore

/// Starts and stops a node again and again in one process, with traffic each time, and prints what the
/// process holds after every tenth of the cycles: one JSON object a line.
///
/// The configuration's policies should bring `cycle`, `steady` and `news` over one carrier each.
@main
struct Cycles: AsyncParsableCommand {
    @Argument(help: "The configuration of both nodes.")
    var configuration: String
    @Option(help: "How often the node is started and stopped.")
    var count = 1000

    mutating func run() async throws {
        var own = try Configuration.load(path: configuration)
        own.node.name = "steady"
        let every = max(1, count / 10)
        try await Node.withNode(own) { steady in
            let (steadyTopic, news) = (try Topic("steady"), try TopicPattern("news"))
            try await steady.serve(steadyTopic) { .reply($0.payload) }
            let heard = try await steady.subscribe(news)
            let reader = Task { for await _ in heard {} }
            defer { reader.cancel() }
            own.node.name = "cycle"
            for cycle in 1...count {
                try await Node.withNode(own) { try await talk(node: $0, steady) }
                if cycle % every == 0 { try print(Held(after: cycle)) }
            }
        }
    }

    /// Calls both ways, a fanout heard by the other, and a large reply.
    private func talk(node: Node, _ steady: Node) async throws {
        try await node.serve(try Topic("cycle")) { .reply($0.payload) }
        let payload = ByteBuffer(repeating: 7, count: 100_000)
        for _ in 0..<3 {
            try expect(try await node.call(try Topic("steady"), payload).payload == payload)
            try expect(try await steady.call(try Topic("cycle"), payload).payload == payload)
        }
        let receipt = try await node.fanout(try Topic("news"), payload, receipt: .received)
        try expect(receipt.rows.count == 1 && receipt.rows.allSatisfy { $0.outcome != .timedOut })
    }

    private func expect(_ isTrue: Bool) throws {
        guard isTrue else { throw CleanExit.message("traffic of a cycle went wrong") }
    }

    private func print(_ held: Held) throws {
        FileHandle.standardOutput.write(try JSONEncoder().encode(held) + Data("\n".utf8))
    }
}

/// What this process holds.
struct Held: Encodable {
    let after: Int
    let descriptors: Int
    let threads: Int
    let resident: Int

    private enum CodingKeys: String, CodingKey {
        case after, descriptors, threads
        case resident = "resident_bytes"
    }

    init(after cycle: Int) throws {
        func entries(_ path: String) throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: path).count
        }
        after = cycle
        descriptors = try entries("/proc/self/fd")
        threads = try entries("/proc/self/task")
        let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
        resident = (pages.count > 1 ? Int(pages[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}
