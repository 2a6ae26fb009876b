import CastnetCore
import Testing

@Suite("Patterns")
struct PoliciesPatternTests {
    @Test(
        "match as documented",
        arguments: [
            ("scheduler", "scheduler", true), ("scheduler", "schedulers", false), ("*", "a", true),
            ("*", "a.b", false), ("**", "a", true), ("**", "a.b.c", true), ("a.*", "a", false),
            ("a.*", "a.b", true), ("a.**", "a", true), ("a.**", "a.b.c", true), ("a.**", "b", false),
            ("**.c", "c", true), ("**.c", "a.b.c", true), ("**.c", "a.c.b", false), ("a.**.c", "a.c", true),
            ("a.**.c", "a.b.c.c", true), ("a.*.**", "a", false), ("a.*.**", "a.b", true),
            ("**.a.**.a.**", "a.b.a", true), ("**.a.**.a.**", "b.a.b", false), ("A", "a", false),
        ])
    func matches(pattern: String, topic: String, expected: Bool) throws {
        #expect(try TopicPattern(pattern).matches(Topic(topic)) == expected)
    }

    /// Every topic of up to 8 segments over two named letters and one that nobody names would be 3⁸ topics
    /// a pattern; patterns of up to three segments cannot tell topics beyond four segments apart.
    @Test("cover each other exactly when the topics say so")
    func coversAgreesWithBruteForce() throws {
        let topics = try Self.topics(over: ["a", "b", "z"], longest: 5).map { try Topic($0) }
        let patterns = try Self.topics(over: ["a", "b", "*", "**"], longest: 3).map { try TopicPattern($0) }
        let sets = patterns.map { pattern in topics.map { pattern.matches($0) } }
        for (left, leftSet) in zip(patterns, sets) {
            for (right, rightSet) in zip(patterns, sets) {
                let expected = zip(leftSet, rightSet).allSatisfy { $0 || !$1 }
                #expect(left.covers(right) == expected, "\(left) covers \(right)")
                let common = left.overlap(with: right)
                #expect(
                    (common != nil) == zip(leftSet, rightSet).contains { $0 && $1 }, "\(left) meets \(right)")
                if let common { #expect(left.matches(common) && right.matches(common)) }
            }
        }
    }

    @Test("of eight segments count the end of all topics")
    func coversKnowsTheLongestTopic() throws {
        let eight = try TopicPattern("*.*.*.*.*.*.*.*")
        #expect(
            try eight.covers(
                TopicPattern("*.*.*.*.*.*.*.*.**".split(separator: ".").dropLast().joined(separator: "."))))
        #expect(try TopicPattern("*.**").covers(.everything))
        #expect(try TopicPattern("**.**.**").covers(.everything))
        #expect(try eight.covers(TopicPattern("a.*.*.*.*.*.*.**")) == false)
    }

    private static func topics(over letters: [String], longest: Int) -> [String] {
        var all: [String] = []
        var level = letters
        for _ in 0..<longest {
            all += level
            level = level.flatMap { head in letters.map { "\(head).\($0)" } }
        }
        return all
    }
}
