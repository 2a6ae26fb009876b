import DequeModule

/// How many links may be open, and who gives way when there are too many.
///
/// A few of them are a reserve for repair and for the persistent links of this node, so that a crowd at the
/// listener takes neither away. Who has connected and not said who it is (a stranger) makes room for the
/// next one: a node says its hello at once, a crowd that means harm does not.
package struct LinkBudget: Sendable {
    /// What becomes of a new connection.
    package enum Verdict: Hashable, Sendable {
        case take
        /// Close this stranger, then ask again: the limit of all links is reached.
        case displace(UInt64)
        /// The same where one address has as many connections as it may have.
        case displaceOfAddress(UInt64)
        /// Close an idle ephemeral link, then ask again; where there is none, only the reserve is left.
        case closeIdle
        /// Too many of one address, all of which have said who they are.
        case refuseAddress
    }

    /// What the process may open, and what it has open already.
    package struct Descriptors: Hashable, Sendable {
        package var max: Int
        package var used: Int
        package init(max: Int, used: Int) {
            self.max = max
            self.used = used
        }
    }

    /// Kept for everything that is no link: listeners, the admin page, channels, the application's files.
    package static let otherDescriptors = 48
    private static let reserveMax = 16
    /// Connections past the budget that are accepted, to be closed again, in one window of time.
    private static let crowdMax = 32
    private static let crowdWindow = Duration.milliseconds(10)

    /// All links that may be open.
    package let linksMax: Int
    /// Those of them that are for everybody.
    package let ordinaryMax: Int
    private let perAddressMax: Int
    /// Links that are open.
    package private(set) var openCount = 0
    private var perAddress: [String: Int] = [:]
    /// Accepted links whose peer has not said who it is, with their addresses.
    private var strangers: [UInt64: String] = [:]
    /// The same, the oldest first; may hold some that are strangers no longer.
    private var order = Deque<UInt64>()
    private var crowdSince = Instant(nanoseconds: .min / 2)
    private var crowd = 0

    package init(connections: Int, perAddress: Int, descriptors: Descriptors?) {
        var most = max(1, connections)
        if let descriptors {
            let free = descriptors.max - descriptors.used
            most = min(most, max(4, free - min(Self.otherDescriptors, free / 2)))
        }
        linksMax = most
        ordinaryMax = most - min(Self.reserveMax, most / 16)
        perAddressMax = max(1, perAddress)
    }

    /// What becomes of a connection from `address` (empty: none, a Unix-domain socket's) while `dialling`
    /// dials are on their way.
    package mutating func verdict(for address: String, dialling: Int) -> Verdict {
        if isFull(for: address) {
            let oldest = order.first { strangers[$0] == address }
            return oldest.map { .displaceOfAddress($0) } ?? .refuseAddress
        }
        if openCount + dialling < ordinaryMax { return .take }
        if let oldest = oldestStranger() { return .displace(oldest) }
        return .closeIdle
    }

    /// True while `address` has as many connections as one may have.
    private func isFull(for address: String) -> Bool {
        !address.isEmpty && perAddress[address, default: 0] >= perAddressMax
    }

    /// Whether a connection that finds no room among the ordinary links may be taken for repair: any other
    /// hello is refused.
    package func hasReserve(dialling: Int) -> Bool { openCount + dialling < linksMax }

    /// True while more links are open than everybody may have.
    package var isInReserve: Bool { openCount > ordinaryMax }

    /// A connection was taken.
    package mutating func accepted(_ link: UInt64, from address: String) {
        openCount += 1
        if !address.isEmpty { perAddress[address, default: 0] += 1 }
        strangers[link] = address
        order.append(link)
        if order.count > 64 + 2 * strangers.count { order.removeAll { strangers[$0] == nil } }
    }

    /// The peer has said who it is.
    package mutating func introduced(_ link: UInt64) { strangers[link] = nil }

    /// A dial made a connection.
    package mutating func dialled() { openCount += 1 }

    /// A link is open no longer; `address` is that of an accepted one.
    package mutating func closed(_ link: UInt64, from address: String?) {
        openCount -= 1
        strangers[link] = nil
        guard let address, let count = perAddress[address] else { return }
        perAddress[address] = count > 1 ? count - 1 : nil
    }

    /// A connection found the budget used up. Past a few of them within a moment: until when none should be
    /// accepted, so that a crowd costs no more of the processor, however fast it comes.
    package mutating func crowded(now: Instant) -> Instant? {
        if now >= crowdSince + Self.crowdWindow {
            crowdSince = now
            crowd = 0
        }
        crowd += 1
        return crowd >= Self.crowdMax ? crowdSince + Self.crowdWindow : nil
    }

    private mutating func oldestStranger() -> UInt64? {
        while let first = order.first {
            if strangers[first] != nil { return first }
            order.removeFirst()
        }
        return nil
    }
}
