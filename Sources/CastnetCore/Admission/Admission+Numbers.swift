extension Admission {
    // MARK: What a known stream sends

    mutating func judgeData(
        _ tsi: UInt64, _ sequence: UInt32, _ trail: UInt32, goesAlone: Bool, isRepair: Bool,
        _ arrival: Arrival, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard var stream = streams[tsi] else { throw .unknown }
        stream.heardAt = now
        stream.port = arrival.port
        defer { streams[tsi] = stream }
        if let resync = stream.resync {
            guard !isRepair else { throw .resync }
            if let verdict = try resume(tsi, &stream, resync, sequence, trail, now) { return verdict }
        }
        let before = stream.lead
        guard try advance(&stream, to: sequence, now, isData: true) else {
            return .only(giveUp(tsi, &stream, before: sequence, now))
        }
        stream.trail = trail
        guard now >= stream.spmAt + refreshAfter else {
            return !isRepair && !goesAlone && isNext(stream, sequence &- before) ? .admitNext : .admit
        }
        // libpgm may have forgotten the stream, or be about to: it asks for what it has not seen.
        stream.spmAt = now
        let isBehind = Int32(bitPattern: trail &- 1 &- before) > 0
        return .admitAfter(spm(tsi, stream, trail: trail, lead: isBehind ? trail &- 1 : before))
    }

    mutating func judgeSPM(
        _ tsi: UInt64, _ sequence: UInt32, _ trail: UInt32, _ lead: UInt32, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard var stream = streams[tsi] else { throw .unknown }
        stream.heardAt = now
        defer { streams[tsi] = stream }
        guard stream.resync == nil else { throw .resync }
        // libpgm ignores a lower number than it has seen, and has seen 0 when it met the stream once more. No
        // sender counts so far that the difference would wrap.
        guard sequence < 1 << 31 else { throw .numbers }
        guard sequence >= stream.spmSequence else { throw .behind }
        _ = try advance(&stream, to: lead, now, isData: false)
        stream.spmAt = now
        stream.spmSequence = sequence
        return .admit
    }

    mutating func judgeNCF(
        _ tsi: UInt64, _ first: UInt32, _ listed: Int, _ bytes: Span<UInt8>, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard let stream = streams[tsi] else { throw .unknown }
        guard stream.resync == nil else { throw .resync }
        // libpgm may have forgotten the stream, and would meet it blind.
        guard now < stream.spmAt + settings.peerExpiry else { throw .unknown }
        var isKnown = true
        Self.forEach(first, listed, bytes) { number in
            let behind = Int32(bitPattern: stream.lead &- number)
            if behind < 0 || behind >= settings.window { isKnown = false }
        }
        guard isKnown else { throw .numbers }
        return .admit
    }

    /// Moves the mirror on, if libpgm may follow; false: there has been an outage.
    ///
    /// Three packets far ahead and near each other, of which the last is data, are an outage.
    private mutating func advance(
        _ stream: inout AdmittedStream, to number: UInt32, _ now: Instant, isData: Bool
    ) throws(Rejection) -> Bool {
        let jump = Int32(bitPattern: number &- stream.lead)
        if jump <= 0 {
            guard jump > -Int32(bitPattern: settings.window) else { throw .behind }
            return true
        }
        // The budget may never hold enough for a large window.
        guard jump <= Int32(bitPattern: settings.window), Int(jump) <= jumps.capacity else {
            guard jump <= Self.outageMax else { throw .far }
            let isNear = (number &- stream.far.sequence) &+ settings.window <= settings.window &* 2
            stream.far = (stream.far.count > 0 && isNear ? min(3, stream.far.count + 1) : 1, number)
            guard isData, stream.far.count >= 3 else { throw .far }
            stream.far = (0, 0)
            return false
        }
        if jump > 1 {
            jumps.refill(now)
            guard jumps.take(Int(jump) - 1) else { throw .jump }
        }
        stream.far = (0, 0)
        stream.lead = number
        if jump > 1 || !isData { setWhole(&stream, false) }
        return true
    }

    func spm(_ tsi: UInt64, _ stream: AdmittedStream, trail: UInt32, lead: UInt32) -> SyntheticSPM {
        SyntheticSPM(tsi: tsi, sequence: stream.spmSequence, trail: trail, lead: lead, path: stream.source)
    }

    // MARK: What others ask of the own stream

    mutating func judgeNAK(
        _ first: UInt32, _ listed: Int, _ bytes: Span<UInt8>, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard let ownLead else { throw .numbers }
        if repairedAt.isEmpty {
            repairedAt = Array(repeating: Instant(nanoseconds: .min), count: Int(settings.window))
        }
        repairs.refill(now)
        let (ownTrail, mask, span) = (ownTrail, settings.window - 1, ownLead &- ownTrail)
        var (known, wanted) = (0, 0)
        Self.forEach(first, listed, bytes) { number in
            guard number &- ownTrail <= span else { return }
            known += 1
            if now.isPast(repairedAt[Int(number & mask)], settings.holdOff) { wanted += 1 }
        }
        guard known > 0 else { throw .numbers }
        guard wanted > 0 else { throw .holdoff }
        guard repairs.take(known) else { throw .rate }
        Self.forEach(first, listed, bytes) { number in
            if number &- ownTrail <= span { repairedAt[Int(number & mask)] = now }
        }
        return .admit
    }

    private static func forEach(
        _ first: UInt32, _ listed: Int, _ bytes: Span<UInt8>, _ body: (UInt32) -> Void
    ) {
        body(first)
        for index in 0..<listed { body(bytes.load32(PGMPacket.listStart + 4 * index)) }
    }

    // MARK: Out

    /// A packet that libpgm sends.
    package mutating func sending(_ bytes: Span<UInt8>, now: Instant) -> Departure {
        guard bytes.count >= PGMPacket.headerLength, let type = PGMPacketType(rawValue: bytes[4]) else {
            return .send
        }
        counters.add(type.countedOut)
        switch type {
        case .odata where bytes.count >= PGMPacket.dataStart:
            ownLead = bytes.load32(16)
            ownTrail = bytes.load32(20)
            sentDataAt = now
        case .spm where bytes[5] == 0:
            // The heads of the streams say as much: ten thousand idle nodes must not fill the network.
            guard let sentDataAt, now < sentDataAt + .seconds(5) else { return .swallow }
        case .nak, .spmr:
            let tsi = UInt64(bytes.load32(8)) << 32 | UInt64(bytes.load16(12)) << 16 | UInt64(bytes.load16(2))
            if let port = steeredPort(tsi) { return .steer(port) }
        default: break
        }
        return .send
    }
}

extension Instant {
    /// True when at least `pause` has gone by since `earlier`.
    fileprivate func isPast(_ earlier: Instant, _ pause: Duration) -> Bool {
        earlier == Instant(nanoseconds: .min) || self >= earlier + pause
    }
}
