/// Names one message: its sender's incarnation, its topic and its number there.
public struct MessageID: Hashable, Sendable, CustomStringConvertible {
    /// Which start of which node sent it.
    public let incarnation: Incarnation
    /// The topic.
    public let topic: Topic
    /// The message's number on the topic.
    public let sequence: UInt64

    package init(incarnation: Incarnation, topic: Topic, sequence: UInt64) {
        self.incarnation = incarnation
        self.topic = topic
        self.sequence = sequence
    }

    /// `incarnation-topic-sequence` in `[A-Za-z0-9.-]`: the topic as its 64-bit FNV-1a hash in hexadecimal.
    public var description: String {
        let hash = topic.name.utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01B3
        }
        return "\(incarnation)-\(hexadecimal(hash))-\(sequence)"
    }
}
