import ArgumentParser
import CastnetCore
import CastnetTestKit
import Dispatch
import Foundation
import Synchronization

/// Runs the channel machines in virtual time under an oracle.
@main
struct Simulator: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "Simulator", abstract: "Channels, and nodes with links, in virtual time.",
        subcommands: [
            Seeds.self, Seed.self, Planted.self, Crowd.self, CommonLoss.self, UnicastSeeds.self,
            UnicastSeed.self, Membership.self, Restarts.self,
        ])

    /// Starts itself anew where dictionaries are ordered by chance: then a seed is not all of a scenario.
    /// Pages are large then: the tables of ten thousand nodes are read all over.
    static func main() {
        let variable = "SWIFT_DETERMINISTIC_HASHING"
        if ProcessInfo.processInfo.environment[variable] == nil {
            setenv(variable, "1", 1)
            setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 0)
            unsafe execv("/proc/self/exe", CommandLine.unsafeArgv)
        }
        main(nil)
    }
}

/// Prints a JSON object on one line.
func printLine(_ fields: [String: Any]) {
    guard let data = try? JSONSerialization.data(withJSONObject: fields, options: [.sortedKeys]) else {
        return
    }
    print(String(decoding: data, as: UTF8.self))
}

func outcome(of scenario: ChannelSimulation.Scenario) -> ChannelSimulation.Outcome {
    var simulation = ChannelSimulation(scenario)
    return simulation.run()
}

/// What a seed decides on.
struct ScenarioKind: ParsableArguments {
    @Option(help: "Receipts of so many members under kills, stops and cuts; otherwise everything at once.")
    var members: Int?

    func scenario(seed: UInt64) -> ChannelSimulation.Scenario {
        members.map { .unrest(members: $0, seed: seed) } ?? .random(seed: seed)
    }

    var arguments: String { members.map { " --members \($0)" } ?? "" }
}

/// Many seeds, on every processor.
struct Seeds: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run many seeds; print those that fail.")
    @Option(help: "The first seed.") var from: UInt64 = 0
    @Option(help: "How many.") var count = 5000
    @OptionGroup var kind: ScenarioKind

    private struct Sum {
        var delivered = 0
        var frames = 0
        var repaired = 0
        var lost: UInt64 = 0
        var rows = 0
        var failing: [UInt64] = []
    }

    func run() throws {
        let began = ContinuousClock.now
        let sum = Mutex(Sum())
        DispatchQueue.concurrentPerform(iterations: count) { offset in
            let seed = from + UInt64(offset)
            let outcome = outcome(of: kind.scenario(seed: seed))
            if let fault = outcome.faults.first {
                print("seed \(seed): \(fault)")
                print("replay: swift run -c release Simulator seed \(seed)\(kind.arguments)")
            }
            sum.withLock { sum in
                sum.delivered += outcome.delivered
                sum.frames += outcome.frames
                sum.repaired += outcome.repaired + outcome.resent
                sum.lost += outcome.lost
                sum.rows += outcome.receiptRows
                if !outcome.faults.isEmpty { sum.failing.append(seed) }
            }
        }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        let failing = sum.withLock { sum in
            printLine([
                "what": "seeds", "from": from, "seeds": count, "failed": sum.failing.count,
                "seconds": seconds, "delivered": sum.delivered, "frames": sum.frames,
                "repaired": sum.repaired, "lost": sum.lost, "receipt_rows": sum.rows,
            ])
            return sum.failing
        }
        if !failing.isEmpty { throw ExitCode(1) }
    }
}

/// One seed again.
struct Seed: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Run one seed and print all of it.")
    @Argument(help: "The seed.") var seed: UInt64
    @OptionGroup var kind: ScenarioKind

    func run() throws {
        let scenario = kind.scenario(seed: seed)
        print(scenario)
        let outcome = outcome(of: scenario)
        print(outcome)
        for fault in outcome.faults { print("fault: \(fault)") }
        if !outcome.faults.isEmpty { throw ExitCode(1) }
    }
}

