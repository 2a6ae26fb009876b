internal import NIOCore

/// Repairs: what members ask of the own stream, and what comes of other streams because it was asked for.
extension ChannelMachine {
    /// The oldest frame that can still be sent again.
    var oldest: UInt64 {
        mutating get { retention?.oldest ?? window.floor(next: next) }
    }

    /// What came from `peer` about missing frames: of the own stream, or of the peer's.
    package mutating func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity, now: Instant) {
        switch packet {
        case .request(streamID, let ranges): requested(ranges, by: peer, now: now)
        case .frames(let stream, let frames): repairedFrames(frames, of: stream, from: peer, now: now)
        case .gone(let stream, let range):
            inbound.repairGone(stream, range, .beyondRetention, from: peer, now: now)
        case .evicted(let stream, let range):
            inbound.repairGone(stream, range, .evicted, from: peer, now: now)
        case .later(let stream, let milliseconds):
            guard inbound.identity(of: stream) == peer else {
                return inbound.inbox.counters.add(.streamRepairsRefused)
            }
            inbound.repairFailed(stream, wait: .milliseconds(Int64(min(milliseconds, 60_000))), now: now)
        case .head(let stream, _, let frame): headReceived(frame, of: stream, from: peer, now: now)
        case .since(streamID, let milliseconds):
            let moment = now - .milliseconds(Int64(milliseconds))
            let first = times.first(since: moment, next: next)
            let place = RepairPacket.Place(
                milliseconds: milliseconds, first: first, oldest: min(oldest, first))
            answer(.place(stream: streamID, place), to: peer)
        case .place(let stream, let place): inbound.placed(stream, place, from: peer, now: now)
        case .request, .since: inbound.inbox.counters.add(.streamRepairsRefused)
        }
    }

    /// The sender of a stream hears nothing of this node, and says how far it is.
    private mutating func headReceived(
        _ frame: ByteBuffer, of stream: UInt64, from peer: NodeIdentity, now: Instant
    ) {
        guard let header = try? decoder.decode(frame, into: &records), header.isHead,
            header.streamID == stream, stream != streamID, records.announcement?.identity == peer
        else { return inbound.inbox.counters.add(.streamRepairsRefused) }
        inbound.headReceived(header, &records, bytes: frame.readableBytes, now: now)
    }

    /// A request could not be sent, or its link ended.
    package mutating func repairFailed(_ stream: UInt64, now: Instant) {
        inbound.repairFailed(stream, wait: .zero, now: now)
    }

    /// Bytes of repaired frames for a member have left, or never will.
    package mutating func repairWritten(_ bytes: Int, to member: NodeIdentity, now: Instant) {
        desk.written(bytes, to: member, now: now)
    }

    private mutating func requested(_ ranges: [ClosedRange<UInt64>], by member: NodeIdentity, now: Instant) {
        guard retention != nil, let last = ranges.last, last.upperBound < next else {
            return inbound.inbox.counters.add(.streamRepairsRefused)
        }
        let ranges = kept(of: evicted(from: ranges, of: member), for: member)
        if ranges.isEmpty { return }
        // What the group gets once more does not help who does not hear it.
        let groupSize = window.isDeaf(member) ? 0 : window.count
        let wait = desk.asked(member, ranges, groupSize: groupSize, now: now)
        inbound.inbox.counters.set(.limitRepairsHit, desk.limitHits)
        guard let wait else {
            return inbound.inbox.counters.set(
                .streamRepairsSessions,
                max(inbound.inbox.counters[.streamRepairsSessions], UInt64(desk.sessionCount)))
        }
        inbound.inbox.counters.add(.streamRepairsDeferred)
        let milliseconds = UInt32(clamping: wait.nanoseconds / 1_000_000)
        answer(.later(stream: streamID, milliseconds: milliseconds), to: member)
    }

    /// What is left of a request when the member has no claim to what was sent before it was evicted.
    private mutating func evicted(
        from ranges: [ClosedRange<UInt64>], of member: NodeIdentity
    ) -> [ClosedRange<UInt64>] {
        let end = window.evictedEnd(of: member)
        guard let first = ranges.first, first.lowerBound < end else { return ranges }
        gone(first.lowerBound...end - 1, for: member, .evicted)
        var rest = ranges
        rest.subtract(first.lowerBound...end - 1)
        return rest
    }

    /// What is left of a request when what is not kept any more has been refused.
    private mutating func kept(
        of ranges: [ClosedRange<UInt64>], for member: NodeIdentity
    ) -> [ClosedRange<UInt64>] {
        let oldest = oldest
        guard let first = ranges.first, first.lowerBound < oldest else { return ranges }
        for range in ranges where range.lowerBound < oldest {
            gone(range.lowerBound...min(range.upperBound, oldest - 1), for: member)
        }
        var rest = ranges
        rest.subtract(first.lowerBound...oldest - 1)
        return rest
    }

    private mutating func repairedFrames(
        _ frames: ByteBuffer, of stream: UInt64, from peer: NodeIdentity, now: Instant
    ) {
        guard inbound.identity(of: stream) == peer else {
            return inbound.inbox.counters.add(.streamRepairsRefused)
        }
        var rest = frames
        while rest.readableBytes > 0 {
            guard let frame = rest.readLengthPrefixedSlice(as: UInt16.self),
                let header = try? decoder.decode(frame, into: &records), header.streamID == stream,
                !header.isHead
            else { return inbound.inbox.counters.add(.streamRepairsRefused) }
            inbound.inbox.repaired = .tcp
            if inbound.received(header, &records, bytes: frame.readableBytes, now: now) {
                inbound.inbox.counters.add(.streamRepairedTCP)
            }
        }
    }

    /// Sends members what they asked for, as far as its share of the rate allows; a frame that several miss
    /// is left to ``nextFrame(into:now:)``.
    package mutating func serveRepairs(now: Instant) {
        while case .serve(let member, let first, let countMax)? = desk.next(now: now) {
            let step = RepairDesk.Step.serve(member, first: first, countMax: countMax)
            var packet = ByteBuffer()
            var count = 0
            while count < countMax, append(first + UInt64(count), to: &packet) { count += 1 }
            if count > 0 {
                inbound.inbox.counters.add(.streamRepairsServed, count)
                inbound.inbox.counters.add(.streamRepairsBytes, packet.readableBytes)
                answer(.frames(stream: streamID, packet), to: member, bytes: packet.readableBytes)
                if receiptFrame >= first {
                    inbound.inbox.events.append(.served(member, first...first + UInt64(count) - 1))
                }
            } else {
                let kept = max(first + 1, retention?.oldest ?? next)
                count = Int(clamping: min(UInt64(countMax), kept - first))
                gone(first...first + UInt64(count) - 1, for: member)
            }
            desk.did(step, count: count, bytes: packet.readableBytes, rate: repairedRate, now: now)
        }
    }

    /// Adds a frame with its length to a repair packet; false: it is not kept, or the packet is full.
    private func append(_ sequence: UInt64, to packet: inout ByteBuffer) -> Bool {
        let start = packet.writerIndex
        packet.writeInteger(0 as UInt16)
        var isKept = retention?.append(header(sequence), to: &packet) ?? false
        if isKept, PlantedBug.repairsWithAnother.isPlanted, sequence > 1 {
            packet.moveWriterIndex(to: start + MemoryLayout<UInt16>.size)
            isKept = retention?.append(header(sequence - 1), to: &packet) ?? false
            packet.setInteger(sequence, at: start + MemoryLayout<UInt16>.size + 16)
        }
        guard isKept, start == 0 || packet.writerIndex <= RepairPacket.framesBytesMax else {
            packet.moveWriterIndex(to: start)
            return false
        }
        let length = packet.writerIndex - start - MemoryLayout<UInt16>.size
        packet.setInteger(UInt16(length), at: start)
        return true
    }

    private mutating func answer(_ packet: RepairPacket, to member: NodeIdentity, bytes: Int = 0) {
        inbound.inbox.events.append(.repairAnswer(packet, to: member, bytes: bytes))
    }

    /// What a member asked for it does not get: both sides say so.
    private mutating func gone(
        _ range: ClosedRange<UInt64>, for member: NodeIdentity, _ reason: Loss.Reason = .beyondRetention
    ) {
        inbound.inbox.counters.add(.streamRepairsGone, range.count)
        answer(
            reason == .evicted ? .evicted(stream: streamID, range) : .gone(stream: streamID, range),
            to: member)
        let loss = Loss(
            from: identity.name, channel: inbound.inbox.channel, stream: streamID, first: range.lowerBound,
            last: range.upperBound, reason: reason, member: member.name)
        inbound.inbox.events.append(.loss(loss))
    }

    /// A frame that several members miss, once more to all under its old number.
    mutating func resendFrame(into frame: inout ByteBuffer, now: Instant) -> Bool {
        if desk.isIdle { return false }
        // Who asked for what is gone meanwhile asks again, and is told.
        desk.dropCommon(before: oldest)
        while case .again(let sequence)? = desk.next(now: now) {
            let start = frame.writerIndex
            let isKept = retention?.append(header(sequence), to: &frame) ?? false
            let bytes = frame.writerIndex - start
            desk.did(.again(sequence), count: 1, bytes: bytes, rate: repairedRate, now: now)
            guard isKept else { continue }
            frame.setInteger(FrameWire.againFlag, at: start + FrameWire.flagsOffset)
            if PlantedBug.renumbersRepairs.isPlanted {
                frame.setInteger(next, at: start + 16)
                next += 1
            }
            inbound.inbox.counters.add(.streamRepairsResent)
            inbound.inbox.counters.add(.streamRepairsBytes, bytes)
            return true
        }
        return false
    }

    /// The rate that repairs have a share of. The pace of a sender with little to say is as little, and says
    /// nothing of what the group can take.
    private var repairedRate: Double? {
        fixedRate ?? pace.rate.map { max($0, RepairDesk.rateMin) }
    }
}
