/// The 64-bit FNV-1a digest the wire uses wherever two nodes compare what they have (a cluster's name, a
/// record's version). It finds differences, it does not protect: the authentication tag is for that.
package struct WireDigest: Hashable, Sendable {
    package private(set) var value: UInt64 = 0xCBF2_9CE4_8422_2325

    package init() {}

    /// The digest of one text.
    package init(_ text: String) {
        add(text)
    }

    package mutating func add(_ byte: UInt8) {
        value = (value ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
    }

    package mutating func add(_ text: String) {
        for byte in text.utf8 { add(byte) }
    }

    /// Adds the number's eight bytes, most significant first.
    package mutating func add(_ number: UInt64) {
        for shift in stride(from: 56, through: 0, by: -8) {
            add(UInt8(truncatingIfNeeded: number >> UInt64(shift)))
        }
    }
}
