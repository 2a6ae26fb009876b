/// The kinds of PGM packets, by their byte on the wire.
package enum PGMPacketType: UInt8, Hashable, Sendable, CaseIterable {
    case spm = 0x00
    case poll = 0x01
    case polr = 0x02
    case odata = 0x04
    case rdata = 0x05
    case nak = 0x08
    case nnak = 0x09
    case ncf = 0x0a
    case spmr = 0x0c
    case ack = 0x0d

    /// Upstream packets go to the source of a stream and carry its ports the other way round.
    var isUpstream: Bool {
        switch self {
        case .nak, .nnak, .spmr, .polr, .ack: true
        case .spm, .poll, .odata, .rdata, .ncf: false
        }
    }
}

/// A PGM packet whose shape is one of those that both sides use, and nothing else.
package struct PGMPacket: Hashable, Sendable {
    package enum Body: Hashable, Sendable {
        case spm(sequence: UInt32, trail: UInt32, lead: UInt32, path: UInt32, isFinal: Bool)
        case data(sequence: UInt32, trail: UInt32, isRepair: Bool)
        /// The numbers are `first` and those of the list, which starts at ``PGMPacket/listStart``.
        case nak(first: UInt32, listed: Int, source: UInt32, group: UInt32)
        case ncf(first: UInt32, listed: Int, source: UInt32, group: UInt32)
        case spmr
    }

    static let headerLength = 16
    static let dataStart = 24
    static let naksLength = 36
    static let listStart = 44
    static let spmLength = 36
    static let finalSPMLength = 44

    package var type: PGMPacketType
    /// Whose stream: 48 bits of source identifier, 16 bits of source port.
    package var tsi: UInt64
    package var dataPort: UInt16
    package var body: Body

    /// Reads a packet; what is wrong with it is thrown.
    package init(_ bytes: Span<UInt8>) throws(Rejection) {
        guard bytes.count >= Self.headerLength else { throw .length }
        guard let type = PGMPacketType(rawValue: bytes[4]) else { throw .type }
        self.type = type
        let (sourcePort, destinationPort) = (bytes.load16(0), bytes.load16(2))
        let port = type.isUpstream ? destinationPort : sourcePort
        dataPort = type.isUpstream ? sourcePort : destinationPort
        let identifier = UInt64(bytes.load32(8)) << 16 | UInt64(bytes.load16(12))
        tsi = identifier << 16 | UInt64(port)
        let options = bytes[5]
        let payload = Int(bytes.load16(14))
        guard bytes.load16(6) != 0 else { throw .checksum }
        switch type {
        case .odata, .rdata:
            guard options == 0 else { throw .options }
            guard payload > 0, bytes.count == Self.dataStart + payload else { throw .length }
            body = .data(
                sequence: bytes.load32(16), trail: bytes.load32(20), isRepair: type == .rdata)
        case .spm: body = try Self.spm(bytes, options: options, payload: payload)
        case .nak, .ncf:
            let listed = try Self.listed(bytes, options: options, payload: payload)
            guard bytes.load16(20) == 1, bytes.load16(28) == 1 else { throw .family }
            let (first, source, group) = (bytes.load32(16), bytes.load32(24), bytes.load32(32))
            body =
                type == .nak
                ? .nak(first: first, listed: listed, source: source, group: group)
                : .ncf(first: first, listed: listed, source: source, group: group)
        case .spmr:
            guard options == 0 else { throw .options }
            guard bytes.count == Self.headerLength, payload == 0 else { throw .length }
            body = .spmr
        case .poll, .polr, .nnak, .ack: throw .type
        }
        guard bytes.internetSum == 0xffff else { throw .checksum }
    }

    private static func spm(
        _ bytes: Span<UInt8>, options: UInt8, payload: Int
    ) throws(Rejection) -> Body {
        guard payload == 0 else { throw .length }
        let isFinal = bytes.count == finalSPMLength
        if isFinal {
            // The length of all options, then the one that says goodbye, the last.
            guard options == 1 else { throw .options }
            guard bytes[36] == 0, bytes[37] == 4, bytes.load16(38) == 8, bytes[40] == 0x8e, bytes[41] == 4
            else { throw .options }
        } else {
            guard bytes.count == spmLength else { throw .length }
            guard options == 0 else { throw .options }
        }
        guard bytes.load16(28) == 1 else { throw .family }
        return .spm(
            sequence: bytes.load32(16), trail: bytes.load32(20), lead: bytes.load32(24),
            path: bytes.load32(32), isFinal: isFinal)
    }

    private static func listed(
        _ bytes: Span<UInt8>, options: UInt8, payload: Int
    ) throws(Rejection) -> Int {
        guard payload == 0, bytes.count >= naksLength else { throw .length }
        if bytes.count == naksLength {
            guard options == 0 else { throw .options }
            return 0
        }
        // Option extensions are present; libpgm also says that they matter to the network.
        guard options & 1 == 1, options & ~3 == 0, bytes.count > listStart else { throw .options }
        let listBytes = bytes.count - listStart
        guard listBytes % 4 == 0, (1...62).contains(listBytes / 4) else { throw .length }
        guard bytes[36] == 0, bytes[37] == 4, Int(bytes.load16(38)) == bytes.count - naksLength,
            bytes[40] == 0x82, Int(bytes[41]) == 4 + listBytes
        else { throw .options }
        return listBytes / 4
    }
}

extension Span<UInt8> {
    /// Two bytes in network order; the caller has checked the length.
    func load16(_ at: Int) -> UInt16 { UInt16(self[at]) << 8 | UInt16(self[at + 1]) }

    /// Four bytes in network order; the caller has checked the length.
    func load32(_ at: Int) -> UInt32 { UInt32(load16(at)) << 16 | UInt32(load16(at + 2)) }

    /// The one's complement sum of all 16-bit words: 0xffff over a packet with its right checksum.
    var internetSum: UInt16 {
        // Inside the bounds by the loops; any order of bytes gives the same sum, in that order. Halves of
        // words are added up in whole ones: no carry is lost. Two sums, so that neither waits for the other.
        let raw = self.bytes
        func halves(_ index: Int) -> SIMD4<UInt64> {
            let words = unsafe raw.unsafeLoadUnaligned(
                fromUncheckedByteOffset: index, as: SIMD4<UInt64>.self)
            return (words & SIMD4(repeating: 0xffff_ffff)) &+ (words &>> SIMD4(repeating: 32))
        }
        var sums = (SIMD4<UInt64>(), SIMD4<UInt64>())
        var index = 0
        while index + 64 <= count {
            sums.0 &+= halves(index)
            sums.1 &+= halves(index + 32)
            index += 64
        }
        var sum = (sums.0 &+ sums.1).wrappedSum()
        while index + 4 <= count {
            sum &+= UInt64(
                unsafe raw.unsafeLoadUnaligned(fromUncheckedByteOffset: index, as: UInt32.self))
            index += 4
        }
        while index < count {
            let byte = UInt64(self[index])
            // The words above were read in the machine's order, which is little-endian here.
            sum &+= index & 1 == 0 ? byte : byte << 8
            index += 1
        }
        while sum >> 16 != 0 { sum = (sum & 0xffff) &+ (sum >> 16) }
        return UInt16(truncatingIfNeeded: sum).byteSwapped
    }
}
