import CastnetCore
import Testing

@Suite("Table differences")
struct PoliciesDifferenceTests {
    private func rule(_ match: String, _ carrier: Carrier = .ephemeral, linger: Duration = .seconds(5))
        -> Policy
    {
        var route = Route(carrier: carrier)
        route.linger = linger
        return Policy(match: TopicPattern(unchecked: match), route: route)
    }

    @Test("equal tables do not differ")
    func equal() {
        let table = PolicyTable([rule("a"), rule("b")])
        #expect(table.changes(to: table).isEmpty)
    }

    @Test("changed, added, removed and moved rules are told apart")
    func kinds() {
        let old = PolicyTable([rule("a"), rule("b"), rule("c"), rule("d")])
        let new = PolicyTable([rule("d"), rule("a", linger: .seconds(1)), rule("c"), rule("e")])
        let changes = old.changes(to: new)
        #expect(changes.map(\.change) == [.moved, .changed, .removed, .added])
        #expect(changes[1].keys.map { [$0.key, $0.old, $0.new] } == [["linger", "5s", "1s"]])
        #expect(changes[1].description == "rule 1 (match a) changed: linger 5s → 1s")
        #expect(changes[0].description == "rule 0 (match d) moved, from place 3 to 0")
    }

    @Test("a rule whose kinds changed is one change")
    func conditions() {
        var other = rule("a")
        other.kinds = [.call]
        let changes = PolicyTable([rule("a")]).changes(to: PolicyTable([other]))
        #expect(changes.map(\.change) == [.changed])
        #expect(
            changes.first?.keys.map { [$0.key, $0.old, $0.new] } == [["kinds", "call, cast, fanout", "call"]])
    }
}
