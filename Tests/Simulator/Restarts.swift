import ArgumentParser
import CastnetCore
import CastnetTestKit
import Foundation

/// Members that are killed and started again together.
struct Restarts: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restart-storm",
        abstract: "Members are killed and restarted together; what their callers and bystanders feel.")
    @Option(help: "The first seed.") var from: UInt64 = 0
    @Option(help: "How many seeds.") var count = 5
    @Option(help: "How many members are killed.") var restarted = 64
    @Option(help: "How many nodes call.") var callers = 8
    @Option(help: "limits.hellos of every node.") var hellos = 1000
    @Option(help: "limits.pending-calls of every node.") var pendingCalls = 65_536
    @Option(help: "persistent or ephemeral.") var carrier = "persistent"

    func run() throws {
        var hasFailed = false
        for seed in from..<from + UInt64(count) {
            var storm = RestartStorm(seed: seed)
            storm.restarted = restarted
            storm.callers = callers
            storm.hellos = hellos
            storm.pendingCalls = pendingCalls
            storm.carrier = carrier == "ephemeral" ? .ephemeral : .persistent
            let began = ContinuousClock.now
            let figures = storm.run()
            printLine([
                "what": "restart storm", "seed": seed, "restarted": restarted, "callers": callers,
                "bystanders": storm.bystanders, "carrier": carrier, "hellos": hellos,
                "bystander_calls": figures.calls, "bystander_failed": figures.failed,
                "p99_before_ms": figures.p99Before.seconds * 1000,
                "p99_storm_ms": figures.p99During.seconds * 1000,
                "callable_after_s": figures.callableAfter?.seconds ?? -1,
                "links_before": figures.linksBefore, "links_storm": figures.linksDuring,
                "paced": figures.paced, "pending_calls": pendingCalls, "faults": figures.faults.count,
                "real_s": (ContinuousClock.now - began) / .seconds(1),
            ])
            for fault in figures.faults.prefix(3) { print("seed \(seed): \(fault)") }
            hasFailed = hasFailed || !figures.faults.isEmpty
        }
        if hasFailed { throw ExitCode(1) }
    }
}
