import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

/// The channel machines in virtual time: every seed is a run of its own, printed when it fails.
@Suite struct ChannelSimulationTests {
    private typealias Scenario = ChannelSimulation.Scenario

    private func run(
        _ seeds: Range<UInt64>, _ shape: (inout Scenario, inout SeededGenerator) -> Void,
        each: (ChannelSimulation.Outcome) -> Void = { _ in }
    ) {
        for seed in seeds {
            var scenario = Scenario(seed: seed)
            var generator = SeededGenerator(seed: seed &* 7919)
            shape(&scenario, &generator)
            var simulation = ChannelSimulation(scenario)
            let outcome = simulation.run()
            #expect(outcome.faults == [], "seed \(seed): \(outcome)")
            each(outcome)
            if !outcome.faults.isEmpty { return }
        }
    }

    @Test("without loss everything arrives once and in order")
    func lossless() {
        run(0..<60) { scenario, generator in
            scenario.nodes = Int.random(in: 2...6, using: &generator)
            scenario.senders = Int.random(in: 1...min(3, scenario.nodes), using: &generator)
            scenario.topics = Int.random(in: 1...5, using: &generator)
            scenario.messages = 120
            scenario.frameDuplicate = seedIsOdd(scenario.seed) ? 0.05 : 0
            scenario.frameSizeMax = [480, 1448, 1448, 8900][Int.random(in: 0..<4, using: &generator)]
        }
    }

    @Test("small buffers and slow consumers hold the sender back and lose nothing")
    func pressed() {
        run(100..<140) { scenario, generator in
            scenario.nodes = 3
            scenario.senders = Int.random(in: 1...2, using: &generator)
            scenario.messages = 150
            scenario.sizes = 0...4000
            scenario.batchInterval = .microseconds(50)
            scenario.settings.receiveBuffer = Int.random(in: 48...256, using: &generator) << 10
            scenario.limits.subscriptionBacklog = 64 << 10
            scenario.slowConsumer = Double.random(in: 1e6...2e7, using: &generator)
            scenario.reportDrop = seedIsOdd(scenario.seed) ? 0.1 : 0
        }
    }

    @Test("a consumer that is slow holds its backlog at the limit")
    func backlog() {
        for seed in 150..<UInt64(160) {
            var scenario = Scenario(seed: seed)
            scenario.messages = 600
            scenario.sizes = 500...1000
            scenario.limits.subscriptionBacklog = 100_000
            scenario.slowConsumer = 2e6
            var simulation = ChannelSimulation(scenario)
            let outcome = simulation.run()
            #expect(outcome.faults == [], "seed \(seed): \(outcome)")
            #expect(outcome.backlogMax <= 100_000 + 10_000, "seed \(seed): \(outcome)")
        }
    }

    @Test("large messages of several topics interleave and arrive whole")
    func large() {
        run(200..<212) { scenario, generator in
            scenario.nodes = 3
            scenario.messages = 40
            scenario.topics = 3
            scenario.largeEvery = 6
            scenario.largeSize = 150_000
            scenario.senders = Int.random(in: 1...2, using: &generator)
        }
    }

    @Test("receipts claim nothing that members did not handle")
    func refusals() {
        run(160..<190) { scenario, generator in
            scenario.nodes = Int.random(in: 2...5, using: &generator)
            scenario.topics = 3
            scenario.refuse = 0.1
            scenario.frameDrop = seedIsOdd(scenario.seed) ? 0.1 : 0
            scenario.reportDrop = 0.1
            scenario.largeEvery = 20
            scenario.largeSize = 20_000
        }
    }

    @Test("who does not hear the group is served over links within two seconds, and hears it again")
    func deaf() {
        run(400..<430) { scenario, generator in
            scenario.nodes = Int.random(in: 2...6, using: &generator)
            scenario.topics = 2
            scenario.messages = 700
            scenario.batch = 3
            scenario.batchInterval = .milliseconds(20)
            scenario.deaf = .seconds(1)..<(.seconds(3))
            scenario.isSenderMute = seedIsOdd(scenario.seed)
        } each: { outcome in
            let (first, last) = (outcome.deafAt.first ?? .zero, outcome.backAt.last ?? .zero)
            #expect(first > .seconds(1) && first < .seconds(2))
            #expect(last > .seconds(3) && last < .seconds(6))
            #expect(outcome.deafAt.count == outcome.backAt.count)
        }
    }

    @Test("a tenth of the frames lost makes nobody deaf")
    func noFlapping() {
        run(430..<440) { scenario, _ in
            scenario.messages = 600
            scenario.batch = 3
            scenario.batchInterval = .milliseconds(20)
            scenario.frameDrop = 0.1
        } each: { outcome in
            #expect(outcome.deafAt.isEmpty)
        }
    }

    @Test("whatever is missing is declared, with exact ranges")
    func loss() {
        run(300..<370) { scenario, generator in
            scenario.nodes = Int.random(in: 2...5, using: &generator)
            scenario.senders = Int.random(in: 1...2, using: &generator)
            scenario.settings.repair = .pgmOnly
            scenario.frameDrop = [0.01, 0.05, 0.2, 0.4][Int.random(in: 0..<4, using: &generator)]
            scenario.frameDuplicate = 0.02
            scenario.reportDrop = 0.1
            scenario.largeEvery = 20
            scenario.largeSize = 20_000
            scenario.messages = 120
        }
    }

