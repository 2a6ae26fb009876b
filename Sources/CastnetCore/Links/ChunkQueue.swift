import DequeModule
package import NIOCore

/// The rests of large messages and replies on one link, cut into chunks in turns: none waits for another to
/// end, and a small message waits for one chunk of each at most.
package struct ChunkQueue: Sendable {
    /// The next bytes of a message or reply.
    package struct Chunk: Sendable {
        package var id: UInt64
        package var isReply: Bool
        package var bytes: ByteBuffer
    }

    private var rests = Deque<Chunk>()
    private let chunkBytes: Int

    package init(chunkBytes: Int = Packet.chunkBytes) { self.chunkBytes = chunkBytes }

    package var isEmpty: Bool { rests.isEmpty }

    /// Queues what did not fit the first packet.
    package mutating func append(_ id: UInt64, isReply: Bool, _ rest: ByteBuffer) {
        guard rest.readableBytes > 0 else { return }
        rests.append(Chunk(id: id, isReply: isReply, bytes: rest))
    }

    /// The next chunk in turn; nil when nothing waits. Shares the message's bytes.
    package mutating func next() -> Chunk? {
        guard var chunk = rests.popFirst() else { return nil }
        var rest = chunk
        chunk.bytes = rest.bytes.readSlice(length: min(chunkBytes, rest.bytes.readableBytes)) ?? rest.bytes
        if rest.bytes.readableBytes > 0 { rests.append(rest) }
        return chunk
    }

    /// Drops what is left of one; false when nothing was.
    package mutating func forget(_ id: UInt64, isReply: Bool) -> Bool {
        guard !rests.isEmpty else { return false }
        let before = rests.count
        rests.removeAll { $0.id == id && $0.isReply == isReply }
        return rests.count < before
    }
}
