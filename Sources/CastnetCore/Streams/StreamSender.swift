import DequeModule
package import NIOCore

/// Cuts messages into numbered frames: small ones are packed, large ones cut into chunks.
///
/// It holds the messages, not frames: a large one is cut as its frames are asked for, so that memory stays at
/// what was submitted. It does not decide when a frame may leave: `Outflow` does.
package struct StreamSender: ~Copyable {
    private let stream: UInt64
    private let identity: NodeIdentity
    private let channelDigest: UInt64
    private let reportTo: DatagramAddress
    private let frameSizeMax: Int

    private var queue = Deque<OutboundCast>()
    /// Payload bytes queued.
    package private(set) var queuedBytes = 0
    /// Messages whose last byte has been cut.
    package private(set) var sentCount = 0
    /// The number of the next frame.
    package private(set) var next: UInt64 = 0
    /// How far the message in front has been cut into chunks; nil: not begun.
    private var cutting: (message: UInt64, offset: UInt64)?
    private var nextMessage: UInt64 = 1
    private var announcedAt: Instant?
    /// Head frames to follow the last data frame.
    private var headsDue = Deque<Instant>()

    private static let headDelays: [Duration] = [20, 50, 100, 200, 500].map { .milliseconds($0) }
    private static let announceInterval = Duration.milliseconds(50)

    package init(
        stream: UInt64, identity: NodeIdentity, channelDigest: UInt64, reportTo: DatagramAddress,
        frameSizeMax: Int
    ) {
        self.stream = stream
        self.identity = identity
        self.channelDigest = channelDigest
        self.reportTo = reportTo
        self.frameSizeMax = frameSizeMax
    }

    package var hasData: Bool { !queue.isEmpty }
    package var nextHeadAt: Instant? { headsDue.first }

    package mutating func submit(_ casts: consuming [OutboundCast]) {
        for var cast in casts {
            cast.moveHeaders(above: 128)
            queuedBytes += cast.payload.readableBytes
            queue.append(cast)
        }
    }

    /// Writes the next data frame; false when nothing is queued. `sent` gets the tokens of the messages that
    /// end in it.
    package mutating func dataFrame(
        into frame: inout ByteBuffer, intervalUnits: UInt16, oldest: UInt64, now: Instant,
        sent: inout [UInt64]
    ) -> Bool {
        guard !queue.isEmpty else { return false }
        var writer = begin(&frame, sequence: next, isHead: false, intervalUnits: intervalUnits)
        if next < 16 || announcedAt.map({ now >= $0 + Self.announceInterval }) ?? true {
            announcedAt = now
            writer.append(announcement(oldest), to: &frame)
        }
        while let cast = queue.first {
            guard append(cast, to: &writer, &frame) else { break }
            guard cutting == nil else { break }
            queue.removeFirst()
            queuedBytes -= cast.payload.readableBytes
            sentCount += 1
            if let token = cast.token { sent.append(token) }
        }
        writer.finish(&frame)
        next += 1
        headsDue = Deque(Self.headDelays.map { now + $0 })
        return true
    }

    /// Makes a head due at once.
    package mutating func requestHead(now: Instant) { headsDue.prepend(now) }

    /// Writes a head if one is due.
    package mutating func headFrame(
        into frame: inout ByteBuffer, intervalUnits: UInt16, oldest: UInt64, now: Instant
    ) -> Bool {
        guard let due = headsDue.first, due <= now else { return false }
        while let due = headsDue.first, due <= now { headsDue.removeFirst() }
        var writer = begin(&frame, sequence: next, isHead: true, intervalUnits: intervalUnits)
        writer.append(announcement(oldest), to: &frame)
        writer.appendHead(next: next, oldest: oldest, to: &frame)
        writer.finish(&frame)
        return true
    }

    private func begin(
        _ frame: inout ByteBuffer, sequence: UInt64, isHead: Bool, intervalUnits: UInt16
    ) -> FrameWriter {
        let header = FrameHeader(
            stream: stream, sequence: sequence, isHead: isHead, reportTo: reportTo,
            intervalUnits: intervalUnits)
        return FrameWriter(header, into: &frame, bytesMax: frameSizeMax)
    }

    private func announcement(_ oldest: UInt64) -> Announcement {
        Announcement(node: identity, channelDigest: channelDigest, oldest: oldest)
    }

    /// Appends the message, or its next chunk; false when nothing of it fits. `cutting` is nil afterwards
    /// exactly when the message is complete.
    private mutating func append(
        _ cast: OutboundCast, to writer: inout FrameWriter, _ frame: inout ByteBuffer
    ) -> Bool {
        let size = cast.payload.readableBytes
        let isSmall = size <= FrameWriter.runPayloadMax(topic: cast.topic, bytesMax: frameSizeMax)
        if cutting == nil, isSmall, cast.headers.isEmpty, !cast.headersInBody {
            return writer.append(
                cast.payload, topic: cast.topic, sequence: cast.sequence, sentAt: cast.sentAtMicroseconds,
                to: &frame)
        }
        let position = cutting ?? (nextMessage, 0)
        var head = Chunk.Head(
            topic: cast.topic, sequence: cast.sequence, sentAt: cast.sentAtMicroseconds, total: UInt64(size),
            headers: cast.headers)
        head.headersInBody = cast.headersInBody
        let written = writer.append(
            message: position.message, head, cast.payload, from: Int(position.offset), to: &frame)
        guard let length = written else { return false }
        if cutting == nil { nextMessage += 1 }
        let end = position.offset + UInt64(length)
        cutting = end < UInt64(size) ? (position.message, end) : nil
        return true
    }
}