    @Test("what PGM gives up comes over TCP: nothing is missing")
    func repaired() {
        var (repaired, resent) = (0, 0)
        for seed in 600..<UInt64(680) {
            var scenario = Scenario(seed: seed)
            var generator = SeededGenerator(seed: seed &* 7919)
            scenario.nodes = Int.random(in: 2...7, using: &generator)
            scenario.senders = Int.random(in: 1...2, using: &generator)
            scenario.frameDrop = [0.01, 0.05, 0.2, 0.4][Int.random(in: 0..<4, using: &generator)]
            scenario.frameDuplicate = 0.02
            scenario.reportDrop = 0.1
            scenario.requestDrop = seedIsOdd(seed) ? 0.2 : 0
            scenario.largeEvery = 20
            scenario.largeSize = 20_000
            scenario.messages = 120
            var simulation = ChannelSimulation(scenario)
            let outcome = simulation.run()
            #expect(outcome.faults == [], "seed \(seed): \(outcome)")
            #expect(outcome.lost == 0, "seed \(seed): \(outcome)")
            (repaired, resent) = (repaired + outcome.repaired, resent + outcome.resent)
            if !outcome.faults.isEmpty { return }
        }
        #expect(repaired > 1000 && resent > 100, "\(repaired) repaired, \(resent) sent to the group again")
    }

    @Test("what the sender no longer keeps is declared lost on both sides, and the stream goes on")
    func beyondRetention() {
        var lost: UInt64 = 0
        run(700..<720) { scenario, generator in
            scenario.nodes = 2
            scenario.frameDrop = 0.4
            scenario.messages = 400
            scenario.sizes = 500...1000
            scenario.requestDrop = 0.7
            scenario.settings.retention = 64 << 10
            scenario.isRetentionShort = true
        } each: {
            lost += $0.lost
        }
        #expect(lost > 100)
    }

    @Test("a member that stops is named, the others go on, and it comes back")
    func pause() {
        for seed in 400..<UInt64(410) {
            var scenario = Scenario(seed: seed)
            scenario.nodes = 4
            scenario.pause = .seconds(3)
            scenario.settings.receiveBuffer = 128 << 10
            scenario.messages = 800
            scenario.batchInterval = .milliseconds(5)
            var simulation = ChannelSimulation(scenario)
            let outcome = simulation.run()
            #expect(outcome.faults == [], "seed \(seed): \(outcome)")
            #expect(outcome.stalls + outcome.holdups >= 1, "seed \(seed): \(outcome)")
            #expect(outcome.caughtUp >= 1 && outcome.lost == 0, "seed \(seed): \(outcome)")
            #expect(outcome.seconds < 8, "seed \(seed): \(outcome)")
        }
    }

    /// One of four members reads its subscription at 200 kB/s; the sender has a megabyte for it.
    private func shapeSlow(_ scenario: inout Scenario, _ slow: ChannelSettings.SlowMember) {
        scenario.nodes = 5
        scenario.messages = 1500
        scenario.sizes = 500...900
        scenario.batchInterval = .microseconds(100)
        scenario.settings.slow = slow
        scenario.limits.subscriptionBacklog = 64 << 10
        scenario.slowConsumer = 200_000
    }

    @Test("a slow member is named, gets everything at its own pace, and does not slow the others")
    func slowCatchesUp() {
        run(800..<812) { scenario, _ in
            shapeSlow(&scenario, .catchUp)
        } each: { outcome in
            #expect(outcome.holdups >= 1 && outcome.lost == 0, "\(outcome)")
            let others = outcome.lastAt[1...3].max() ?? .zero
            #expect(others < .seconds(1) && outcome.lastAt[4] > .seconds(3), "\(outcome)")
        }
    }

    @Test("with pace the others wait for a slow member that is not too slow")
    func slowPaces() {
        run(812..<818) { scenario, _ in
            shapeSlow(&scenario, .pace)
            scenario.slowConsumer = 1_500_000
        } each: { outcome in
            #expect(outcome.holdups == 0 && outcome.lost == 0 && outcome.repaired == 0)
        }
    }

    @Test("an evicted member loses what it missed, with exact ranges, and has what comes after")
    func slowIsEvicted() {
        var lost: UInt64 = 0
        run(818..<830) { scenario, _ in
            shapeSlow(&scenario, .evict)
            scenario.limits.subscriptionBacklog = 16 << 10
            scenario.slowConsumer = 50_000
        } each: { outcome in
            lost += outcome.lost
            #expect(outcome.holdups >= 1, "\(outcome)")
            let others = outcome.lastAt[1...3].max() ?? .zero
            #expect(others < .seconds(2.5), "\(outcome)")
        }
        #expect(lost > 0)
    }

    @Test("with pace the others wait for a member that stops for a while")
    func pausePaces() {
        run(830..<836) { scenario, _ in
            scenario.nodes = 4
            scenario.pause = .seconds(3)
            scenario.settings.slow = .pace
            scenario.settings.receiveBuffer = 128 << 10
            scenario.messages = 800
            scenario.batchInterval = .milliseconds(5)
        } each: { outcome in
            #expect(outcome.stalls == 0 && outcome.holdups == 0 && outcome.overflows == 0)
        }
    }

    @Test("a fixed rate is kept")
    func rate() {
        for seed in 500..<UInt64(505) {
            var scenario = Scenario(seed: seed)
            scenario.settings.rate = 1_000_000
            scenario.messages = 300
            scenario.sizes = 900...1100
            scenario.batchInterval = .microseconds(10)
            var simulation = ChannelSimulation(scenario)
            let outcome = simulation.run()
            #expect(outcome.faults == [], "seed \(seed): \(outcome)")
            #expect(outcome.seconds > 0.3 && outcome.seconds < 1.2, "seed \(seed): \(outcome)")
        }
    }

    private func seedIsOdd(_ seed: UInt64) -> Bool { seed % 2 == 1 }
}
