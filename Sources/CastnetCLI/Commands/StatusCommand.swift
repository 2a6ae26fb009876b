internal import ArgumentParser
internal import Castnet

/// At which node to look, and how to show it.
struct LookOptions: ParsableArguments {
    @OptionGroup var common: CommonOptions
    @Option(help: "The node's admin page: http://address:port or unix:/path.")
    var admin: AdminURL

    /// Shows the node as it is now, behind `prefix` where people read.
    func show(_ prefix: String = "") async throws {
        let snapshot: NodeSnapshot = try await admin.get("/status.json")
        if common.json {
            try JSONLine.print(snapshot)
        } else {
            JSONLine.write(prefix + StatusPage(snapshot).text)
        }
    }
}

/// `castnet status --admin URL`: what a running node has and does, once.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "One look at a running node: links, channels, limits, counters.")

    @OptionGroup var look: LookOptions

    mutating func run() async throws {
        try await look.show()
    }
}

/// `castnet top --admin URL`: the same, again and again.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "A live view of a running node, until Ctrl-C.")

    @OptionGroup var look: LookOptions
    @Option(help: "Time between two looks.")
    var every: TimeArgument?

    mutating func run() async throws {
        let stop = StopSignals()
        let pause = every?.duration ?? .seconds(1)
        // Only a terminal is cleared between two looks.
        let clear = Terminal.isOutput && !look.common.json ? "\u{1B}[H\u{1B}[2J" : ""
        repeat {
            try await look.show(clear)
        } while await stop.first(within: pause) == nil
    }
}
