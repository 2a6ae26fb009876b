/// A route's settings as named values: what `explain`, diffs and tables print.
public struct RouteEntry: Hashable, Sendable {
    /// A setting's value.
    public enum Value: Hashable, Sendable, CustomStringConvertible {
        /// A word.
        case text(String)
        /// A count.
        case number(Int)
        /// Yes or no.
        case flag(Bool)
        /// A time.
        case duration(Duration)

        /// As a configuration file writes it.
        public var description: String {
            switch self {
            case .text(let text): text
            case .number(let number): "\(number)"
            case .flag(let flag): "\(flag)"
            case .duration(let duration): Quantity.text(duration)
            }
        }
    }

    /// The configuration key.
    public var key: String
    /// The setting.
    public var value: Value
}

extension Route {
    /// Every setting, in a fixed order, under its configuration key.
    public var entries: [RouteEntry] {
        let promotion = promote.map { "after \($0.afterPerMinute)/min, back \($0.backPerMinute)/min" }
        let all: [(String, RouteEntry.Value?)] = [
            ("carrier", .text(carrier.rawValue)),
            ("channel", channel.map { .text($0) }),
            ("fallback", .text(fallback.rawValue)),
            ("late-join", .text(lateJoin.rawValue)),
            ("heartbeat", .duration(heartbeatInterval)),
            ("connections", .number(connections)),
            ("balance", .text(balance.rawValue)),
            ("settle", .text(settle.rawValue)),
            ("retry", .text(retry.rawValue)),
            ("idempotent", .flag(idempotent)),
            ("attempts", .number(attempts)),
            ("linger", .duration(linger)),
            ("share", .flag(share)),
            ("promote", promotion.map { .text($0) }),
            ("deadline", .duration(deadline)),
            ("backlog", .number(backlog)),
            ("mandatory", .flag(mandatory)),
        ]
        return all.compactMap { key, value in value.map { RouteEntry(key: key, value: $0) } }
    }

    /// The settings that have an effect on this route's carrier.
    public var effectiveEntries: [RouteEntry] { entries.filter { !inertKeys.contains($0.key) } }

    /// The keys without effect on this route's carrier.
    package var inertKeys: Set<String> {
        let multicastOnly: Set = ["channel", "fallback", "late-join"]
        let linkOnly: Set = ["balance", "retry", "idempotent", "attempts"]
        let persistentOnly: Set = ["heartbeat", "connections"]
        let ephemeralOnly: Set = ["linger", "share", "promote"]
        switch carrier {
        case .multicast: return linkOnly.union(persistentOnly).union(ephemeralOnly)
        case .persistent: return multicastOnly.union(["share", "promote"])
        case .ephemeral: return promote == nil ? multicastOnly.union(persistentOnly) : multicastOnly
        case .local: return multicastOnly.union(linkOnly).union(persistentOnly).union(ephemeralOnly)
        }
    }
}
