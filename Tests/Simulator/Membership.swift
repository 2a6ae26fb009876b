import ArgumentParser
import CastnetCore
import CastnetTestKit
import Dispatch
import Foundation

/// A whole group's directories: who sees what, how soon, and what it costs, with the figures as JSON lines.
struct Membership: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The directories of a whole group: forming, idle, joins, crashes, cuts.")
    @Option(help: "How many nodes.") var nodes = 10_000
    @Option(help: "How many datagrams of a thousand each node loses.") var loss = 10
    @Option(help: "The seed.") var seed: UInt64 = 1
    @Option(help: "Seconds over which the nodes start.") var start = 5
    @Flag(help: "The nodes start over one interval, with a table of all, as from a seed.")
    var acquainted = false
    @Option(help: "Joins and crashes to look at.") var events = 3
    @Flag(help: "No cuts.") var uncut = false

    func run() throws {
        var settings = DirectorySimulation.Settings()
        (settings.nodes, settings.seed, settings.loss) = (nodes, seed, Double(loss) / 1000)
        let simulation = DirectorySimulation(
            settings, processors: ProcessInfo.processInfo.activeProcessorCount,
            concurrently: { DispatchQueue.concurrentPerform(iterations: $0, execute: $1) })
        let report = MembershipReport(simulation, nodes: nodes)
        if acquainted { report.meet() } else { report.form(seconds: start) }
        report.idle()
        if events > 0 {
            report.join(events)
            report.crash(events)
        }
        report.leave()
        guard !uncut else { return }
        report.cut(share: 50)
        report.cut(share: 10)
    }
}

/// Leads a group from one event to the next and prints a line about each.
final class MembershipReport {
    private let simulation: DirectorySimulation
    /// Numbers of nodes that run, oldest first.
    private var running: [Int] = []
    private let nodes: Int
    private let began = ContinuousClock.now
    private var processor = processorSeconds()

    init(_ simulation: DirectorySimulation, nodes: Int) {
        (self.simulation, self.nodes) = (simulation, nodes)
    }

    // MARK: Events

    func form(seconds: Int) {
        let started = simulation.now
        var number = 0
        while number < nodes {
            let due = Int((simulation.now - started).seconds * Double(nodes) / Double(seconds)) + 1
            while number < min(due, nodes) {
                running.append(simulation.start())
                number += 1
            }
            simulation.run(.milliseconds(10))
        }
        let last = simulation.now
        let isFormed = simulation.run(.seconds(120)) { self.isOneView }
        line(
            "form", since: started,
            [
                "formed": isFormed, "formed_s": (simulation.now - last).seconds,
                "interval_s": simulation.interval.seconds,
            ])
    }

    func meet() {
        let started = simulation.now
        simulation.startAcquainted(nodes)
        running = Array(0..<nodes)
        line("meet", since: started, ["met": isOneView, "interval_s": simulation.interval.seconds])
    }

    /// Two intervals after everything has settled.
    func idle() {
        simulation.run(max(.seconds(6), simulation.interval))
        let (began, died, suspected) = (
            simulation.now, simulation.count(.directoryDied), simulation.count(.directorySuspected)
        )
        let processor = processorSeconds()
        simulation.run(max(.seconds(10), simulation.interval * 3 / 2))
        let seconds = (simulation.now - began).seconds
        line(
            "idle", since: began,
            [
                "packets_per_s": rate(since: began), "interval_s": simulation.interval.seconds,
                "false_deaths": simulation.count(.directoryDied) - died,
                "suspected_per_s": Double(simulation.count(.directorySuspected) - suspected) / seconds,
                "processor_us_per_node_s": (processorSeconds() - processor) * 1e6 / seconds / Double(nodes),
                "resident_bytes_per_node": residentBytes() / nodes, "resident_bytes": residentBytes(),
                "one_view": isOneView,
            ])
    }

    /// So many at once.
    func join(_ count: Int) {
        let (began, expected) = (simulation.now, count * (running.count + count - 1))
        simulation.watch()
        let newcomers = (0..<count).map { _ in simulation.start() }
        newcomers.forEach(simulation.watch)
        running += newcomers
        simulation.run(.milliseconds(500))
        let callersWithout = newcomers.reduce(0) { $0 + simulation.callersWithout($1) }
        simulation.run(.seconds(10)) { self.simulation.delays(since: began).count >= expected }
        var fields = figures(since: began, of: expected)
        fields["callers_without_after_0.5_s"] = callersWithout
        let complete = simulation.run(.seconds(60)) { self.isOneView }
        fields["newcomers_complete_s"] = complete ? (simulation.now - began).seconds : -1
        line("join", since: began, fields)
    }

