/// A frame that is nothing but one more part of a message that began in an earlier one, which is what large
/// messages mostly are. It is understood where it lies, before anything of it is copied.
struct PartFrame: Sendable {
    let header: FrameHeader
    /// The message's number in its stream.
    let number: UInt64
    /// Where the part belongs in the message.
    let offset: UInt64

    /// The bytes before the part.
    static let headLength = FrameWire.headerLength + FrameWire.recordHeadLength + 17

    /// Nil for every other frame, sound or not: `FrameDecoder` says what that one is.
    init?(_ bytes: RawSpan) {
        guard bytes.byteCount > Self.headLength else { return nil }
        let record = FrameWire.headerLength
        let kind = bytes.bigEndian(at: record, as: UInt8.self)
        let length = bytes.bigEndian(at: record + 1, as: UInt16.self)
        let body = record + FrameWire.recordHeadLength
        guard kind == FrameRecord.Kind.chunk, body + Int(length) == bytes.byteCount,
            bytes.bigEndian(at: body, as: UInt8.self) & 1 == 0,
            let header = try? FrameHeader(bytes), !header.isHead, !header.isAgain
        else { return nil }
        number = bytes.bigEndian(at: body + 1, as: UInt64.self)
        offset = bytes.bigEndian(at: body + 9, as: UInt64.self)
        guard number <= FrameWire.numberMax, (1...FrameWire.numberMax).contains(offset) else { return nil }
        self.header = header
    }
}
