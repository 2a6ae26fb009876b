/// A source path message that this side makes, for its own libpgm only.
package struct SyntheticSPM: Hashable, Sendable {
    package var tsi: UInt64
    package var sequence: UInt32
    package var trail: UInt32
    package var lead: UInt32
    /// The address of the stream's source.
    package var path: UInt32

    package static let length = PGMPacket.spmLength

    /// The packet with its checksum.
    package func encoded(dataPort: UInt16) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.length)
        func append(_ value: some FixedWidthInteger & UnsignedInteger, to bytes: inout [UInt8]) {
            for shift in stride(from: value.bitWidth - 8, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: value >> shift))
            }
        }
        append(UInt16(truncatingIfNeeded: tsi), to: &bytes)
        append(dataPort, to: &bytes)
        append(UInt32(0), to: &bytes)
        append(UInt32(truncatingIfNeeded: tsi >> 32), to: &bytes)
        append(UInt16(truncatingIfNeeded: tsi >> 16), to: &bytes)
        append(UInt16(0), to: &bytes)
        for value in [sequence, trail, lead, 1 << 16, path] { append(value, to: &bytes) }
        let sum = bytes.span.internetSum
        let checksum = sum == 0xffff ? sum : ~sum
        bytes[6] = UInt8(checksum >> 8)
        bytes[7] = UInt8(checksum & 0xff)
        return bytes
    }
}
