/// Amounts with units as configuration files and command lines write them, and back to text.
///
/// Arithmetic is exact: a value that does not fit is a fault, never a trap or a rounding surprise.
package enum Quantity {
    /// What is wrong with a text that should be an amount.
    package struct Fault: Error, Hashable, Sendable {
        /// `has no unit`, `has an unknown unit “mb”`: follows the quoted text in a message.
        package var text: String
        package init(_ text: String) { self.text = text }
    }

    /// `250ms`, `2s`, `1min`, `0.25s`.
    package static func duration(_ text: String) throws(Fault) -> Duration {
        let units: [(String, Int)] = [
            ("ns", 1), ("us", 1_000), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000),
            ("min", 60_000_000_000), ("h", 3_600_000_000_000),
        ]
        return .nanoseconds(try amount(text, units: units))
    }

    /// `512B`, `64KiB`, `128MiB`, `50MB`.
    package static func bytes(_ text: String) throws(Fault) -> Int {
        try amount(text, units: byteUnits)
    }

    /// Bytes a second: `50MB/s`, `100Mbit/s`.
    package static func rate(_ text: String) throws(Fault) -> Int {
        let bits: [(String, Int)] = [
            ("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000),
        ]
        guard text.hasSuffix("/s") else { throw unitFault(text, wanted: "/s") }
        let head = String(text.dropLast(2))
        if head.hasSuffix("bit") { return try amount(head, units: bits) / 8 }
        return try amount(head, units: byteUnits)
    }

    /// Messages a minute: `300/min`.
    package static func perMinute(_ text: String) throws(Fault) -> Int {
        guard text.hasSuffix("/min") else { throw unitFault(text, wanted: "/min") }
        return try count(String(text.dropLast(4)))
    }

    /// A whole number without a unit.
    package static func count(_ text: String) throws(Fault) -> Int {
        let digits = text.utf8
        guard !digits.isEmpty, digits.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else {
            throw Fault("is not a whole number")
        }
        guard let value = Int(text) else { throw Fault("is too large a number") }
        return value
    }

    /// The largest unit that shows `duration` whole: `250ms`, `2s`, `90s`, `1min`.
    package static func text(_ duration: Duration) -> String {
        let nanoseconds = duration.nanoseconds
        if nanoseconds == 0 { return "0s" }
        let units: [(Int64, String)] = [
            (3_600_000_000_000, "h"), (60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"),
            (1_000, "us"),
        ]
        for (scale, name) in units where nanoseconds % scale == 0 { return "\(nanoseconds / scale)\(name)" }
        return "\(nanoseconds)ns"
    }

    /// The largest binary or decimal unit that shows `bytes` whole: `64KiB`, `50MB`, `1500B`.
    package static func text(bytes: Int) -> String {
        if bytes == 0 { return "0B" }
        for (name, scale) in byteUnits.reversed() where bytes % scale == 0 {
            return "\(bytes / scale)\(name)"
        }
        return "\(bytes)B"
    }

    /// A rate as text: `50MB/s`.
    package static func text(rate: Int) -> String { text(bytes: rate) + "/s" }

    /// `bytes` for people, rounded: `13.2 MiB`.
    package static func rounded(bytes: Int) -> String {
        let units: [(Int, String)] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        for (scale, name) in units where bytes >= scale {
            let tenths = Int((Double(bytes) / Double(scale) * 10).rounded())
            return tenths % 10 == 0 ? "\(tenths / 10) \(name)" : "\(tenths / 10).\(tenths % 10) \(name)"
        }
        return "\(bytes) B"
    }

    /// In rising order, so that the reverse finds the largest that divides.
    private static let byteUnits: [(String, Int)] = [
        ("B", 1), ("kB", 1_000), ("KB", 1_000), ("KiB", 1 << 10), ("MB", 1_000_000), ("MiB", 1 << 20),
        ("GB", 1_000_000_000), ("GiB", 1 << 30), ("TB", 1_000_000_000_000), ("TiB", 1 << 40),
    ]

    /// Digits, perhaps a point and up to nine more, and one of `units`.
    private static func amount(_ text: String, units: [(String, Int)]) throws(Fault) -> Int {
        let numeral = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let name = text.dropFirst(numeral.count).drop { $0 == " " }
        guard numeral.first?.isNumber == true else {
            if text.hasPrefix("-") { throw Fault("is negative") }
            throw Fault("is not an amount")
        }
        if name.isEmpty { throw Fault("has no unit") }
        guard let scale = units.first(where: { $0.0 == name })?.1 else {
            throw Fault("has the unknown unit \(quoted(String(name)))")
        }
        let parts = numeral.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count <= 2, parts.allSatisfy({ !$0.isEmpty }), parts.count < 2 || parts[1].count <= 9
        else {
            throw Fault("is not an amount")
        }
        guard let whole = Int(parts[0]) else { throw Fault("is too large") }
        let (scaled, overflow) = whole.multipliedReportingOverflow(by: scale)
        if overflow { throw Fault("is too large") }
        guard parts.count == 2, let digits = Int(parts[1]) else { return scaled }
        let divisor = parts[1].reduce(1) { power, _ in power * 10 }
        let (product, carried) = digits.multipliedFullWidth(by: scale)
        let fraction = divisor.dividingFullWidth((product, carried)).quotient
        let (sum, full) = scaled.addingReportingOverflow(fraction)
        if full { throw Fault("is too large") }
        return sum
    }

    private static func unitFault(_ text: String, wanted: String) -> Fault {
        text.last?.isNumber == true ? Fault("has no unit") : Fault("does not end in \(wanted)")
    }
}
