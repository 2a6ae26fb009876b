// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import ArgumentParser
internal import Castnet

/// `castnet bench`: measures one carrier between real processes.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure: a far end that listens, and a near end that sends and asks what arrived.",
        subcommands: [BenchListen.self, BenchFanout.self, BenchCall.self, BenchCast.self])

    @OptionGroup var common: CommonOptions

    mutating func run() async throws {
        throw CleanExit.helpRequest(self)
    }
}

/// What every measurement is told.
struct BenchOptions: ParsableArguments {
    @Option(help: "Payload bytes of a message.")
    var size: ByteCount
    @Option(help: "Seconds to send.")
    var seconds: Double
    @Option(help: "Wait for so many listeners.")
    var members: Int = 1
    @Option(help: "Messages under way at a time.")
    var inFlight: Int = 1
    @Option(help: "Messages a second.")
    var rate: Double?
    @Option(help: "Messages handed over at a time.")
    var batch: Int = 1
    @Option(help: "multicast, persistent or ephemeral, instead of what the policy says.")
    var carrier: CarrierArgument?

    func validate() throws {
        guard seconds > 0, seconds <= 3600 else { throw ValidationError("--seconds \(seconds): up to 3600") }
        guard members > 0 else { throw ValidationError("--members \(members): at least 1") }
        guard inFlight > 0, batch > 0 else { throw ValidationError("--in-flight and --batch: at least 1") }
    }

    /// The configuration with a first rule for the topic where a carrier is asked for.
    func configuration(_ config: ConfigOptions, topic: Topic, json: Bool) throws -> Configuration {
        var configuration = try config.configuration(json: json)
        guard let carrier = carrier?.carrier else { return configuration }
        let kinds: Set<MessageKind> = carrier == .multicast ? [.fanout] : Set(MessageKind.allCases)
        var route = Route(carrier: carrier)
        if carrier == .multicast {
            guard let channel = configuration.channels.first?.name else {
                throw CastnetError(
                    .invalidConfiguration, "--carrier multicast needs a channel in the configuration")
            }
            route.channel = channel
        }
        let rule = Policy(index: 0, match: TopicPattern(topic), kinds: kinds, route: route)
        configuration.policies = PolicyTable([rule] + configuration.policies).rules
        return configuration
    }
}

/// A carrier as an argument.
struct CarrierArgument: ExpressibleByArgument {
    let carrier: Carrier

    init?(argument: String) {
        guard let carrier = Carrier(rawValue: argument), carrier != .local else { return nil }
        self.carrier = carrier
    }

    static var allValueStrings: [String] { Carrier.allCases.filter { $0 != .local }.map(\.rawValue) }
}

/// The header by which a measurement speaks to its listeners, and its values.
enum BenchControl {
    static let header = "castnet-bench"
    static let reset = "reset"
    static let count = "count"
    static let report = "report"
}

/// What a listener says when it is asked.
struct BenchReport: Codable, Sendable {
    var node: String
    var messages = 0
    var bytes = 0
    var lost = 0
    /// Unix time of the last arrival.
    var last_s = 0.0
    /// Latencies in seconds of every so many messages.
    var latencies: [Double] = []
    /// A power of two.
    var samples_one_in = 1
    var cpu_s = 0.0
    var rss_max_bytes = 0

    private static let samplesMax = 100_000

    /// The time of sending of a message that carries none.
    static let unstamped: UInt64 = 0

    /// Takes the latency of a message that carries its time of sending. Of very many, every second one goes.
    mutating func sample(_ payload: RawSpan, now: Double) {
        guard payload.byteCount >= 8 else { return }
        let sentAt = payload.bigEndian(at: 0, as: UInt64.self)
        guard sentAt != Self.unstamped else { return }
        latencies.append(max(0, now - Double(sentAt) / 1e6))
        guard latencies.count == Self.samplesMax else { return }
        latencies = stride(from: 0, to: latencies.count, by: 2).map { latencies[$0] }
        samples_one_in *= 2
    }
}
