public import Castnet

/// A carrier as the conformance kit meets it: how to configure nodes that use it, and what it carries.
///
/// The kit knows carriers only by this value, so the same checks hold for all of them, also for one that
/// somebody else writes.
public struct CarrierUnderTest: Sendable, CustomStringConvertible {
    /// What it is called in failures.
    public var name: String
    /// The carrier that receivers must see.
    public var carrier: Carrier
    /// The kinds of message it carries.
    public var kinds: Set<MessageKind>
    /// What a receipt says of a member that got a fanout by it.
    public var delivered: Receipt.Outcome
    /// True: sender and members are one node.
    public var isWithinOneNode: Bool
    /// The text of the configuration file of one node.
    public var configuration: @Sendable (ConformancePlace) -> String

    /// Describes a carrier.
    public init(
        name: String, carrier: Carrier, kinds: Set<MessageKind> = Set(MessageKind.allCases),
        delivered: Receipt.Outcome, isWithinOneNode: Bool = false,
        configuration: @escaping @Sendable (ConformancePlace) -> String
    ) {
        self.name = name
        self.carrier = carrier
        self.kinds = kinds
        self.delivered = delivered
        self.isWithinOneNode = isWithinOneNode
        self.configuration = configuration
    }

    /// Its name.
    public var description: String { name }
}

/// Which node of which check a configuration is for: checks that run at the same time share nothing.
public struct ConformancePlace: Sendable {
    /// The node's place among the check's nodes, from 0.
    public var node: Int
    /// The first of ten UDP ports of this check alone.
    public var port: Int
    /// What may wait in one subscription, in bytes.
    public var backlog: Int
    /// The largest message, in bytes.
    public static let messageMax = 5 << 20

    /// A node's name.
    public var name: String { "node-\(node)" }
}

extension CarrierUnderTest {
    /// The three carriers of the library and the own node's memory.
    public static let all: [CarrierUnderTest] = [.multicast, .persistent, .ephemeral, .local]

    /// Fanouts by OpenPGM.
    public static let multicast = CarrierUnderTest(
        name: "multicast", carrier: .multicast, kinds: [.fanout], delivered: .multicast
    ) { place in
        let rule = #"{match: "**", kinds: [fanout], carrier: multicast, channel: all, fallback: none}"#
        return text(place, rule: rule) + """
            channels:
              all: {group: 239.192.7.11, port: \(place.port + 1), retention: 32MiB, window: 4096}

            """
    }

    /// Everything over connections that stay open.
    public static let persistent = CarrierUnderTest(
        name: "persistent", carrier: .persistent, delivered: .unicast
    ) { text($0, rule: #"{match: "**", carrier: persistent}"#) }

    /// Everything over connections that close soon after their last message.
    public static let ephemeral = CarrierUnderTest(
        name: "ephemeral", carrier: .ephemeral, delivered: .unicast
    ) { text($0, rule: #"{match: "**", carrier: ephemeral, linger: 50ms}"#) }

    /// Everything to members of the sender's own node.
    public static let local = CarrierUnderTest(
        name: "local", carrier: .local, delivered: .local, isWithinOneNode: true
    ) { text($0, rule: #"{match: "**", carrier: ephemeral}"#) }

    private static func text(_ place: ConformancePlace, rule: String) -> String {
        """
        node:
          name: \(place.name)
          listen: "127.0.0.1:0"
          interface: lo
          cluster: conformance-\(place.port)
        directory: {beacon: {group: 239.192.0.1, port: \(place.port), interval: \(100 * Patience.factor)ms}}
        limits:
          message: \(ConformancePlace.messageMax)B
          subscription-backlog: \(place.backlog)B
        policies:
          - \(rule)

        """
    }
}
