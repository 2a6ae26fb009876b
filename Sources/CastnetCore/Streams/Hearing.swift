/// Whether a stream's frames come to this member by the group.
///
/// A sender that hears nothing of a member tells it over a link how far the stream is. A member that is told
/// so twice, and hears nothing of the group before, between and for a while, knows that it is deaf: once is
/// what it is told after an outage of everything. It is not deaf any more once it has heard the group for
/// longer without being told so.
struct Hearing: Sendable {
    private var groupAt: Instant
    /// When it was told first since the group was heard.
    private var toldAt: Instant?
    /// Since when the group is heard again; nil: it is not.
    private var backSince: Instant?
    /// True: what comes, comes over a link.
    private(set) var isDeaf = false

    /// What is told within so long is told once.
    private static let pause = Duration.milliseconds(100)
    private static let silence = Duration.milliseconds(300)
    private static let proof = Duration.seconds(1)

    init(now: Instant) { groupAt = now }

    /// A frame or a head came by the group; true when this member is no longer deaf.
    mutating func heardGroup(now: Instant) -> Bool {
        groupAt = now
        toldAt = nil
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
        let first = toldAt ?? now
        toldAt = first
        guard !isDeaf, now >= first + Self.pause else { return false }
        isDeaf = true
        return true
    }
}
