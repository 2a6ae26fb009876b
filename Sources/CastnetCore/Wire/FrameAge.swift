extension FrameWire {
    /// How long the stream of the frame at `start` had been going on when the frame left; nil: it does not
    /// say.
    ///
    /// For those who look at packets before anybody decodes them: senders announce themselves in the first
    /// record of each of their first frames.
    package static func streamAge(in packet: Span<UInt8>, from start: Int) -> Duration? {
        let record = start + headerLength
        guard packet.count > record + recordHeadLength, packet[record] == FrameRecord.Kind.announce else {
            return nil
        }
        let end = record + recordHeadLength + Int(packet.load16(record + 1))
        let name = record + recordHeadLength
        // Behind the name: incarnation, digest, two frame numbers, and the age.
        let age = name + 1 + Int(packet[name]) + 4 * 8
        guard age + 4 <= end, end <= packet.count else { return nil }
        return .milliseconds(Int64(packet.load32(age)))
    }
}
