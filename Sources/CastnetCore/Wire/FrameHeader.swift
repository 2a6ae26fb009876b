package import NIOCore

/// What every frame starts with; 48 bytes that make it understandable without any other frame.
package struct FrameHeader: Hashable, Sendable {
    /// True: the frame has no number of its own, `sequence` is the next one to be sent.
    package var isHead: Bool
    /// True: it was sent before; what it says of its sender may be old.
    package var isAgain = false
    /// The key of the authentication tag; 0: none.
    package var keyID: UInt16
    /// Random for each incarnation and channel.
    package var streamID: UInt64
    /// The frame's number in its stream, from 1.
    package var sequence: UInt64
    /// Where members send their reports.
    package var reportAddress: DatagramAddress
    /// The feedback interval in units of 100 µs.
    package var feedbackInterval: UInt16

    package init(
        isHead: Bool, streamID: UInt64, sequence: UInt64, reportAddress: DatagramAddress,
        feedbackInterval: UInt16, keyID: UInt16 = 0
    ) {
        self.isHead = isHead
        self.keyID = keyID
        self.streamID = streamID
        self.sequence = sequence
        self.reportAddress = reportAddress
        self.feedbackInterval = feedbackInterval
    }

    /// Writes the 48 bytes behind what `buffer` holds.
    package func write(into buffer: inout ByteBuffer) {
        buffer.writeWithOutputRawSpan(minimumWritableBytes: FrameWire.headerLength) { bytes in
            bytes.appendBigEndian(FrameWire.magic)
            bytes.appendBigEndian(FrameWire.version)
            bytes.appendBigEndian(isHead ? FrameWire.headFlag : 0)
            bytes.appendBigEndian(feedbackInterval)
            bytes.appendBigEndian(streamID)
            bytes.appendBigEndian(sequence)
            bytes.appendBigEndian(reportAddress.address)
            bytes.appendBigEndian(reportAddress.port)
            bytes.appendBigEndian(keyID)
            // Room for an authentication tag.
            bytes.append(repeating: 0, count: 16, as: UInt8.self)
        }
    }

    /// Reads the 48 bytes off `buffer`.
    package init(reading buffer: inout ByteBuffer) throws(WireError) {
        try self.init(buffer.readableBytesSpan)
        buffer.moveReaderIndex(forwardBy: FrameWire.headerLength)
    }

    /// Reads the first 48 bytes.
    init(_ bytes: RawSpan) throws(WireError) {
        guard bytes.byteCount >= FrameWire.headerLength else { throw .truncated }
        guard bytes.bigEndian(at: 0, as: UInt32.self) == FrameWire.magic else { throw .magic }
        guard bytes.bigEndian(at: 4, as: UInt8.self) == FrameWire.version else { throw .version }
        let flags = bytes.bigEndian(at: 5, as: UInt8.self)
        feedbackInterval = bytes.bigEndian(at: 6, as: UInt16.self)
        streamID = bytes.bigEndian(at: 8, as: UInt64.self)
        sequence = bytes.bigEndian(at: 16, as: UInt64.self)
        reportAddress = DatagramAddress(
            address: bytes.bigEndian(at: 24, as: UInt32.self), port: bytes.bigEndian(at: 28, as: UInt16.self))
        keyID = bytes.bigEndian(at: 30, as: UInt16.self)
        guard keyID == 0 else { throw .key }
        guard sequence > 0, sequence <= FrameWire.numberMax else { throw .range }
        isHead = flags & FrameWire.headFlag != 0
        isAgain = flags & FrameWire.againFlag != 0
    }
}
