package import NIOCore

/// What members and senders say to each other about missing frames, on a link between the two.
package enum RepairPacket: Hashable, Sendable {
    /// Send these frames of the stream again: at most ``rangesMax`` ranges.
    case request(stream: UInt64, [ClosedRange<UInt64>])
    /// Whole frames as they were sent, each behind a 16-bit length.
    case frames(stream: UInt64, ByteBuffer)
    /// These frames are not kept any more.
    case gone(stream: UInt64, ClosedRange<UInt64>)
    /// The sender evicted the member, which has no claim to these frames.
    case evicted(stream: UInt64, ClosedRange<UInt64>)
    /// Others are being served: ask again after so many milliseconds.
    case later(stream: UInt64, milliseconds: UInt32)
    /// A head of a stream for a member that seems not to hear the group: the whole frame, and the digest of
    /// the channel.
    case head(stream: UInt64, channel: UInt64, ByteBuffer)

    /// A member that began to listen so many milliseconds ago asks from which frame on that was.
    case since(stream: UInt64, milliseconds: UInt32)
    /// The answer to that.
    case place(stream: UInt64, Place)

    /// Where a stream begins for a member.
    package struct Place: Hashable, Sendable {
        /// What the member said, so that it knows which of its questions this answers.
        package var milliseconds: UInt32
        package var first: UInt64
        /// The oldest frame that the sender still keeps.
        package var oldest: UInt64

        package init(milliseconds: UInt32, first: UInt64, oldest: UInt64) {
            self.milliseconds = milliseconds
            self.first = first
            self.oldest = oldest
        }
    }

    package static let rangesMax = 64
    /// Bytes of frames in one packet.
    package static let framesBytesMax = 32 << 10

    package var stream: UInt64 {
        switch self {
        case .request(let stream, _), .frames(let stream, _), .gone(let stream, _), .later(let stream, _),
            .head(let stream, _, _), .evicted(let stream, _), .since(let stream, _), .place(let stream, _):
            stream
        }
    }

    /// Of questions that say the same only the newest need be sent.
    package struct Question: Hashable, Sendable {
        let stream: UInt64
        let kind: UInt8
    }

    package var question: Question { Question(stream: stream, kind: kind.rawValue) }

    /// True: a member says it to the sender of the stream.
    package var isForSender: Bool {
        switch self {
        case .request, .since: true
        default: false
        }
    }

    var kind: Packet.Kind {
        switch self {
        case .request: .repairRequest
        case .frames: .repairFrames
        case .gone: .repairGone
        case .later: .repairLater
        case .head: .repairHead
        case .evicted: .repairEvicted
        case .since: .repairSince
        case .place: .repairPlace
        }
    }

    func write(into buffer: inout ByteBuffer) {
        buffer.writeInteger(stream)
        switch self {
        case .request(_, let ranges):
            for range in ranges { buffer.writeMultipleIntegers(range.lowerBound, range.upperBound) }
        case .frames(_, let frames): buffer.writeImmutableBuffer(frames)
        case .gone(_, let range), .evicted(_, let range):
            buffer.writeMultipleIntegers(range.lowerBound, range.upperBound)
        case .later(_, let milliseconds), .since(_, let milliseconds): buffer.writeInteger(milliseconds)
        case .place(_, let place):
            buffer.writeMultipleIntegers(place.milliseconds, place.first, place.oldest)
        case .head(_, let channel, let frame):
            buffer.writeInteger(channel)
            buffer.writeImmutableBuffer(frame)
        }
    }

    init(_ kind: Packet.Kind, reading body: inout ByteBuffer) throws(WireError) {
        let stream = try body.read(UInt64.self)
        switch kind {
        case .repairRequest:
            var ranges: [ClosedRange<UInt64>] = []
            while body.readableBytes > 0 {
                guard ranges.count < Self.rangesMax else { throw .range }
                ranges.append(try Self.range(&body, after: ranges.last))
            }
            guard !ranges.isEmpty else { throw .truncated }
            self = .request(stream: stream, ranges)
        case .repairFrames: self = .frames(stream: stream, body.readSlice(length: body.readableBytes) ?? body)
        case .repairGone: self = .gone(stream: stream, try Self.range(&body, after: nil))
        case .repairSince: self = .since(stream: stream, milliseconds: try body.read(UInt32.self))
        case .repairPlace:
            let place = Place(
                milliseconds: try body.read(), first: try body.read(), oldest: try body.read())
            guard place.oldest > 0, place.oldest <= place.first, place.first <= FrameWire.numberMax else {
                throw .range
            }
            self = .place(stream: stream, place)
        case .repairEvicted: self = .evicted(stream: stream, try Self.range(&body, after: nil))
        case .repairHead:
            let channel = try body.read(UInt64.self)
            self = .head(
                stream: stream, channel: channel, body.readSlice(length: body.readableBytes) ?? body)
        default: self = .later(stream: stream, milliseconds: try body.read(UInt32.self))
        }
    }

    /// Ranges come in order and apart.
    private static func range(
        _ body: inout ByteBuffer, after last: ClosedRange<UInt64>?
    ) throws(WireError) -> ClosedRange<UInt64> {
        let (first, end) = (try body.read(UInt64.self), try body.read(UInt64.self))
        guard first > last?.upperBound ?? 0, end >= first, end <= FrameWire.numberMax else { throw .range }
        return first...end
    }
}
