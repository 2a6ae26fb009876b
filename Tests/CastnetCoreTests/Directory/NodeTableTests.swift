import Testing

@testable import CastnetCore

@Suite struct NodeTableTests {
    private func entry(_ name: String, _ incarnation: UInt64) -> DirectoryEntry {
        DirectoryEntry(
            record: NodeRecord(identity: NodeIdentity(name: name, incarnation: Incarnation(incarnation))),
            sources: .beacon, interval: .seconds(1), now: Instant(nanoseconds: 0))
    }

    @Test func `the table holds what a dictionary would, whatever comes and goes`() {
        let seed = UInt64.random(in: .min ... .max)
        var generator = SeededGenerator(seed: seed)
        var (table, model): (NodeTable, [String: UInt64]) = (NodeTable(), [:])
        for step in UInt64(0)..<20_000 {
            let name = "node-\(Int.random(in: 0..<700, using: &generator))"
            if Int.random(in: 0..<5, using: &generator) < 3 {
                table[name] = entry(name, step)
                model[name] = step
            } else {
                #expect((table.remove(name) != nil) == (model.removeValue(forKey: name) != nil))
            }
            guard step % 500 == 0 else { continue }
            #expect(table.count == model.count)
            for (name, incarnation) in model {
                #expect(table[name]?.identity.incarnation.value == incarnation, "seed \(seed), step \(step)")
            }
            #expect(Set(table.entries.map(\.identity.name)) == Set(model.keys), "seed \(seed), step \(step)")
        }
    }

    @Test func `an entry is small`() {
        // Ten thousand nodes know ten thousand each in the simulator.
        #expect(MemoryLayout<DirectoryEntry>.stride <= 64)
    }

    @Test func `what few entries need goes back to nothing`() {
        var entry = entry("a", 1)
        #expect(entry.links == 0 && entry.probeAt == nil)
        entry.links = 2
        entry.reportedChannels["x"] = 7
        #expect(entry.links == 2 && entry.reportedChannels == ["x": 7])
        entry.links = 0
        entry.reportedChannels = [:]
        #expect(entry.links == 0 && entry.reportedChannels.isEmpty)
    }
}
