#if Redis
    import CastnetCore
    import Testing

    @testable import Castnet

    /// What waits between a store's thread and the directory.
    @Suite struct StoreNewsTests {
        private func record(_ name: String, _ version: UInt64 = 1) -> NodeRecord {
            NodeRecord(identity: NodeIdentity(name: name, incarnation: Incarnation(1)), version: version)
        }

        private func text(_ event: DiscoveryEvent?) -> String {
            switch event {
            case .found(let node): "\(node.name) \(node.version)"
            case .gone(let name): "\(name) gone"
            case nil: "end"
            }
        }

        @Test func `only the newest of each node waits, in the order of the first`() async {
            let news = StoreNews(counters: NodeCounters())
            for version in 1...1000 as ClosedRange<UInt64> {
                news.found(record("a", version))
                news.found(record("b", version))
            }
            news.gone("b")
            news.found(record("c"))
            var reader = news.makeAsyncIterator()
            for expected in ["a 1000", "b gone", "c 1"] {
                let event = await reader.next()
                #expect(text(event) == expected)
            }
        }

        @Test func `a reader that waits is told at once, and ends when it is cancelled`() async {
            let news = StoreNews(counters: NodeCounters())
            let reader = Task {
                var told: [String] = []
                for await event in news { told.append(text(event)) }
                return told
            }
            for number in 0..<100 {
                news.found(record("n\(number)"))
                await Task.yield()
            }
            reader.cancel()
            let told = await reader.value
            #expect(told == (0..<told.count).map { "n\($0) 1" })
        }
    }
#endif
