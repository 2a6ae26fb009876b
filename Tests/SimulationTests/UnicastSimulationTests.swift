import CastnetCore
import CastnetTestKit
import Testing

@Suite("Calls and casts in virtual time")
struct UnicastSimulationTests {
    /// `Simulator unicast-seeds` runs thousands, and has all that these have.
    @Test(
        "under kills, stops, cuts and short deadlines every message ends once, as its sender was told",
        arguments: [
            0, 1, 2, 3, 5, 9, 10, 11,
            // A link on which messages were turned away was closed for want of use.
            49,
            // A received cast left no room with its member.
            37,
            // A node that was stopped released what may have been executed.
            145,
            // A link whose message had expired before it was there stayed for ever.
            941,
        ] as [UInt64])
    func seeds(seed: UInt64) {
        let outcome = UnicastSimulation(.random(seed: seed)).run()
        #expect(outcome.messages > 0)
        #expect(outcome.faults.first == nil)
    }

    #if DEBUG
        @Test(
            "the oracle finds bugs that are put in on purpose",
            arguments: [PlantedBug.forgetsParked, .overworks, .favoursOne])
        func planted(bug: PlantedBug) {
            let isFound = PlantedBug.$planted.withValue(bug) {
                (0..<UInt64(60)).contains { !UnicastSimulation(.random(seed: $0)).run().faults.isEmpty }
            }
            #expect(isFound)
        }
    #endif
}
