package import CastnetCore

extension UnicastSimulation {
    /// What a simulation does: all of it follows from the seed.
    package struct Scenario: Sendable {
        package var seed: UInt64
        package var nodes = 3
        package var topics: [TopicPlan] = []
        package var messages = 60
        /// The time in which messages are sent and trouble happens.
        package var time: Duration = .seconds(3)
        package var troubles: [UnicastTrouble] = []
        package var latency: ClosedRange<Duration> = .microseconds(50)...(.milliseconds(1))
        package var pendingCalls = 65_536
        package var perPeer = 64
        package var connections = 1024
        package var hellos = 1000
        /// The nodes that send messages; nil: all of them.
        package var callers: [Int]?
        /// How long a process is busy with each piece that arrives, one after the other.
        package var processing: Duration = .zero
        /// Until others know that a node has come or gone.
        package var directoryDelay: ClosedRange<Duration> = .milliseconds(1)...(.milliseconds(200))

        package init(seed: UInt64) { self.seed = seed }

        /// True where nothing goes wrong: then every message is handled, in order.
        package var isCalm: Bool { troubles.isEmpty }
    }

    /// A topic: its policy, its servers and what is asked of them.
    package struct TopicPlan: Sendable {
        package var topic: Topic
        package var route: Route
        /// The nodes that serve it.
        package var servers: [Int]
        package var concurrency = 1
        package var deadline: ClosedRange<Duration> = .seconds(30)...(.seconds(30))
        package var sizes: ClosedRange<Int> = 32...200
        package var work: ClosedRange<Duration> = .zero...(.milliseconds(5))
        /// Of a hundred handlers, how many refuse, and how many hand back.
        package var rejected = 0
        package var released = 0
    }
}

/// What happens to nodes of a ``UnicastSimulation``.
package enum UnicastTrouble: Sendable {
    /// The process is killed; others notice after a while. A new start of it follows, or none.
    case kill(Int, at: Duration, noticed: Duration, back: Duration?)
    /// The host loses its power: nobody is told, its connections fall silent.
    case powerOff(Int, at: Duration, noticed: Duration, back: Duration?)
    /// The node is told to stop, and a new start follows.
    case restart(Int, at: Duration, drain: Duration, back: Duration)
    /// Nothing passes between two hosts for a while.
    case block(Int, Int, Range<Duration>)
    /// Some connection is reset.
    case reset(at: Duration)

    /// When it is over.
    var end: Duration {
        switch self {
        case .kill(_, let at, let noticed, let back), .powerOff(_, let at, let noticed, let back):
            max(at + noticed, back ?? .zero)
        case .restart(_, let at, let drain, let back): max(at + drain, back)
        case .block(_, _, let time): time.upperBound
        case .reset(let at): at
        }
    }
}

extension UnicastSimulation.Scenario {
    /// A scenario of everything at once that the seed decides on: every fourth one without trouble.
    package static func random(seed: UInt64) -> Self {
        var dice = Dice(seed: seed &* 6_364_136_223_846_793_005)
        var scenario = Self(seed: seed)
        scenario.nodes = dice.pick([2, 3, 3, 4, 5, 6])
        scenario.messages = dice.pick([20, 60, 60, 150, 400])
        scenario.latency = .microseconds(dice.pick([20, 50]))...(.microseconds(dice.pick([60, 500, 5000])))
        for index in 0..<dice.pick([1, 1, 2, 3]) {
            scenario.topics.append(.random(index, nodes: scenario.nodes, &dice))
        }
        scenario.pendingCalls = dice.pick([65_536, 65_536, 65_536, 16, 3])
        // One for each persistent topic, or the last of them gets none for ever.
        let persistent = scenario.topics.map(\.route.connections).reduce(0, +)
        scenario.perPeer = dice.pick([64, 64, 64, persistent + 2])
        // As many are accepted as dialled; topics that are promoted have one more.
        let enough = 2 * (scenario.nodes - 1) * (persistent + scenario.topics.count + 1) + 8
        scenario.connections = dice.pick([1024, 1024, 1024, enough])
        if seed % 4 > 0 {
            let troubles = dice.pick([1, 1, 2, 3, 5])
            for _ in 0..<troubles { scenario.troubles.append(.random(in: scenario, &dice)) }
        }
        return scenario
    }
}

