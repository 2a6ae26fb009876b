import CastnetCore
import CastnetTestKit
import Testing

@Suite("Calls and casts in virtual time")
struct UnicastSimulationTests {
    /// `Simulator unicast-seeds` runs thousands.
    @Test(
        "under kills, stops, cuts and short deadlines every message ends once, as its sender was told",
        arguments: 0..<UInt64(8))
    func seeds(block: UInt64) {
        for seed in block * 3..<(block + 1) * 3 {
            let outcome = UnicastSimulation(.random(seed: seed)).run()
            #expect(outcome.messages > 0)
            #expect(outcome.faults.first == nil, "seed \(seed)")
        }
    }

    /// Found by seeds that are long gone; what they did is told here.
    @Test(
        "what once went wrong stays mended",
        arguments: [
            // A full member called on a link that had been closed for want of use.
            49,
            // A received cast left no room with its member; what failed did not wake those behind it.
            37, 1755,
            // A node that was stopping called released what may have been executed.
            145, 915,
            // A link whose message had expired before it was there stayed for ever.
            941, 3190,
            // A reset that overtook the hello made the message look untouched.
            2325,
        ] as [UInt64])
    func mended(seed: UInt64) {
        #expect(UnicastSimulation(.random(seed: seed)).run().faults.first == nil)
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
