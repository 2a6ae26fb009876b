/// Makes PGM packets, right and wrong ones, with a valid checksum unless it is broken afterwards.
package struct PGMPackets {
    package var tsi: UInt64
    package var dataPort: UInt16
    package var source: UInt32
    package var group: UInt32

    package init(tsi: UInt64, dataPort: UInt16, source: UInt32, group: UInt32) {
        self.tsi = tsi
        self.dataPort = dataPort
        self.source = source
        self.group = group
    }

    package func data(
        _ sequence: UInt32, trail: UInt32 = 0, payload: [UInt8] = [0xff, 0xff, 0x43, 0x4e],
        isRepair: Bool = false
    ) -> [UInt8] {
        packet(isRepair ? 0x05 : 0x04, payload: payload.count, words: [sequence, trail], tail: payload)
    }

    package func spm(_ number: UInt32, trail: UInt32, lead: UInt32, isFinal: Bool = false) -> [UInt8] {
        packet(
            0x00, options: isFinal ? 1 : 0, words: [number, trail, lead, 1 << 16, source],
            tail: isFinal ? [0, 4, 0, 8, 0x8e, 4, 0, 0] : [])
    }

    /// A request for repair of the own stream: to its source.
    package func nak(_ numbers: [UInt32]) -> [UInt8] { naks(0x08, numbers) }

    package func ncf(_ numbers: [UInt32]) -> [UInt8] { naks(0x0a, numbers) }

    package func spmr() -> [UInt8] { packet(0x0c, words: []) }

    private func naks(_ type: UInt8, _ numbers: [UInt32]) -> [UInt8] {
        let listed = numbers.dropFirst()
        let total = 8 + 4 * listed.count
        let options: [UInt8] =
            listed.isEmpty
            ? []
            : [0, 4, UInt8(total >> 8), UInt8(total & 0xff), 0x82, UInt8(4 + 4 * listed.count), 0, 0]
        return packet(
            type, options: listed.isEmpty ? 0 : 3,
            words: [numbers.first ?? 0, 1 << 16, source, 1 << 16, group],
            tail: options + listed.flatMap(Self.bytes))
    }

    /// Any packet of this stream.
    package func packet(
        _ type: UInt8, options: UInt8 = 0, payload: Int = 0, words: [UInt32], tail: [UInt8] = []
    ) -> [UInt8] {
        let isUpstream = [0x08, 0x09, 0x0c, 0x0d, 0x02].contains(type)
        let port = UInt16(truncatingIfNeeded: tsi)
        let (first, second) = isUpstream ? (dataPort, port) : (port, dataPort)
        var bytes = Self.bytes(UInt32(first) << 16 | UInt32(second)) + [type, options, 0, 0]
        bytes += Self.bytes(UInt32(truncatingIfNeeded: tsi >> 32))
        bytes += [UInt8(tsi >> 24 & 0xff), UInt8(tsi >> 16 & 0xff)]
        bytes += [UInt8(payload >> 8 & 0xff), UInt8(payload & 0xff)]
        bytes += words.flatMap(Self.bytes) + tail
        return Self.checked(bytes)
    }

    /// The packet with its right checksum.
    package static func checked(_ packet: [UInt8]) -> [UInt8] {
        guard packet.count >= 8 else { return packet }
        var packet = packet
        (packet[6], packet[7]) = (0, 0)
        var sum = 0
        for (index, byte) in packet.enumerated() { sum += Int(byte) << (index & 1 == 0 ? 8 : 0) }
        while sum >> 16 != 0 { sum = (sum & 0xffff) + sum >> 16 }
        let checksum = sum == 0xffff ? sum : ~sum & 0xffff
        (packet[6], packet[7]) = (UInt8(checksum >> 8), UInt8(checksum & 0xff))
        return packet
    }

    package static func bytes(_ value: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }
}
