import CastnetCore
import NIOCore

extension LinkRules {
    /// What came out of a byte stream.
    private struct Decoded: Equatable {
        var packets: [Packet] = []
        /// What writing them again gives: two texts may be equal and yet not the same.
        var bytes: [[UInt8]] = []
        var unknown = 0
        var error: WireError?
        var left = 0
    }

    static func packets(_ bytes: [UInt8], _ reached: inout Reached) throws(BrokenRule) {
        var input = FuzzInput(bytes)
        let control = input.byte()
        let cuts = [Int(control & 7), Int(control >> 3 & 7)].map { count in
            (0..<count).map { _ in input.number() }
        }
        let stream = Array(input.rest)
        let bytesMax = control & 0x80 == 0 ? Packet.bytesMax : 64
        let whole = try decoded([stream[...]], bytesMax)
        try judge(whole, of: stream, bytesMax, &reached)
        for (packet, bytes) in zip(whole.packets, whole.bytes) {
            try rule(isInLimits(packet), "past a limit: \(packet)")
            try saysTheSame(packet, bytes)
        }

        for cuts in cuts {
            let parts = try decoded(segments(of: stream, cuts.map { $0 % (stream.count + 1) }), bytesMax)
            try rule(parts == whole, "cut at \(cuts): \(parts), in one: \(whole)")
        }
        if control & 0x40 != 0 {
            let single = try decoded(stream.indices.map { stream[$0...$0] }, bytesMax)
            try rule(single == whole, "byte by byte: \(single), in one: \(whole)")
        }
    }

    private static func segments(of stream: [UInt8], _ cuts: [Int]) -> [ArraySlice<UInt8>] {
        let places = [0] + cuts.sorted() + [stream.count]
        return zip(places, places.dropFirst()).map { stream[$0..<$1] }
    }

    private static func decoded(
        _ segments: [ArraySlice<UInt8>], _ bytesMax: Int
    ) throws(BrokenRule) -> Decoded {
        var decoder = PacketDecoder(bytesMax: bytesMax)
        var result = Decoded()
        var fed = 0
        for segment in segments {
            var bytes = ByteBuffer(bytes: segment)
            fed += segment.count
            decoder.feed(&bytes)
            result.error = drain(&decoder, into: &result)
            try rule(decoder.waitingBytes <= fed, "\(decoder.waitingBytes) bytes wait of \(fed)")
            let held = result.packets.last.map(storage) ?? 0
            // Where a buffer grows it doubles.
            try rule(held <= 2 * fed + 64, "\(held) bytes are held of \(fed)")
            if result.error != nil { break }
        }
        result.unknown = decoder.unknownCount
        // How much was fed behind an error depends on the cuts.
        result.left = result.error == nil ? decoder.waitingBytes : 0
        return result
    }

    private static func drain(_ decoder: inout PacketDecoder, into result: inout Decoded) -> WireError? {
        do {
            while let packet = try decoder.next() {
                result.packets.append(packet)
                result.bytes.append(encoded(packet))
            }
            return nil
        } catch { return error }
    }

    /// The memory that a packet's payload keeps alive.
    private static func storage(of packet: Packet) -> Int {
        switch packet {
        case .message(_, let bytes), .reply(_, let bytes), .chunk(_, _, let bytes): bytes.storageCapacity
        default: 0
        }
    }

    /// Finds the packets in the stream without the decoder, and holds its result against them.
    private static func judge(
        _ result: Decoded, of stream: [UInt8], _ bytesMax: Int, _ reached: inout Reached
    ) throws(BrokenRule) {
        var (at, known, unknown) = (0, 0, 0)
        var expected: WireError?
        while at + 4 <= stream.count, expected == nil {
            let length = stream[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
            if length > bytesMax { expected = .tooLong }
            if length < 2 { expected = .truncated }
            guard expected == nil, at + 4 + length <= stream.count else { break }
            let (kind, flags) = (stream[at + 4], stream[at + 5])
            at += 4 + length
            if Packet.Kind(rawValue: kind) == nil {
                if flags & Packet.criticalFlag != 0 { expected = .unknownKind } else { unknown += 1 }
                continue
            }
            // What else is wrong with a packet only the decoder knows.
            guard known < result.packets.count else {
                try rule(result.error != nil, "the packet before \(at) is lost")
                expected = result.error
                break
            }
            let written = result.bytes[known]
            try rule(written[4] == kind, "kind \(kind) is read as \(written[4])")
            try rule(written.count <= 4 + length, "\(length) bytes became \(written.count)")
            known += 1
            reached.kinds.insert(kind)
        }
        try rule(result.error == expected, "ends with \(result.error as Any), not \(expected as Any)")
        try rule(result.packets.count == known, "\(result.packets.count) packets of \(known)")
        try rule(result.unknown == unknown, "\(result.unknown) unknown ones of \(unknown)")
        if let expected {
            reached.errors.insert(expected)
        } else {
            try rule(result.left == stream.count - at, "\(result.left) bytes wait of \(stream.count - at)")
        }
    }

    /// What the rest of a node relies on. Hellos have a target of their own.
    private static func isInLimits(_ packet: Packet) -> Bool {
        switch packet {
        case .goodbye(let goodbye): goodbye.text.utf8.count <= Goodbye.textBytesMax
        case .message(let head, let bytes):
            UInt64(bytes.readableBytes) <= head.total && head.headers.fault == nil
                && Topic.fault(in: head.topic.name, wildcards: false) == nil
        case .reply(let head, let bytes):
            UInt64(bytes.readableBytes) <= head.total && head.headers.fault == nil
                && head.why?.utf8.count ?? 0 <= ReplyHead.whyBytesMax
        case .chunk(_, _, let bytes): bytes.readableBytes > 0
        case .repair(.request(_, let ranges)):
            (1...RepairPacket.rangesMax).contains(ranges.count)
                && zip(ranges, ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound }
        case .repair(.place(_, let place)): place.oldest > 0 && place.oldest <= place.first
        default: true
        }
    }

    private static func saysTheSame(_ packet: Packet, _ bytes: [UInt8]) throws(BrokenRule) {
        let again = try decoded([bytes[...]], Packet.bytesMax)
        try rule(again.packets == [packet] && again.error == nil, "\(packet) reads as \(again)")
        try rule(again.bytes == [bytes] && again.left == 0, "\(packet) is written in two ways")
        guard case .chunk(let id, let isReply, let part) = packet else { return }
        var head = ByteBuffer()
        head.writeChunkHead(id, isReply: isReply, count: part.readableBytes)
        try rule(bytes == Array(head.readableBytesView) + part.readableBytesView, "the head of \(packet)")
    }
}
