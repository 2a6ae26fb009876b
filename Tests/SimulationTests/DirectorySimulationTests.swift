import CastnetCore
import CastnetTestKit
import Testing

@Suite struct DirectorySimulationTests {
    private func group(_ processors: Int) -> DirectorySimulation {
        var settings = DirectorySimulation.Settings()
        (settings.nodes, settings.loss, settings.seed) = (150, 0.02, 9)
        let simulation = DirectorySimulation(settings, processors: processors)
        for _ in 0..<150 { simulation.start() }
        return simulation
    }

    @Test func `a group comes out alike on any number of processors`() {
        let (one, three) = (group(1), group(3))
        for simulation in [one, three] { simulation.run(.seconds(5)) }
        #expect(one.packets == three.packets)
        for counter in Counter.allCases { #expect(one.count(counter) == three.count(counter)) }
    }

    @Test func `two halves that met again are one view at once`() {
        let simulation = group(1)
        #expect(simulation.run(.seconds(20)) { simulation.agreeing(on: 150) == 150 })
        simulation.run(.seconds(10))
        simulation.cut(below: 70)
        let isApart = simulation.run(.seconds(10)) {
            simulation.agreeing(on: 70) == 70 && simulation.agreeing(on: 80) == 80
        }
        #expect(isApart)
        simulation.cut(below: nil)
        #expect(simulation.run(.seconds(5)) { simulation.agreeing(on: 150) == 150 })
    }
}
