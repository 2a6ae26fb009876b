package import NIOCore

/// A node's record as a store keeps it: a header that scripts in the store can compare, then the body of a
/// full beacon. The bytes are specified in docs/wire-redis.md.
package enum StoredRecord {
    /// "CNRD" in ASCII.
    package static let magic: UInt32 = 0x434E_5244
    package static let version: UInt8 = 1
    /// Magic, version and three zero bytes; behind them incarnation and record version, of 8 bytes each.
    package static let headerSize = 24
    /// The largest value: more than the largest record that beacons could carry.
    package static let sizeMax = 2 << 20

    /// The value of `record`, which has been checked with ``NodeRecord/beaconFault``.
    package static func encode(_ record: NodeRecord) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(magic)
        buffer.writeInteger(version)
        buffer.writeRepeatingByte(0, count: 3)
        buffer.writeInteger(record.identity.incarnation.value)
        buffer.writeInteger(record.version)
        buffer.writeShortText(record.identity.name)
        record.encodeBeaconBody(into: &buffer)
        return buffer
    }

    /// Reads a value that anybody may have written: every fault is a thrown ``BeaconFault``.
    package static func decode(_ value: ByteBuffer) throws(BeaconFault) -> NodeRecord {
        guard value.readableBytes <= sizeMax else { throw .tooLong(value.readableBytes) }
        var buffer = value
        guard buffer.readInteger(as: UInt32.self) == magic else { throw .notBeacon }
        guard let format = buffer.readInteger(as: UInt8.self) else { throw .truncated(.header) }
        guard format == version else { throw .version(format) }
        guard buffer.readSlice(length: 3) != nil,
            let incarnation = buffer.readInteger(as: UInt64.self),
            let recordVersion = buffer.readInteger(as: UInt64.self)
        else { throw .truncated(.header) }
        guard let length = buffer.readInteger(as: UInt8.self),
            let bytes = buffer.readBytes(length: Int(length))
        else { throw .truncated(.name) }
        guard BeaconFormat.isNodeName(bytes) else { throw .invalid(.name) }
        let identity = NodeIdentity(
            name: String(decoding: bytes, as: UTF8.self), incarnation: Incarnation(incarnation))
        // 0 means in the directory that a source does not know which start or version it is.
        guard incarnation > 0, recordVersion > 0 else { throw .invalid(.header) }
        return try NodeRecord(decodingBody: &buffer, of: identity, version: recordVersion)
    }
}
