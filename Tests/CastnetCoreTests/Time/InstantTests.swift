import CastnetCore
import Testing

@Suite struct InstantTests {
    private static let edges: [Int64] = [
        0, 1, -1, 999_999_999, 9_223_372_036, 9_223_372_037, -9_223_372_037, 25_000_000_000, -25_000_000_000,
        .max / 1_000_000_000, .max - 1, .max, .min + 1, .min,
    ]

    @Test(arguments: edges) func `a duration keeps its nanoseconds`(nanoseconds: Int64) {
        #expect(Duration(nanoseconds: nanoseconds) == .nanoseconds(nanoseconds))
        #expect(Duration(nanoseconds: nanoseconds).nanoseconds == nanoseconds)
    }

    @Test func `what is not a whole nanosecond is cut towards zero`() {
        let odd = Duration(attoseconds: Int128(30_000_000_000) * 1_000_000_000 + 999_999_999)
        #expect(odd.nanoseconds == 30_000_000_000)
        #expect((.zero - odd).nanoseconds == -30_000_000_000)
    }

    @Test func `durations beyond 292 years saturate`() {
        let year = Duration.seconds(365 * 86_400)
        #expect((year * 292).nanoseconds == 365 * 86_400 * 292 * 1_000_000_000)
        for years in [293, 1000, 1_000_000] {
            #expect((year * years).nanoseconds == .max)
            #expect((.zero - year * years).nanoseconds == .min)
        }
    }

    @Test(arguments: edges, edges) func `instants saturate instead of trapping`(at: Int64, by: Int64) {
        let (instant, duration) = (Instant(nanoseconds: at), Duration(nanoseconds: by))
        func clamped(_ exact: Int128) -> Int64 { Int64(clamping: exact) }
        #expect((instant + duration).nanoseconds == clamped(Int128(at) + Int128(by)))
        #expect((instant - duration).nanoseconds == clamped(Int128(at) - Int128(by)))
        #expect((instant - Instant(nanoseconds: by)).nanoseconds == clamped(Int128(at) - Int128(by)))
    }
}
