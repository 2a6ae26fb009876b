import Castnet
package import CastnetCore
import Synchronization

/// Many members are killed and started again together while callers go on calling them, and bystanders too.
///
/// A process is busy with each piece that arrives, so that a storm takes the time of callers and bystanders
/// as it would on a host.
package struct RestartStorm: Sendable {
    package var seed: UInt64
    /// How many members are killed.
    package var restarted = 64
    package var bystanders = 8
    package var callers = 8
    /// Each of the killed members serves all of these.
    package var topics = 2
    /// Calls a second of each caller, to each topic.
    package var callsPerSecond = 100
    package var carrier = Carrier.persistent
    /// What the killed members, and the others, have for `limits.hellos`.
    package var hellos = 1000
    /// `limits.pending-calls` of all: with few, calls to bystanders wait for those to the killed.
    package var pendingCalls = 65_536
    /// Before the storm, and during it.
    package var calm: Duration = .seconds(4)
    package var storm: Duration = .seconds(10)
    /// How long the killed processes are away.
    package var away: Duration = .seconds(1)

    package init(seed: UInt64) { self.seed = seed }

    /// What a storm came to.
    package struct Figures: Sendable {
        package var faults: [String] = []
        /// Since the kill, until every caller had called every new start; nil: some never did.
        package var callableAfter: Duration?
        /// Calls to bystanders that failed, at any time.
        package var failed = 0
        package var calls = 0
        package var p99Before: Duration = .zero
        /// Of those that were sent until every new start was called, or in all of the time for that.
        package var p99During: Duration = .zero
        /// Links that callers opened before the storm, and from then on.
        package var linksBefore = 0
        package var linksDuring = 0
        /// Links that were told to come back later.
        package var paced = 0
    }

    private var steady: Topic { Topic(unchecked: "steady") }

    private var scenario: UnicastSimulation.Scenario {
        var scenario = UnicastSimulation.Scenario(seed: seed)
        scenario.nodes = callers + bystanders + restarted
        scenario.callers = Array(0..<callers)
        scenario.hellos = hellos
        scenario.pendingCalls = pendingCalls
        scenario.processing = .microseconds(20)
        scenario.latency = .microseconds(50)...(.microseconds(500))
        scenario.time = calm + storm
        let killed = Array((callers + bystanders)..<scenario.nodes)
        scenario.topics = (0..<topics).map { plan(Topic(unchecked: "work-\($0)"), killed) }
        scenario.topics.append(plan(steady, Array(callers..<(callers + bystanders))))
        scenario.messages =
            callsPerSecond * callers * scenario.topics.count * Int(scenario.time.seconds.rounded(.up))
        // The directory hears of the new starts before it has missed the old ones.
        scenario.troubles = killed.map { .kill($0, at: calm, noticed: .seconds(3), back: calm + away) }
        return scenario
    }

    private func plan(_ topic: Topic, _ servers: [Int]) -> UnicastSimulation.TopicPlan {
        var plan = UnicastSimulation.TopicPlan(
            topic: topic, route: Route(carrier: carrier), servers: servers)
        plan.concurrency = 8
        plan.work = .zero...(.milliseconds(1))
        return plan
    }

    package func run() -> Figures {
        let simulation = UnicastSimulation(scenario)
        let opened = Mutex((before: 0, during: 0))
        let began = Instant(nanoseconds: 1_000_000_000)
        simulation.network.after(.seconds(1) + calm) {
            opened.withLock { $0.before = Self.links(simulation) }
        }
        simulation.network.after(.seconds(1) + calm + storm) {
            opened.withLock { $0.during = Self.links(simulation) - $0.before }
        }
        let outcome = simulation.run()
        var figures = Figures()
        figures.faults = outcome.faults
        (figures.linksBefore, figures.linksDuring) = opened.withLock { $0 }
        figures.paced = simulation.all.reduce(0) { $0 + Int($1.counters.values[.linkDialsPaced]) }
        let kill = began + calm
        // The first second fills the links.
        let before = simulation.oracle.latencies(of: [steady], sentIn: began + .seconds(1)..<kill)
        figures.callableAfter = callableAfter(kill, simulation)
        let end = kill + (figures.callableAfter ?? storm)
        let during = simulation.oracle.latencies(of: [steady], sentIn: kill..<end)
        let all = simulation.oracle.latencies(of: [steady], sentIn: began..<kill + storm)
        figures.failed = all.failed
        figures.calls = all.took.count + all.failed
        figures.p99Before = Self.p99(before.took)
        figures.p99During = Self.p99(during.took)
        return figures
    }

    private func callableAfter(_ kill: Instant, _ simulation: UnicastSimulation) -> Duration? {
        let anew = simulation.all.suffix(restarted).map(\.identity)
        let first = simulation.oracle.firstRuns(at: Set(anew))
        guard first.count == restarted, first.values.allSatisfy({ $0.count == callers }) else { return nil }
        return first.values.flatMap(\.values).max().map { $0 - kill }
    }

    private static func links(_ simulation: UnicastSimulation) -> Int {
        simulation.all.reduce(0) { $0 + Int($1.counters.values[.linkOpened]) }
    }

    private static func p99(_ sorted: [Duration]) -> Duration {
        sorted.isEmpty ? .zero : sorted[min(sorted.count - 1, sorted.count * 99 / 100)]
    }
}
