/// A fault on the link between one host and the bridge.
package enum Fault: Sendable, Hashable {
    /// Loses packets at random.
    case drop(probability: Double, traffic: Traffic = .all, direction: Direction = .in)
    /// Delivers packets to the host twice, at random.
    case duplicate(probability: Double, traffic: Traffic = .all)
    /// Holds the link to a rate; what does not fit into 50 ms of queue is lost.
    case rate(bitsPerSecond: Int, direction: Direction = .both)
    /// Loses everything in both directions; the link itself stays up.
    case blackout
    /// Narrows the link at both ends.
    case mtu(Int)
    /// Takes the carrier away, as a pulled cable does; addresses and routes stay.
    case linkDown

    /// What a fault applies to. `all` includes ARP and IGMP.
    package enum Traffic: String, Sendable, Hashable, CaseIterable { case udp, tcp, all }

    /// Seen from the host: `in` is what it would receive.
    package enum Direction: String, Sendable, Hashable, CaseIterable {
        case `in`, out, both

        var single: [Direction] { self == .both ? [.in, .out] : [self] }
    }

    /// The nft table of the bridge's namespace that holds every packet fault.
    static let table = "lab"

    package static let rateRange = 8_000...100_000_000_000
}

// MARK: In words

extension Fault: CustomStringConvertible {
    /// The same words the command line takes.
    package var description: String {
        switch self {
        case .drop(let probability, let traffic, let direction): "drop \(probability) \(traffic) \(direction)"
        case .duplicate(let probability, let traffic): "dup \(probability) \(traffic)"
        case .rate(let bits, let direction): "rate \(bits)bit/s \(direction)"
        case .blackout: "blackout"
        case .mtu(let mtu): "mtu \(mtu)"
        case .linkDown: "link down"
        }
    }

    package static let grammar =
        "drop P [udp|tcp|all] [in|out|both] · dup P [udp|tcp|all] · rate N(bit/s, Kbit/s, Mbit/s, MB/s, …) "
        + "[in|out|both] · blackout · mtu N · link down; P is 0.05 or 5%"

    /// Reads a fault from words; the error says what was found and what is allowed.
    package init(words: [String]) throws {
        var rest = words[...]
        let verb = rest.popFirst() ?? ""
        switch verb {
        case "drop":
            self = .drop(
                probability: try Self.probability(rest.popFirst()), traffic: rest.popChoice() ?? .all,
                direction: rest.popChoice() ?? .in)
        case "dup":
            self = .duplicate(
                probability: try Self.probability(rest.popFirst()), traffic: rest.popChoice() ?? .all)
        case "rate":
            self = .rate(
                bitsPerSecond: try Self.rate(rest.popFirst()), direction: rest.popChoice() ?? .both)
        case "blackout": self = .blackout
        case "mtu":
            guard let text = rest.popFirst(), let mtu = Int(text) else {
                throw LabError.invalid("mtu needs a number of bytes")
            }
            self = .mtu(mtu)
        case "link":
            guard rest.popFirst() == "down" else { throw LabError.invalid("link knows `down`") }
            self = .linkDown
        default: throw LabError.invalid("fault `\(verb)`; allowed are: \(Self.grammar)")
        }
        guard rest.isEmpty else {
            throw LabError.invalid("`\(rest.joined(separator: " "))` after \(verb); \(Self.grammar)")
        }
        try validate()
    }

    func validate() throws {
        switch self {
        case .drop(let probability, _, _), .duplicate(let probability, _):
            // The rule counts in millionths.
            guard probability >= 0.000_001, probability <= 1 else {
                throw LabError.invalid("probability \(probability); allowed are 0.000001 to 1")
            }
        case .rate(let bits, _):
            guard Self.rateRange.contains(bits) else {
                throw LabError.invalid("rate \(bits) bit/s; allowed are 8 Kbit/s to 100 Gbit/s")
            }
        case .mtu(let mtu):
            guard LabOptions.mtuRange.contains(mtu) else {
                throw LabError.invalid("MTU \(mtu); allowed are \(LabOptions.mtuRange)")
            }
        case .blackout, .linkDown: break
        }
    }

    private static func probability(_ text: String?) throws -> Double {
        guard let text, !text.isEmpty else { throw LabError.invalid("a probability is missing, 0.05 or 5%") }
        let value = text.hasSuffix("%") ? Double(text.dropLast()).map { $0 / 100 } : Double(text)
        guard let value, value.isFinite else {
            throw LabError.invalid("probability `\(text)`; allowed are 0.05 or 5%")
        }
        return value
    }

    private static func rate(_ text: String?) throws -> Int {
        let units: [(String, Double)] = [
            ("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("gb", 8e9), ("mb", 8e6), ("kb", 8e3), ("bit", 1),
        ]
        var word = (text ?? "").lowercased()
        if word.hasSuffix("/s") { word.removeLast(2) }
        guard let (unit, factor) = units.first(where: { word.hasSuffix($0.0) }),
            let number = Double(word.dropLast(unit.count)), number > 0, number * factor < 1e15
        else {
            throw LabError.invalid("rate `\(text ?? "")`; allowed are 800Kbit/s, 10Mbit/s, 12MB/s, 1Gbit/s")
        }
        return Int(number * factor)
    }
}

extension ArraySlice<String> {
    /// Takes the next word if it is one of the enumeration's.
    fileprivate mutating func popChoice<Choice: RawRepresentable<String>>() -> Choice? {
        guard let word = first, let choice = Choice(rawValue: word) else { return nil }
        removeFirst()
        return choice
    }
}

// MARK: In the kernel's terms

extension Fault {
    /// One packet rule: which side of the port it sits on and what it does.
    struct PacketRule {
        let direction: Direction
        let statement: String

        /// Leaving the port is coming in to the host.
        var hook: String { direction == .in ? "egress" : "ingress" }
    }

    /// The nft rules of a packet fault; empty for the others.
    func packetRules(port: String) -> [PacketRule] {
        switch self {
        case .drop(let probability, let traffic, let direction):
            direction.single.map {
                PacketRule(
                    direction: $0,
                    statement: "\(traffic.match)\(Self.chance(probability))counter drop")
            }
        case .duplicate(let probability, let traffic):
            // The copy passes the same hook: the mark keeps it from being copied again. The kernel takes
            // marks off on the way into another namespace.
            [
                PacketRule(
                    direction: .in,
                    statement: "\(traffic.match)meta mark != 0xca57 \(Self.chance(probability))"
                        + "meta mark set 0xca57 counter dup to \"\(port)\"")
            ]
        case .blackout: Direction.both.single.map { PacketRule(direction: $0, statement: "counter drop") }
        case .rate, .mtu, .linkDown: []
        }
    }

    private static func chance(_ probability: Double) -> String {
        let millionths = Int((probability * 1_000_000).rounded())
        // nft refuses a comparison that always holds.
        return millionths >= 1_000_000 ? "" : "numgen random mod 1000000 < \(millionths) "
    }
}

extension Fault.Traffic {
    fileprivate var match: String {
        switch self {
        case .udp: "meta l4proto udp "
        case .tcp: "meta l4proto tcp "
        case .all: ""
        }
    }
}
