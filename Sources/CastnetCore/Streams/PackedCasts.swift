package import NIOCore

/// Small messages of one topic are packed when they are sent, as they will stand in a frame: a sender that
/// looks at each of them alone spends more on that than on their bytes.
extension OutboundCast {
    /// Messages of at most so many bytes are packed: every frame has room for one.
    package static let packedMax = FrameWire.frameSizeMin / 2

    /// Messages without headers that nobody waits for, with successive numbers from `first` on: in as few
    /// pieces as their sizes allow.
    package static func packing(
        _ payloads: ArraySlice<ByteBuffer>, topic: Topic, first: UInt64, sentAtMicroseconds: UInt64
    ) -> [OutboundCast] {
        var casts: [OutboundCast] = []
        var rest = payloads
        while let next = rest.first {
            let sequence = first + UInt64(rest.startIndex - payloads.startIndex)
            let small = rest.prefix { $0.readableBytes <= packedMax }
            var cast = OutboundCast(
                topic: topic, sequence: sequence, sentAtMicroseconds: sentAtMicroseconds,
                payload: small.count > 1 ? packed(small) : next)
            cast.packed = small.count > 1 ? small.count : 0
            casts.append(cast)
            rest = rest.dropFirst(cast.count)
        }
        return casts
    }

    private static func packed(_ payloads: ArraySlice<ByteBuffer>) -> ByteBuffer {
        let bytes = payloads.reduce(0) { $0 + 2 + $1.readableBytes }
        return ByteBuffer(initialCapacity: bytes) { span in
            for payload in payloads {
                span.appendBigEndian(UInt16(truncatingIfNeeded: payload.readableBytes))
                span.append(copying: payload.readableBytesSpan)
            }
        }
    }

    /// Bytes of the first message.
    var firstLength: Int { packed > 0 ? payload.readableBytesSpan.length(at: 0) : payload.readableBytes }

    /// Takes the first of packed messages and writes them with their lengths: at most `countMax` in `room`
    /// bytes, and no further one once there are `wanted` bytes; returns how many.
    mutating func moveFirst(countMax: Int, room: Int, wanted: Int, into buffer: inout ByteBuffer) -> Int {
        let (count, bytes) = measureFirst(min(packed, countMax), room: room, wanted: wanted)
        guard count > 0 else { return 0 }
        buffer.writeBytes(payload.readableBytesSpan.extracting(0..<bytes))
        drop(count, bytes)
        return count
    }

    private func measureFirst(_ countMax: Int, room: Int, wanted: Int) -> (count: Int, bytes: Int) {
        let span = payload.readableBytesSpan
        var (count, bytes) = (0, 0)
        while count < countMax, bytes < wanted {
            let next = bytes + 2 + span.length(at: bytes)
            guard next <= room else { break }
            (count, bytes) = (count + 1, next)
        }
        return (count, bytes)
    }

    private mutating func drop(_ count: Int, _ bytes: Int) {
        payload.moveReaderIndex(forwardBy: bytes)
        sequence &+= UInt64(count)
        packed -= count
    }

    /// Takes the first message, as one that stands alone; nil: it does stand alone.
    mutating func splitFirst() -> OutboundCast? {
        guard packed > 0 else { return nil }
        let length = firstLength
        var first = self
        first.packed = 0
        first.payload.moveReaderIndex(forwardBy: 2)
        first.payload.moveWriterIndex(to: first.payload.readerIndex + length)
        drop(1, 2 + length)
        return first
    }
}

extension RawSpan {
    fileprivate func length(at index: Int) -> Int {
        Int(bigEndian(at: index, as: UInt16.self))
    }
}

extension OutputRawSpan {
    /// Eight bytes at a time: there is no way yet to append a span.
    fileprivate mutating func append(copying bytes: RawSpan) {
        var index = 0
        while index + 8 <= bytes.byteCount {
            append(bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self), as: UInt64.self)
            index += 8
        }
        while index < bytes.byteCount {
            append(bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self), as: UInt8.self)
            index += 1
        }
    }
}
