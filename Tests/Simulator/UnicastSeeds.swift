import ArgumentParser
import CastnetTestKit
import Dispatch
import Foundation
import Synchronization

/// Many scenarios of calls and casts, on every processor.
struct UnicastSeeds: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unicast-seeds",
        abstract: "Calls and casts under kills, stops, cuts and short deadlines; print seeds that fail.")
    @Option(help: "The first seed.") var from: UInt64 = 0
    @Option(help: "How many.") var count = 5000

    private struct Sum {
        var outcome = UnicastSimulation.Outcome()
        var failed = 0
    }

    func run() throws {
        let began = ContinuousClock.now
        let sum = Mutex(Sum())
        DispatchQueue.concurrentPerform(iterations: count) { offset in
            let seed = from + UInt64(offset)
            let outcome = UnicastSimulation(.random(seed: seed)).run()
            if let fault = outcome.faults.first {
                print("seed \(seed): \(fault)")
                print("replay: swift run -c release Simulator unicast-seed \(seed)")
            }
            sum.withLock { sum in
                sum.outcome.add(outcome)
                if !outcome.faults.isEmpty { sum.failed += 1 }
            }
        }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        let (all, failed) = sum.withLock { ($0.outcome, $0.failed) }
        printLine([
            "what": "unicast seeds", "from": from, "seeds": count, "failed": failed, "seconds": seconds,
            "messages": all.messages, "handled": all.runs, "outcomes": all.outcomes, "retried": all.retried,
            "turned_away": all.turnedAway, "came_again": all.again, "links": all.links, "bytes": all.bytes,
            "simulated_h": all.simulated / .seconds(3600),
        ])
        if failed > 0 { throw ExitCode(1) }
    }
}

/// One of them again.
struct UnicastSeed: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unicast-seed", abstract: "Run one seed of calls and casts and print all of it.")
    @Argument(help: "The seed.") var seed: UInt64

    func run() throws {
        let scenario = UnicastSimulation.Scenario.random(seed: seed)
        print(scenario)
        fflush(nil)
        var outcome = UnicastSimulation(scenario).run()
        let faults = outcome.faults
        outcome.faults = []
        print(outcome)
        for fault in faults { print("fault: \(fault)") }
        if !faults.isEmpty { throw ExitCode(1) }
    }
}
