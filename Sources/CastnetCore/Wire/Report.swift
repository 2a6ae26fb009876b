package import NIOCore

/// A member's word to a sender: how far it is in each of the sender's streams and what it can still take.
package struct Report: Hashable, Sendable {
    package static let magic: UInt16 = 0x4352  // "CR"
    package static let version: UInt8 = 1
    /// The most streams of one report: it stays far below any MTU.
    package static let streamsMax = 16

    package var member: NodeIdentity
    package var isLeaving = false
    /// Grows with every change of what the member subscribes.
    package var epoch: UInt64
    package var streams: [Position]
    package var keyID: UInt32 = 0
    package var tag = AuthenticationTag()

    package struct Position: Hashable, Sendable {
        package var stream: UInt64
        /// Everything below has been received.
        package var received: UInt64
        /// Frames below may be outstanding.
        package var limit: UInt64
        /// Everything below has been processed; bits behind it name later frames that have been, too.
        package var processed: UInt64
        package var processedBits: [UInt64] = []
        /// Frames this member has declared lost so far.
        package var lost: UInt64

        package init(stream: UInt64, received: UInt64, limit: UInt64, processed: UInt64, lost: UInt64) {
            self.stream = stream
            self.received = received
            self.limit = limit
            self.processed = processed
            self.lost = lost
        }
    }

    package init(member: NodeIdentity, epoch: UInt64, streams: [Position]) {
        self.member = member
        self.epoch = epoch
        self.streams = streams
    }

    package func write(to buffer: inout ByteBuffer) {
        buffer.clear()
        buffer.writeInteger(Self.magic)
        buffer.writeInteger(Self.version)
        buffer.writeInteger(UInt8(isLeaving ? 1 : 0))
        buffer.writeInteger(keyID)
        buffer.writeInteger(tag.high)
        buffer.writeInteger(tag.low)
        buffer.writeNode(member)
        buffer.writeInteger(epoch)
        buffer.writeInteger(UInt8(min(streams.count, Self.streamsMax)))
        for position in streams.prefix(Self.streamsMax) {
            buffer.writeInteger(position.stream)
            buffer.writeInteger(position.received)
            buffer.writeInteger(position.limit)
            buffer.writeInteger(position.processed)
            buffer.writeInteger(position.lost)
            buffer.writeInteger(UInt8(min(4, position.processedBits.count)))
            for word in position.processedBits.prefix(4) { buffer.writeInteger(word) }
        }
    }

    package init(_ datagram: ByteBuffer) throws(WireError) {
        var body = datagram
        guard try body.read(UInt16.self) == Self.magic else { throw .magic }
        guard try body.read(UInt8.self) == Self.version else { throw .version }
        let flags: UInt8 = try body.read()
        keyID = try body.read()
        tag.high = try body.read()
        tag.low = try body.read()
        member = try body.readNode()
        epoch = try body.read()
        isLeaving = flags & 1 != 0
        let count: UInt8 = try body.read()
        if count > UInt8(Self.streamsMax) { throw .tooLong }
        streams = []
        for _ in 0..<count {
            var position = Position(
                stream: try body.read(), received: try body.read(), limit: try body.read(),
                processed: try body.read(), lost: try body.read())
            let words: UInt8 = try body.read()
            if words > 4 { throw .tooLong }
            for _ in 0..<words { position.processedBits.append(try body.read()) }
            streams.append(position)
        }
        if body.readableBytes > 0 { throw .trailing }
    }
}
