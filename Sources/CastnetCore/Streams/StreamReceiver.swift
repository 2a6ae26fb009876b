package import NIOCore

/// One sender's stream as a member follows it: order, holes, duplicates and the parts of large messages.
///
/// PGM hands frames over in order and skips those it gave up on; so a hole in the numbers is a loss.
/// Memory: the parts of messages under way, and the frames of a stream that has not said whose it is.
package struct StreamReceiver: Sendable {
    /// What frames lead to, collected over a batch.
    package struct Output: Sendable {
        package var records: [InboundRecord] = []
        package var losses: [Loss] = []
        package var counts = CounterSet()
        package var announcement: Announcement?
        package init() {}
    }

    private struct Assembly: Sendable {
        var head: Chunk.Head
        var bytes: ByteBuffer
    }

    package let stream: UInt64
    private let channel: String
    private let messageMax: Int
    private let assemblyMax: Int
    private let unidentifiedMax: Int
    /// Whose stream it is; nil until the sender said so.
    package private(set) var identity: NodeIdentity?
    /// The next expected frame.
    package private(set) var next: UInt64
    /// Frames declared lost.
    package private(set) var lostCount: UInt64 = 0
    private var assemblies: [UInt64: Assembly] = [:]
    package private(set) var assemblyBytes = 0
    /// Frames that came before the announcement, in order.
    private var unidentified: [(sequence: UInt64, records: ByteBuffer)] = []

    package init(
        stream: UInt64, channel: String, first: UInt64, messageMax: Int, assemblyMax: Int,
        unidentifiedMax: Int
    ) {
        self.stream = stream
        self.channel = channel
        next = first
        self.messageMax = messageMax
        self.assemblyMax = assemblyMax
        self.unidentifiedMax = unidentifiedMax
    }

    /// Frames that wait for the announcement.
    package var unidentifiedCount: Int { unidentified.count }

    /// Takes the next frame of the stream in; `records` is what follows its header.
    package mutating func received(_ header: FrameHeader, _ records: ByteBuffer, into output: inout Output) {
        guard header.sequence >= next || header.isHead else { return output.counts.add(.streamDuplicates) }
        if header.sequence > next { lose(next...header.sequence - 1, .unrepaired, &output) }
        if !header.isHead { next = header.sequence + 1 }
        guard identity == nil else { return read(header.sequence, records, &output) }
        identify(records)
        if identity != nil {
            let waiting = unidentified
            unidentified = []
            for (sequence, records) in waiting { read(sequence, records, &output) }
            read(header.sequence, records, &output)
        } else if !header.isHead {
            if unidentified.count < unidentifiedMax {
                unidentified.append((header.sequence, records))
            } else {
                lose(header.sequence...header.sequence, .reorderFull, &output)
            }
        }
    }

    private mutating func identify(_ records: ByteBuffer) {
        var reader = FrameReader(records: records)
        while let record = try? reader.next() {
            if case .announce(let announcement) = record { identity = announcement.node }
        }
    }

    private mutating func lose(_ range: ClosedRange<UInt64>, _ reason: Loss.Reason, _ output: inout Output) {
        lostCount += UInt64(range.count)
        output.counts.add(.streamGaps)
        output.counts.add(.streamLost, range.count)
        output.losses.append(
            Loss(
                from: identity?.name ?? hexadecimal(stream), channel: channel, stream: stream,
                first: range.lowerBound, last: range.upperBound, reason: reason))
        // Messages are cut one after the other, so one that is under way has lost a part.
        output.counts.add(.streamMessagesCut, assemblies.count)
        assemblies = [:]
        assemblyBytes = 0
    }

    private mutating func read(_ sequence: UInt64, _ records: ByteBuffer, _ output: inout Output) {
        guard let identity else { return }
        var reader = FrameReader(records: records)
        do {
            while let record = try reader.next() {
                switch record {
                case .run(let topic, let first, let sentAt, let count, let body):
                    output.counts.add(.streamMessagesReceived, count)
                    output.records.append(
                        InboundRecord(
                            topic: topic, from: identity, firstSequence: first, sentAtMicroseconds: sentAt,
                            count: count, body: body, isRun: true))
                case .chunk(let chunk): take(chunk, sequence, &output)
                case .announce(let announcement): output.announcement = announcement
                case .head: break
                }
            }
        } catch {
            output.counts.add(.pgmRejectedMalformed)
            lose(sequence...sequence, .unrepaired, &output)
        }
    }

    private mutating func take(_ chunk: Chunk, _ sequence: UInt64, _ output: inout Output) {
        if let head = chunk.head {
            guard head.total <= UInt64(messageMax) + (head.headersInBody ? 20_000 : 0) else {
                output.counts.add(.limitMessageHit)
                return lose(sequence...sequence, .tooLarge, &output)
            }
            if UInt64(chunk.data.readableBytes) == head.total { return deliver(head, chunk.data, &output) }
            guard assemblyBytes <= assemblyMax, assemblies[chunk.message] == nil else {
                output.counts.add(.limitMemoryHit)
                return lose(sequence...sequence, .tooLarge, &output)
            }
            assemblies[chunk.message] = Assembly(head: head, bytes: ByteBuffer())
        }
        // A part of a message whose beginning was lost, or came before this member joined, is nobody's.
        guard var assembly = assemblies.removeValue(forKey: chunk.message) else { return }
        let end = chunk.offset.addingReportingOverflow(UInt64(chunk.data.readableBytes))
        guard chunk.offset == UInt64(assembly.bytes.readableBytes), !end.overflow,
            end.partialValue <= assembly.head.total
        else {
            assemblyBytes -= assembly.bytes.readableBytes
            return output.counts.add(.streamMessagesCut)
        }
        var data = chunk.data
        assemblyBytes += data.readableBytes
        assembly.bytes.writeBuffer(&data)
        if end.partialValue < assembly.head.total {
            assemblies[chunk.message] = assembly
        } else {
            assemblyBytes -= assembly.bytes.readableBytes
            deliver(assembly.head, assembly.bytes, &output)
        }
    }

    private mutating func deliver(_ head: Chunk.Head, _ bytes: ByteBuffer, _ output: inout Output) {
        guard let identity else { return }
        var (body, headers) = (bytes, head.headers)
        if head.headersInBody {
            guard let inside = try? body.readHeaders() else {
                output.counts.add(.pgmRejectedMalformed)
                return output.counts.add(.streamMessagesCut)
            }
            headers = inside
        }
        output.counts.add(.streamMessagesReceived)
        output.records.append(
            InboundRecord(
                topic: head.topic, from: identity, firstSequence: head.sequence,
                sentAtMicroseconds: head.sentAt, headers: headers, body: body))
    }
}
