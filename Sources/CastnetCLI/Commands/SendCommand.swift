internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import NIOCore

/// `castnet send CONFIG TOPIC --kind K`: sends and tells how each message ended.
struct SendCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send", abstract: "Send messages and tell how they ended.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions

    @Argument(help: "The topic.")
    var topic: String
    @Option(help: "call, cast or fanout.")
    var kind: KindArgument
    @Option(help: "Only members that serve under this name, or this instance of it: NAME or NAME/INSTANCE.")
    var server: String?
    @Option(help: "The payload's text.")
    var data: String?
    @Option(help: "The payload's file; - is standard input.")
    var file: String?
    @Option(help: "A generated payload of this size.")
    var size: ByteCount?
    @Option(help: "What generated payloads are a function of, with each message's number.")
    var seed: UInt64 = 0
    @Option(help: "How many messages.")
    var count: Int = 1
    @Option(help: "Messages a second.")
    var rate: Double?
    @Option(help: "Messages under way at a time.")
    var inFlight: Int = 1
    @Option(help: "none, received or processed.")
    var receipt: ReceiptMode = .none
    @Option(help: "How long each message may take; the policy's deadline by default.")
    var deadline: TimeArgument?
    @Flag(help: "Fail at once where nobody serves the topic.")
    var mandatory = false
    @Option(help: "A header, as KEY=VALUE; may be repeated.")
    var header: [String] = []
    @Option(help: "Wait until so many members are known.")
    var members: Int?
    @Option(help: "How long to wait for them.")
    var membersTimeout: TimeArgument?
    @Flag(help: "Print a line for every message sent.")
    var list = false
    @Option(help: "Keep the node up this long after the last outcome.")
    var stay: TimeArgument?
    @Option(help: "Print statistics this often.")
    var stats: TimeArgument?

    mutating func validate() throws {
        if [data != nil, file != nil, size != nil].filter({ $0 }).count > 1 {
            throw ValidationError("--data, --file and --size exclude each other")
        }
        guard count >= 0 else { throw ValidationError("--count \(count): at least 0") }
        guard inFlight > 0 else { throw ValidationError("--in-flight \(inFlight): at least 1") }
        if let rate, !(rate > 0) { throw ValidationError("--rate \(rate): more than 0") }
        for header in header where !header.contains("=") {
            throw ValidationError("--header \(header): expected KEY=VALUE")
        }
    }

    /// The target the arguments name.
    func target() throws -> Target {
        var target = Target(try Topic(topic))
        guard let server else { return target }
        // An opaque name may hold a slash only behind it: what follows the last one is the instance.
        if let slash = server.lastIndex(of: "/") {
            target.server = String(server[..<slash])
            target.instance = String(server[server.index(after: slash)...])
        } else {
            target.server = server
        }
        return target
    }

    mutating func run() async throws {
        let configuration = try config.configuration(json: common.json)
        common.startLogging(fallback: configuration.admin.logLevel)
        let stop = StopSignals()
        let target = try target()
        let fixed = try await fixedPayload()
        let node = try Node(configuration: configuration)
        try await node.start()
        do {
            try await waitForMembers(node, target)
        } catch {
            await node.stop(drain: .zero)
            throw error
        }
        let run = SendRun(node: node, command: self, target: target, fixed: fixed)
        let sending = Task { [stay] in
            await run.sendAll()
            // Cancelled, this is over at once.
            if let stay { try? await Task.sleep(for: stay.duration) }
        }
        let telling = Task { [stats] in if let stats { await run.tellStatistics(every: stats.duration) } }
        let watcher = Task { if await stop.first(within: .seconds(86_400 * 365)) != nil { sending.cancel() } }
        await sending.value
        let snapshot = try? await node.snapshot()
        watcher.cancel()
        telling.cancel()
        await node.stop()
        try await run.summary(snapshot)
    }

    private func fixedPayload() async throws -> ByteBuffer? {
        if let data { return ByteBuffer(string: data) }
        guard let file else { return size == nil ? ByteBuffer() : nil }
        if file == "-" { return ByteBuffer(bytes: await StandardInput.all()) }
        do {
            return ByteBuffer(bytes: try Data(contentsOf: URL(fileURLWithPath: file)))
        } catch {
            Diagnostics.print("error: --file \(file): \(error.localizedDescription)")
            throw ExitStatus.input.code
        }
    }

    private func waitForMembers(_ node: Node, _ target: Target) async throws {
        guard let members else { return }
        let deadline = ContinuousClock.now + (membersTimeout?.duration ?? .seconds(10))
        var known = 0
        while ContinuousClock.now < deadline {
            known =
                kind.kind == .fanout
                ? try await node.memberCount(hearing: target.topic)
                : try await node.memberCount(serving: target.topic)
            if known >= members { return }
            try await Task.sleep(for: .milliseconds(5))
        }
        Diagnostics.print("error: \(known) of \(members) members of \(target.topic) known in time")
        throw ExitStatus.unreachable.code
    }
}

/// What the sender wants to be told.
enum ReceiptMode: String, ExpressibleByArgument, Sendable {
    case none, received, processed

    var settlement: Settlement? {
        switch self {
        case .none: nil
        case .received: .received
        case .processed: .processed
        }
    }
}
