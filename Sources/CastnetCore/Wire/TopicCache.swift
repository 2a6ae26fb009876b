internal import NIOCore

/// Recently read topics, so that a frame's topic costs a comparison and not a string.
///
/// Direct-mapped and therefore bounded: 256 names, the newest of each slot.
struct TopicCache: Sendable {
    private var slots = [Topic?](repeating: nil, count: 256)

    /// The topic whose name is `bytes`, or nil where that is none.
    mutating func topic(_ bytes: ByteBuffer) -> Topic? {
        let view = bytes.readableBytesView
        var hash: UInt32 = 2_166_136_261
        for byte in view { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        let slot = Int((hash ^ hash >> 16) & 255)
        if let known = slots[slot], known.name.utf8.count == view.count, known.name.utf8.elementsEqual(view) {
            return known
        }
        let name = String(decoding: view, as: UTF8.self)
        guard Topic.fault(in: name, wildcards: false) == nil else { return nil }
        let topic = Topic(unchecked: name)
        slots[slot] = topic
        return topic
    }
}
