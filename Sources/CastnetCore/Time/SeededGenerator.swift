/// A small, fast, seeded random generator (SplitMix64): machines get their randomness handed in,
/// so a run in the simulator repeats from its seed.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// `duration` times a random factor out of `range`.
    package mutating func jitter(_ duration: Duration, in range: ClosedRange<Double>) -> Duration {
        Duration(nanoseconds: Int64(Double(duration.nanoseconds) * Double.random(in: range, using: &self)))
    }
}
