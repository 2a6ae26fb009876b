package import NIOCore

/// What a member tells a sender, in one small datagram: how far it is and how much more it can take.
package struct Report: Hashable, Sendable {
    package static let magic: UInt16 = 0x4352  // "CR"
    package static let sizeMax = 1200

    package var member: NodeIdentity
    /// True: the member stops listening; do not wait for it.
    package var isLeaving = false
    /// Grows with each change of what the member subscribes.
    package var subscriptionEpoch: UInt64
    package var streams: [StreamPosition] = []

    package init(member: NodeIdentity, isLeaving: Bool = false, subscriptionEpoch: UInt64) {
        self.member = member
        self.isLeaving = isLeaving
        self.subscriptionEpoch = subscriptionEpoch
    }

    /// Where the member stands in one stream.
    package struct StreamPosition: Hashable, Sendable {
        package var streamID: UInt64
        /// The next frame it expects: it has, or was told lost, everything below.
        package var received: UInt64
        /// It can take the frames below this number.
        package var limit: UInt64
        /// Every message that ended below this frame was handled.
        package var processed: UInt64
        /// Bit i: the messages of frame `processed + i` were handled too; at most 256, highest bit first.
        package var processedBits: [UInt8] = []
        /// Frames it had to give up, in all.
        package var gaps: UInt32
        /// Where it began: it says nothing of frames before this one.
        package var first: UInt64
        /// Messages that asked to be handled and never will be, in all.
        package var refused: UInt32
        /// True: it does not hear the group, and has frames over links only.
        package var isDeaf = false

        package init(
            streamID: UInt64, first: UInt64 = 1, received: UInt64, limit: UInt64, processed: UInt64,
            gaps: UInt32, refused: UInt32 = 0, processedBits: [UInt8] = []
        ) {
            self.streamID = streamID
            self.first = first
            self.received = received
            self.limit = limit
            self.processed = processed
            self.gaps = gaps
            self.refused = refused
            self.processedBits = processedBits
        }

        /// True when every message that ended in `frame` was handled.
        package func isProcessed(_ frame: UInt64) -> Bool {
            guard frame >= processed else { return true }
            let offset = frame - processed
            guard offset < UInt64(processedBits.count) * 8 else { return false }
            return processedBits[Int(offset / 8)] & 0x80 >> UInt8(offset % 8) != 0
        }

        static let lengthMax = 3 + 50 + 32
        package var length: Int { 3 + 50 + processedBits.count }
    }

    /// Bytes of the datagram.
    package var length: Int {
        41 + member.name.utf8.count + streams.reduce(0) { $0 + $1.length }
    }

    package func write(into buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(
            Report.magic, FrameWire.version, UInt8(isLeaving ? 1 : 0), UInt32(0), UInt64(0), UInt64(0))
        buffer.writeNode(member)
        buffer.writeInteger(subscriptionEpoch)
        for stream in streams {
            buffer.writeMultipleIntegers(
                UInt8(1), UInt16(truncatingIfNeeded: stream.length - 3), stream.streamID, stream.received,
                stream.limit, stream.processed, stream.gaps, stream.first,
                stream.refused, UInt8(stream.isDeaf ? 1 : 0),
                UInt8(truncatingIfNeeded: stream.processedBits.count))
            buffer.writeBytes(stream.processedBits)
        }
    }

    /// Parses `bytes` as one whole report.
    package init(reading bytes: ByteBuffer) throws(WireError) {
        var rest = bytes
        guard
            let (magic, version, flags, keyID, _, _) = rest.readMultipleIntegers(
                as: (UInt16, UInt8, UInt8, UInt32, UInt64, UInt64).self)
        else { throw .truncated }
        guard magic == Report.magic else { throw .magic }
        guard version == FrameWire.version else { throw .version }
        guard keyID == 0 else { throw .key }
        let member = try rest.readNode()
        self.init(
            member: member, isLeaving: flags & 1 != 0, subscriptionEpoch: try rest.read(UInt64.self))
        while rest.readableBytes > 0 {
            guard let (kind, length) = rest.readMultipleIntegers(as: (UInt8, UInt16).self),
                var body = rest.readSlice(length: Int(length))
            else { throw .truncated }
            if kind == 1 { streams.append(try StreamPosition(reading: &body)) }
        }
    }
}

extension Report.StreamPosition {
    fileprivate init(reading body: inout ByteBuffer) throws(WireError) {
        guard
            let (streamID, received, limit, processed, gaps, first, refused, flags, bits) =
                body.readMultipleIntegers(
                    as: (UInt64, UInt64, UInt64, UInt64, UInt32, UInt64, UInt32, UInt8, UInt8).self),
            bits <= 32, let bitmap = body.readBytes(length: Int(bits))
        else { throw .truncated }
        guard limit <= FrameWire.numberMax, received <= limit, processed <= received, first <= received else {
            throw .inconsistent
        }
        self.init(
            streamID: streamID, first: first, received: received, limit: limit, processed: processed,
            gaps: gaps,
            refused: refused,
            processedBits: bitmap)
        isDeaf = flags & 1 != 0
    }
}
