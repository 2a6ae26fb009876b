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
            bytes.appendBigEndian(UInt8(isHead ? 1 : 0))
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
        guard
            let (magic, version, flags, interval, streamID, sequence, address, port, keyID, _, _) =
                buffer.readMultipleIntegers(
                    as: (
                        UInt32, UInt8, UInt8, UInt16, UInt64, UInt64, UInt32, UInt16, UInt16, UInt64, UInt64
                    ).self)
        else { throw .truncated }
        guard magic == FrameWire.magic else { throw .magic }
        guard version == FrameWire.version else { throw .version }
        guard keyID == 0 else { throw .key }
        guard sequence > 0, sequence <= FrameWire.numberMax else { throw .range }
        self.init(
            isHead: flags & 1 != 0, streamID: streamID, sequence: sequence,
            reportAddress: DatagramAddress(address: address, port: port), feedbackInterval: interval,
            keyID: keyID)
        isAgain = flags & FrameWire.againFlag != 0
    }
}