extension UnicastSimulation.TopicPlan {
    fileprivate static func random(_ index: Int, nodes: Int, _ dice: inout Dice) -> Self {
        var route = Route(carrier: dice.pick([.persistent, .ephemeral]))
        route.balance = dice.pick([.roundRobin, .leastOutstanding, .capacity])
        route.settle = dice.pick([.received, .processed])
        route.retry = dice.pick([.none, .otherMember, .otherMember, .same])
        route.idempotent = dice.chance(1, of: 3)
        route.attempts = dice.pick([2, 2, 1, 3, 5])
        route.linger = .milliseconds(dice.pick([0, 20, 5000]))
        route.share = !dice.chance(1, of: 5)
        route.connections = dice.pick([1, 1, 1, 3])
        route.heartbeatInterval = .milliseconds(dice.pick([100, 500, 2000]))
        route.backlog = dice.pick([10_000, 10_000, 20, 2])
        route.mandatory = dice.chance(1, of: 8)
        if dice.chance(1, of: 6) { route.promote = Route.Promotion(afterPerMinute: 300, backPerMinute: 60) }
        var plan = Self(
            topic: Topic(unchecked: "t\(index)"), route: route,
            servers: (0..<nodes).filter { _ in dice.chance(2, of: 3) })
        if plan.servers.isEmpty { plan.servers = [nodes - 1] }
        plan.concurrency = dice.pick([1, 1, 2, 8])
        plan.sizes = dice.pick([32...200, 32...200, 32...40_000, 32...400_000])
        plan.work = .zero...(.milliseconds(dice.pick([0, 1, 10, 100, 1000])))
        let shortest: Duration = .milliseconds(dice.pick([5, 50, 500, 2000]))
        plan.deadline = dice.pick([.seconds(30)...(.seconds(30)), shortest...(.seconds(3))])
        if dice.chance(1, of: 3) { plan.rejected = 20 }
        if dice.chance(1, of: 3) { plan.released = 20 }
        return plan
    }
}

extension UnicastTrouble {
    fileprivate static func random(in scenario: UnicastSimulation.Scenario, _ dice: inout Dice) -> Self {
        let node = dice.number(below: scenario.nodes)
        let at = dice.time(upTo: scenario.time)
        let noticed = dice.pick([Duration.milliseconds(1), .milliseconds(200), .seconds(3)])
        let back: Duration? = dice.chance(2, of: 3) ? at + noticed + dice.time(upTo: .seconds(1)) : nil
        switch dice.number(below: 8) {
        case 0, 1: return .kill(node, at: at, noticed: noticed, back: back)
        case 2: return .powerOff(node, at: at, noticed: noticed, back: back)
        case 3, 4:
            let drain = dice.pick([Duration.zero, .milliseconds(100), .seconds(5)])
            return .restart(node, at: at, drain: drain, back: at + drain + dice.time(upTo: .seconds(1)))
        case 5:
            return .block(node, dice.number(below: scenario.nodes), at..<at + dice.time(upTo: .seconds(6)))
        default: return .reset(at: at)
        }
    }
}

/// Random choices of a scenario.
struct Dice {
    var generator: SeededGenerator

    init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

    mutating func pick<Value>(_ values: [Value]) -> Value { values[number(below: values.count)] }
    mutating func number(below limit: Int) -> Int { Int.random(in: 0..<limit, using: &generator) }
    mutating func number(in range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &generator) }
    mutating func chance(_ count: Int, of all: Int) -> Bool { number(below: all) < count }
    mutating func time(upTo end: Duration) -> Duration { time(in: .zero...end) }
    mutating func time(in range: ClosedRange<Duration>) -> Duration {
        let bounds = range.lowerBound.nanoseconds...range.upperBound.nanoseconds
        return .nanoseconds(Int64.random(in: bounds, using: &generator))
    }
}
