/// Whether a stream's frames come to this member by the group.
///
/// A sender that hears nothing of a member tells it over a link how far the stream is. A member that is told
/// so, and has heard nothing of the group for a while, knows that it is deaf; it is not any more once it has
/// heard the group for longer without being told so.
struct Hearing: Sendable {
    private var groupAt: Instant
    /// Since when the group is heard again; nil: it is not.
    private var backSince: Instant?
    /// True: what comes, comes over a link.
    private(set) var isDeaf = false

    private static let silence = Duration.milliseconds(300)
    private static let proof = Duration.seconds(1)

    init(now: Instant) { groupAt = now }

    /// A frame or a head came by the group; true when this member is no longer deaf.
    mutating func heardGroup(now: Instant) -> Bool {
        groupAt = now
        guard isDeaf else { return false }
        let since = backSince ?? now
        backSince = since
        guard now >= since + Self.proof else { return false }
        isDeaf = false
        backSince = nil
        return true
    }

    /// The sender said over a link that the stream goes on; true when this member turns out to be deaf.
    mutating func toldByLink(now: Instant) -> Bool {
        guard now >= groupAt + Self.silence else { return false }
        backSince = nil
        defer { isDeaf = true }
        return !isDeaf
    }
}
