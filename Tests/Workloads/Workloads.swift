internal import ArgumentParser
internal import Foundation

/// Sends a fixed number of messages in a fixed way, for tools that count what a message costs: two runs of
/// different length tell it, whatever the start costs. Its main is synchronous: valgrind needs that.
@main
struct Workloads: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Send messages, in one thread without sockets or between two nodes over loopback.")

    enum Place: String, ExpressibleByArgument, CaseIterable {
        /// Both ends on one thread, bytes handed from one to the other.
        case process
        /// Two nodes with sockets, by the public functions.
        case sockets
    }

    @Argument(help: "What is sent.")
    var workload: Workload
    @Argument(help: "Where.")
    var place: Place
    @Option(help: "How many messages.")
    var messages = 1000

    func validate() throws {
        guard (1...10_000_000).contains(messages) else {
            throw ValidationError("--messages: \(messages) is not from 1 to 10000000")
        }
    }

    func run() throws {
        let arrived =
            switch (place, workload.isFanout) {
            case (.process, false): try LinkPair().send(messages, workload)
            case (.process, true): try StreamPair().send(messages, workload)
            case (.sockets, _): try NodePair.send(messages, workload)
            }
        guard arrived == messages else {
            throw ValidationError("\(arrived) of \(messages) messages arrived")
        }
    }
}

/// What is sent.
enum Workload: String, ExpressibleByArgument, CaseIterable {
    case callSmall = "call-64"
    case callLarge = "call-64k"
    case castEphemeral = "cast-ephemeral"
    case fanoutSmall = "fanout-64"
    case fanoutLarge = "fanout-64k"

    var isFanout: Bool { self == .fanoutSmall || self == .fanoutLarge }
    var size: Int { self == .callLarge || self == .fanoutLarge ? 64 << 10 : 64 }

    /// Messages handed over together; the next follow when all of them have arrived.
    var batch: Int {
        switch self {
        case .callSmall, .callLarge: 1
        case .castEphemeral: 32
        case .fanoutSmall: 256
        case .fanoutLarge: 4
        }
    }
}