    /// So many at once, each somewhere else.
    func crash(_ count: Int) {
        let (began, interval) = (simulation.now, simulation.interval)
        simulation.watch()
        for part in 1...count {
            let number = running.remove(at: running.count * part / (count + 1))
            simulation.watch(number)
            simulation.crash(number)
        }
        let expected = count * running.count
        simulation.run(interval * 4, lookingEvery: .seconds(1)) {
            self.simulation.delays(since: began).count >= expected
        }
        var fields = figures(since: began, of: expected)
        fields["interval_s"] = interval.seconds
        line("crash", since: began, fields)
    }

    func leave() {
        let began = simulation.now
        let number = running.remove(at: running.count / 3)
        simulation.watch()
        simulation.watch(number)
        simulation.stop(number)
        simulation.run(.seconds(2))
        line("leave", since: began, figures(since: began, of: running.count))
    }

    /// Cuts the group in two until both sides have given each other up, and heals it.
    func cut(share: Int) {
        let number = running[running.count * share / 100]
        let (small, large) = (running.count { $0 < number }, running.count { $0 >= number })
        let began = simulation.now
        simulation.cut(below: number)
        let limit = simulation.interval * 5
        let isApart = simulation.run(limit, lookingEvery: .seconds(1)) {
            self.simulation.agreeing(on: small) + self.simulation.agreeing(on: large) == small + large
        }
        let cutPeak = peak(since: began)
        // Both sides find the paces of their own.
        simulation.run(simulation.interval / 2)
        let healed = simulation.now
        simulation.cut(below: nil)
        let isWhole = simulation.run(.seconds(60)) { self.isOneView }
        line(
            "cut", since: began,
            [
                "sides": [small, large], "apart": isApart, "apart_peak_packets_per_s": cutPeak,
                "healed": isWhole, "heal_s": (simulation.now - healed).seconds,
                "heal_peak_packets_per_s": peak(since: healed),
                "heal_peak": simulation.packetsBySecond[busiest(since: healed)] ?? [:],
                "agreeing": simulation.agreeing(on: nodes),
            ])
    }

    // MARK: Figures

    private var isOneView: Bool { simulation.agreeing(on: running.count) == running.count }

    private func figures(since: Instant, of expected: Int) -> [String: Any] {
        let delays = simulation.delays(since: since)
        guard let last = delays.last else { return ["seen_by": 0, "of": expected] }
        return [
            "seen_by": delays.count, "of": expected, "max_s": last.seconds,
            "p99_s": delays[min(delays.count - 1, expected * 99 / 100)].seconds,
            "p50_s": delays[delays.count / 2].seconds,
        ]
    }

    private func seconds(since: Instant) -> Range<Int> {
        Int(since.nanoseconds / 1_000_000_000)..<Int(simulation.now.nanoseconds / 1_000_000_000)
    }

    private func rate(since: Instant) -> Double {
        let seconds = seconds(since: since)
        return Double(seconds.reduce(0) { $0 + packets(in: $1) })
            / Double(seconds.count)
    }

    private func packets(in second: Int) -> Int {
        simulation.packetsBySecond[second]?.values.reduce(0, +) ?? 0
    }

    private func peak(since: Instant) -> Int { packets(in: busiest(since: since)) }

    private func busiest(since: Instant) -> Int {
        (seconds(since: since).lowerBound...Int(simulation.now.nanoseconds / 1_000_000_000))
            .max { packets(in: $0) < packets(in: $1) } ?? 0
    }

    private func line(_ what: String, since: Instant, _ fields: [String: Any]) {
        var fields = fields
        fields["what"] = what
        fields["sent"] = simulation.packetsByKind
        fields["nodes"] = running.count
        fields["peak_packets_per_s"] = peak(since: since)
        fields["virtual_s"] = (simulation.now - since).seconds
        fields["real_s"] = (ContinuousClock.now - began).seconds
        printLine(fields)
        fflush(nil)
    }
}

extension Duration {
    /// To the millisecond.
    fileprivate var seconds: Double { Double(nanoseconds / 1_000_000) / 1000 }
}

private func processorSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

private func residentBytes() -> Int {
    let pages = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ")
    return (pages.flatMap { $0.count > 1 ? Int($0[1]) : nil } ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
}
