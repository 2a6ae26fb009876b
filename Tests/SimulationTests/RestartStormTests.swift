import CastnetCore
import CastnetTestKit
import Testing

@Suite("Members killed and started again together, in virtual time")
struct RestartStormTests {
    /// `Simulator restart-storm` does so with 64.
    @Test(
        "all can be called again, others feel nothing, whether or not the pace is asked for",
        arguments: [1000, 2])
    func storm(hellos: Int) {
        var storm = RestartStorm(seed: 3)
        storm.restarted = 8
        storm.bystanders = 3
        storm.callers = 3
        storm.callsPerSecond = 60
        storm.calm = .seconds(4)
        storm.hellos = hellos
        let figures = storm.run()
        #expect(figures.faults.first == nil)
        #expect(figures.callableAfter.map { $0 <= .seconds(10) } == true)
        #expect(figures.failed == 0 && figures.calls > 1000)
        #expect(figures.p99Before > .zero && figures.p99During <= figures.p99Before * 2)
        #expect(figures.linksDuring <= 2 * figures.linksBefore)
        #expect((figures.paced > 0) == (hellos == 2))
    }
}
