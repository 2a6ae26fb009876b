/// What handlers of tests do: nothing, for a while.
public enum HandlerWork {
    /// Takes as long as real work would.
    public static func take(_ duration: Duration) async throws { try await Task.sleep(for: duration) }
}
