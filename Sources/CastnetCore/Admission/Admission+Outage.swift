extension Admission {
    // libpgm fills every jump with placeholders, one allocation each, unless its window is empty when the
    // trail moves: only then does it jump. And it looks at a trail once: the same one again changes nothing.
    // So the window is emptied first, and only a later trail moves it on. Whatever libpgm has to deliver or
    // to give up it does before it reads the next packet.

    /// The farthest an outage may reach: beyond half of all numbers ahead means behind, for libpgm too, whose
    /// lead may be lower than ours by what it had no room for.
    static var outageMax: Int32 { Int32.max - 1 << 25 }

    /// The first step: one number more to wait for, so that there is something to give up.
    mutating func giveUp(
        _ tsi: UInt64, _ stream: inout AdmittedStream, before sequence: UInt32, _ now: Instant
    ) -> SyntheticSPM {
        stream.resync = AdmittedStream.Resync(sequence: sequence, since: now)
        stream.spmAt = now
        stream.lead &+= 1
        setWhole(&stream, false)
        return spm(tsi, stream, trail: stream.lead, lead: stream.lead)
    }

    /// The steps after it; nil: the stream goes on where it was, and somebody else spoke of an outage.
    mutating func resume(
        _ tsi: UInt64, _ stream: inout AdmittedStream, _ resync: AdmittedStream.Resync, _ sequence: UInt32,
        _ trail: UInt32, _ now: Instant
    ) throws(Rejection) -> Verdict? {
        let jump = Int32(bitPattern: sequence &- stream.lead)
        guard jump > 0 else { throw .resync }
        guard jump > Int32(bitPattern: settings.window) || Int(jump) > jumps.capacity else {
            stream.resync = nil
            return nil
        }
        guard jump <= Self.outageMax else { throw .far }
        guard resync.isEmptied else {
            stream.resync?.isEmptied = true
            stream.spmAt = now
            return .only(spm(tsi, stream, trail: stream.lead &+ 1, lead: stream.lead))
        }
        guard now >= resync.since + .milliseconds(50) else { throw .resync }
        // What was dropped since then libpgm may ask for, if that is not too much.
        let missed = Int32(bitPattern: sequence &- resync.sequence)
        jumps.refill(now)
        let asks = missed > 0 && missed < Int32(bitPattern: settings.window) && jumps.take(Int(missed))
        let start = asks ? resync.sequence : sequence
        // Its lead is for the case that libpgm has forgotten the stream: then it takes nothing else from it.
        let moved = spm(tsi, stream, trail: start, lead: start &- 1)
        stream.resync = nil
        setWhole(&stream, false)
        stream.lead = sequence
        stream.trail = trail
        stream.spmAt = now
        return .admitAfter(moved)
    }
}
