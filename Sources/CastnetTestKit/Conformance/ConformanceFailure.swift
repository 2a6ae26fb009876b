/// What a carrier did that it must not do, or did not do that it must.
public struct ConformanceFailure: Error, Sendable, CustomStringConvertible {
    /// What happened.
    public var description: String

    /// Says what happened.
    public init(_ description: String) { self.description = description }
}

/// Ends a check that found something wrong.
func expect(_ condition: Bool, _ what: @autoclosure () -> String) throws {
    if !condition { throw ConformanceFailure(what()) }
}

/// Waits until `condition` holds; fails the check when it takes longer than `limit`.
func waitUntil(
    _ what: String, limit: Duration = .seconds(15), _ condition: () async throws -> Bool
) async throws {
    let clock = ContinuousClock()
    let deadline = clock.now + limit
    while try await !condition() {
        guard clock.now < deadline else { throw ConformanceFailure("timed out waiting for \(what)") }
        try await clock.sleep(for: .milliseconds(2))
    }
}
