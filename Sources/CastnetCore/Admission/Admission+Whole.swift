extension Admission {
    // libpgm loses a stream for good if, in one call, it meets a loss behind something it has delivered in
    // that call. So it may deliver more than one packet in a call only while nothing is missing anywhere.
    // This side sees everything that could tell libpgm of a number, and what libpgm has delivered.

    /// libpgm misses nothing of any stream.
    package var isWhole: Bool { brokenCount == 0 }

    /// libpgm has delivered this packet of a stream, and so everything before it or its loss.
    package mutating func delivered(_ tsi: UInt64, _ sequence: UInt32, now: Instant) {
        // A stream whose last packets were lost stays broken until it is forgotten.
        forgetSilent(now)
        guard var stream = streams[tsi], !stream.isWhole, stream.lead == sequence, stream.resync == nil else {
            return
        }
        setWhole(&stream, true)
        streams[tsi] = stream
    }

    /// libpgm did not deliver what it could have: nothing is certain any more.
    package mutating func doubt() {
        for (tsi, var stream) in streams.all {
            setWhole(&stream, false)
            streams[tsi] = stream
        }
    }

    func isNext(_ stream: AdmittedStream, _ jump: UInt32) -> Bool {
        jump == 1 && isWhole && stream.resync == nil
    }

    /// The head that ends a burst goes alone: libpgm never forgets a sender whose last packet was one of
    /// several in its call.
    func isHead(_ bytes: Span<UInt8>) -> Bool {
        let flags = PGMPacket.dataStart + FrameWire.flagsOffset
        return bytes.count > flags && bytes[flags] & FrameWire.headFlag != 0
    }

    mutating func setWhole(_ stream: inout AdmittedStream, _ isWhole: Bool) {
        guard stream.isWhole != isWhole else { return }
        stream.isWhole = isWhole
        brokenCount += isWhole ? -1 : 1
    }
}
