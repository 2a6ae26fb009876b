/// One start of one node: a larger incarnation of the same name supersedes a smaller one.
///
/// Milliseconds since 1970 at the start in the upper 44 bits, 20 random bits below.
public struct Incarnation: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number as it travels.
    public let value: UInt64

    package init(_ value: UInt64) { self.value = value }

    /// Makes the incarnation of a node started at `milliseconds` since 1970.
    package init(startedAt milliseconds: UInt64, using generator: inout some RandomNumberGenerator) {
        value = milliseconds << 20 | UInt64.random(in: 0..<1 << 20, using: &generator)
    }

    /// Orders by start.
    public static func < (left: Incarnation, right: Incarnation) -> Bool { left.value < right.value }

    /// Hexadecimal, 16 digits.
    public var description: String { hexadecimal(value) }
}

/// Who a running node is.
public struct NodeIdentity: Hashable, Sendable, CustomStringConvertible {
    /// The node's name, unique in its cluster: 1–64 bytes of printable ASCII without space.
    public let name: String
    /// Which start of that name this is.
    public let incarnation: Incarnation

    package init(name: String, incarnation: Incarnation) {
        self.name = name
        self.incarnation = incarnation
    }

    /// `name#incarnation`.
    public var description: String { "\(name)#\(incarnation)" }
}

/// `value` in 16 lower-case hexadecimal digits.
package func hexadecimal(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