/// Bugs put in on purpose.
struct Planted: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show that the oracle finds protocol bugs; a debug build has some.")
    @Option(help: "Seeds to try for each bug.") var seeds: UInt64 = 400
    @Option(help: "Only this one.") var only: String?
    @Flag(help: "Only those of channels.") var channels = false

    func run() throws {
        #if DEBUG
            var caught = 0
            let bugs = PlantedBug.allCases.filter {
                (only == nil || $0.rawValue == only) && !(channels && $0.isOfLinks)
            }
            for bug in bugs {
                let found = (0..<seeds).lazy.map { seed in
                    (
                        seed,
                        fault: PlantedBug.$planted.withValue(bug) {
                            firstFault(of: seed, isOfLinks: bug.isOfLinks)
                        }
                    )
                }.first { $0.fault != nil }
                if found != nil { caught += 1 }
                printLine([
                    "bug": bug.rawValue, "seed": found.map { Int($0.0) } ?? -1,
                    "fault": found?.fault ?? "not found in \(seeds) seeds",
                ])
            }
            printLine(["what": "planted bugs", "planted": bugs.count, "caught": caught])
            if caught < bugs.count { throw ExitCode(1) }
        #else
            print("a release build has no planted bugs")
            throw ExitCode(64)
        #endif
    }
}

private func firstFault(of seed: UInt64, isOfLinks: Bool) -> String? {
    isOfLinks
        ? UnicastSimulation(.random(seed: seed)).run().faults.first
        : outcome(of: .random(seed: seed)).faults.first
}

/// Thousands of members.
struct Crowd: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What a sender hears of a group: reports a second, time to a receipt.")
    @Option(help: "How many members.") var members = 10_000

    func run() throws {
        var scenario = ChannelSimulation.Scenario(seed: 1)
        scenario.nodes = members + 1
        scenario.topics = 1
        scenario.messages = 9
        scenario.batch = 3
        scenario.batchInterval = .milliseconds(500)
        let outcome = outcome(of: scenario)
        printLine([
            "what": "a crowd", "members": members, "reports_per_s_max": outcome.reportsPerSecondMax,
            "receipts_complete_s": outcome.receiptsAt.seconds, "reports": outcome.reports,
            "delivered": outcome.delivered, "faults": outcome.faults.prefix(3).joined(separator: "; "),
        ])
        if !outcome.faults.isEmpty { throw ExitCode(1) }
    }
}

/// All members lose the same.
struct CommonLoss: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "A sender is cut off for five seconds of traffic: what repair costs.")
    @Option(help: "How many members.") var members = 1000

    func run() throws {
        var scenario = ChannelSimulation.Scenario(seed: 1)
        scenario.nodes = members + 1
        scenario.topics = 1
        scenario.sizes = 900...1100
        scenario.batch = 1
        scenario.batchInterval = .milliseconds(10)
        scenario.messages = 1800
        scenario.timeMax = .seconds(120)
        scenario.hasReceipts = false
        scenario.troubles = [.cutOff(0, .seconds(4)..<(.seconds(9)), .both)]
        let outcome = outcome(of: scenario)
        let rate = outcome.framesBySecond[2] ?? 0
        let lostBytes = (4..<9).reduce(0) { $0 + (outcome.framesBySecond[$1] ?? 0) } * 1130
        let live = (9..<16).map { Double(outcome.framesBySecond[$0] ?? 0) / Double(max(1, rate)) }.min() ?? 0
        printLine([
            "what": "a common loss", "members": members, "sessions_max": outcome.sessionsMax,
            "lost_bytes": lostBytes, "repair_bytes": outcome.repairBytes, "live_ratio_min": live,
            "frames_by_second": (0..<20).map { outcome.framesBySecond[$0] ?? 0 },
            "repaired_tcp": outcome.repaired, "resent": outcome.resent, "lost": outcome.lost,
            "seconds": outcome.seconds, "faults": outcome.faults.prefix(3).joined(separator: "; "),
        ])
        if !outcome.faults.isEmpty { throw ExitCode(1) }
    }
}
