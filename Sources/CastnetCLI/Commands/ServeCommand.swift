internal import ArgumentParser
internal import Castnet
internal import Foundation
internal import Logging
internal import NIOCore
internal import Synchronization

/// `castnet serve CONFIG TOPIC…`: serves calls and casts and hears fanouts, and tells about each message.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Serve topics (or subscribe patterns) and tell what arrives.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var config: ConfigOptions

    @Argument(help: "Topics; with --join, patterns.")
    var topics: [String] = []
    @Option(help: "The name to serve under; the node's name by default.")
    var server: String?
    @Option(help: "echo, sha256, none, reject, release or exec:CMD.")
    var reply: ReplyMode = .echo
    @Flag(help: "Only subscribe: no calls, no casts.")
    var join = false
    @Option(help: "new or retained: what a new subscriber gets.")
    var lateJoin: String?
    @Option(help: "How long each message is worked on.")
    var work: TimeArgument?
    @Option(help: "Handlers that run at a time.")
    var concurrency: Int = 64
    @Option(help: "End after so many messages.")
    var count: Int?
    @Option(help: "Write each payload to a file in this folder.")
    var out: String?
    @Option(help: "Print statistics this often.")
    var stats: TimeArgument?
    @Option(help: "-: read +topic and -topic lines from standard input.")
    var topicsFrom: String?
    @Option(help: "How long work under way may take after the end was asked for.")
    var drain: TimeArgument?

    mutating func validate() throws {
        if topics.isEmpty, topicsFrom == nil { throw ValidationError("name at least one topic") }
        if let topicsFrom, topicsFrom != "-" { throw ValidationError("--topics-from takes -") }
        if let lateJoin, Route.LateJoin(rawValue: lateJoin) == nil {
            throw ValidationError("--late-join \(lateJoin): new or retained")
        }
        guard concurrency > 0 else { throw ValidationError("--concurrency \(concurrency): at least 1") }
    }

    mutating func run() async throws {
        var configuration = try config.configuration(json: common.json)
        if let lateJoin = lateJoin.flatMap(Route.LateJoin.init) {
            for index in configuration.policies.indices
            where configuration.policies[index].route.channel != nil {
                configuration.policies[index].route.lateJoin = lateJoin
            }
        }
        common.startLogging(fallback: configuration.admin.logLevel)
        let stop = StopSignals()
        let node = try Node(configuration: configuration)
        try await node.start()
        let server = Server(node: node, options: self)
        do {
            for topic in topics { try await server.add(topic) }
        } catch {
            await node.stop()
            throw error
        }
        try await server.ready(topics)
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await server.tellLosses() }
            group.addTask { await server.tellPaths() }
            if let stats { group.addTask { await server.tellStatistics(every: stats.duration) } }
            if topicsFrom != nil { group.addTask { await server.followInput() } }
            group.addTask { await server.waitForCount() }
            // Whatever comes first: the signal, or the last message asked for.
            let ended = Task { await stop.first(within: .seconds(86_400 * 365)) }
            await server.ended(or: ended)
            group.cancelAll()
            await server.finishSubscriptions()
            await node.stop(drain: drain?.duration ?? .seconds(5))
        }
        try await server.summary()
    }
}

/// How `serve` answers.
enum ReplyMode: ExpressibleByArgument, Sendable {
    case echo, sha256, none, reject, release
    case exec(String)

    init?(argument: String) {
        switch argument {
        case "echo": self = .echo
        case "sha256": self = .sha256
        case "none": self = .none
        case "reject": self = .reject
        case "release": self = .release
        case _ where argument.hasPrefix("exec:") && argument.count > 5:
            self = .exec(String(argument.dropFirst(5)))
        default: return nil
        }
    }
}
