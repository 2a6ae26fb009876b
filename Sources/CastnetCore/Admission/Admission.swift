/// Decides which packets of a group libpgm may see, and what it is told besides.
///
/// libpgm dies of malformed packets, stops a stream for good when two identifiers look alike to it, and is
/// blind at the start of a stream. So every packet is judged here first, against a mirror of what libpgm
/// knows. Confined to its driver; it holds at most `Settings.streamsMax` streams.
package struct Admission: ~Copyable {
    package struct Settings: Hashable, Sendable {
        package var tsi: UInt64
        package var address: UInt32
        package var group: UInt32
        package var dataPort: UInt16
        package var payloadMax: Int
        /// Packets of libpgm's windows: a power of two.
        package var window: UInt32
        /// What every payload starts with.
        package var magic: [UInt8]
        /// How long libpgm remembers a stream without an SPM.
        package var peerExpiry = Duration.seconds(20)
        package var streamsMax = 16_384
        /// Every start of a process is a stream of its own, and stays known for twice `peerExpiry`.
        package var streamsPerSource = 64
        /// A number asked for again sooner than this has just been repaired.
        package var holdOff = Duration.milliseconds(20)
        /// Skipped numbers: each costs libpgm an allocation, its queues and in the end a call that tells of
        /// its loss, two to three microseconds in all.
        package var jumps = TokenBucket(capacity: 200_000, perSecond: 100_000)
        /// Numbers asked for: 300 bytes of a NAK buy 63 packets.
        package var repairs = TokenBucket(capacity: 20_000, perSecond: 100_000)

        package init(
            tsi: UInt64, address: UInt32, group: UInt32, dataPort: UInt16, payloadMax: Int, window: UInt32,
            magic: [UInt8]
        ) {
            self.tsi = tsi
            self.address = address
            self.group = group
            self.dataPort = dataPort
            self.payloadMax = payloadMax
            self.window = window
            self.magic = magic
        }
    }

    /// Where a packet came from and to.
    package struct Arrival: Hashable, Sendable {
        package var source: UInt32
        package var port: UInt16
        /// 0: the kernel did not tell.
        package var destination: UInt32
        /// It came to the descriptor that this node sends from.
        package var isOnSend: Bool

        package init(source: UInt32, port: UInt16, destination: UInt32, isOnSend: Bool) {
            self.source = source
            self.port = port
            self.destination = destination
            self.isOnSend = isOnSend
        }
    }

    package enum Verdict: Hashable, Sendable {
        case admit
        /// Data that libpgm can deliver at once: it misses nothing of any stream.
        case admitNext
        case admitAfter(SyntheticSPM)
        /// The packet itself is dropped.
        case only(SyntheticSPM)
        case reject(Rejection)
    }

    /// What becomes of an own packet.
    package enum Departure: Hashable, Sendable {
        case send
        /// A copy goes to this port: where the stream's packets come from.
        case steer(UInt16)
        /// Not worth a packet.
        case swallow
    }

    package internal(set) var settings: Settings
    package internal(set) var counters = CounterSet()
    var streams = StreamTable()
    /// libpgm compares identifiers by this only.
    var aliases: [UInt32: UInt64] = [:]
    var streamsOfSource: [UInt32: Int] = [:]
    /// After this long without one libpgm gets an SPM with the next data.
    let refreshAfter: Duration
    var jumps: TokenBucket
    var repairs: TokenBucket
    var sweptAt: Instant?
    /// Streams of which libpgm may miss something.
    var brokenCount = 0
    /// Since when this node listens.
    var openedAt = Instant(nanoseconds: .max)

    // The own stream.
    var ownTrail: UInt32 = 0
    var ownLead: UInt32?
    var sentDataAt: Instant?
    var spmRequestAt: Instant?
    /// When each number of the window was last repaired; empty until somebody asks.
    var repairedAt: [Instant] = []

    package init(_ settings: Settings) {
        self.settings = settings
        refreshAfter = settings.peerExpiry / 2
        jumps = settings.jumps
        repairs = settings.repairs
    }

    /// The own stream's identifier, which is drawn when the socket opens.
    package mutating func opened(tsi: UInt64, now: Instant) {
        settings.tsi = tsi
        openedAt = now
    }

    /// A packet dropped by a fault that was configured.
    package mutating func countFault() { counters.add(.pgmRejectedFault) }

    /// Streams that are remembered now.
    package var streamCount: Int { streams.count }

    // MARK: In

    package mutating func received(_ bytes: Span<UInt8>, _ arrival: Arrival, now: Instant) -> Verdict {
        let verdict: Verdict
        do throws(Rejection) {
            let packet = try PGMPacket(bytes)
            counters.add(packet.type.countedIn)
            verdict = try judge(packet, bytes, arrival, now)
        } catch {
            verdict = .reject(error)
        }
        if case .reject(let why) = verdict { counters.add(why.counter) }
        return verdict
    }

    private mutating func judge(
        _ packet: PGMPacket, _ bytes: Span<UInt8>, _ arrival: Arrival, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard packet.dataPort == settings.dataPort else { throw .port }
        guard packet.tsi != 0 else { throw .tsi }
        switch packet.body {
        case .nak(let first, let listed, let source, let group):
            try judgeRequest(packet)
            guard source == settings.address, group == settings.group else { throw .destination }
            return try judgeNAK(first, listed, bytes, now)
        case .spmr:
            try judgeRequest(packet)
            if let spmRequestAt, now < spmRequestAt + .milliseconds(10) { throw .rate }
            spmRequestAt = now
            return .admit
        case .data, .spm, .ncf: break
        }
        guard packet.tsi != settings.tsi else { throw .own }
        // Without a destination libpgm would use memory that nobody has written.
        guard !arrival.isOnSend, arrival.destination == settings.group else { throw .destination }
        guard let stream = streams[packet.tsi] else { return try meet(packet, bytes, arrival, now) }
        guard stream.source == arrival.source else {
            guard forget(packet.tsi, stream, now) else { throw .source }
            return try meet(packet, bytes, arrival, now)
        }
        switch packet.body {
        case .data(let sequence, let trail, let isRepair):
            try judgeFrame(bytes, sequence, trail)
            return try judgeData(
                packet.tsi, sequence, trail, goesAlone: isHead(bytes), isRepair: isRepair, arrival, now)
        case .spm(let sequence, let trail, let lead, let path, _):
            guard path == arrival.source else { throw .destination }
            guard lead &+ 1 &- trail < 1 << 24 else { throw .numbers }
            return try judgeSPM(packet.tsi, sequence, trail, lead, now)
        case .ncf(let first, let listed, let source, let group):
            guard source == arrival.source, group == settings.group else { throw .destination }
            return try judgeNCF(packet.tsi, first, listed, bytes, now)
        case .nak, .spmr: throw .type
        }
    }

    /// NAKs and SPM requests are for the source of a stream.
    private func judgeRequest(_ packet: PGMPacket) throws(Rejection) {
        guard packet.tsi == settings.tsi else { throw .unknown }
    }

    private func judgeFrame(_ bytes: Span<UInt8>, _ sequence: UInt32, _ trail: UInt32) throws(Rejection) {
        guard bytes.count - PGMPacket.dataStart <= settings.payloadMax else { throw .length }
        guard sequence &- trail < 1 << 24 else { throw .numbers }
        guard bytes.count - PGMPacket.dataStart >= settings.magic.count else { throw .magic }
        for index in settings.magic.indices where bytes[PGMPacket.dataStart + index] != settings.magic[index]
        {
            throw .magic
        }
    }

    // MARK: Streams

    /// Only fresh data makes a stream known: libpgm gets an SPM made from it first, without which it could
    /// not ask for anything for its first quarter of a second.
    private mutating func meet(
        _ packet: PGMPacket, _ bytes: Span<UInt8>, _ arrival: Arrival, _ now: Instant
    ) throws(Rejection) -> Verdict {
        guard case .data(let sequence, let trail, let isRepair) = packet.body else {
            if case .spm = packet.body { throw .quiet }
            throw .unknown
        }
        try judgeFrame(bytes, sequence, trail)
        guard !isRepair else { throw .unknown }
        let alias = Self.alias(packet.tsi)
        if let twin = aliases[alias], let stream = streams[twin], !forget(twin, stream, now) { throw .alias }
        if streams.count >= settings.streamsMax
            || streamsOfSource[arrival.source, default: 0] >= settings.streamsPerSource
        {
            forgetSilent(now)
        }
        guard streams.count < settings.streamsMax,
            streamsOfSource[arrival.source, default: 0] < settings.streamsPerSource
        else { throw .streams }
        aliases[alias] = packet.tsi
        streamsOfSource[arrival.source, default: 0] += 1
        brokenCount += 1
        streams[packet.tsi] = AdmittedStream(
            source: arrival.source, port: arrival.port, lead: sequence, trail: trail, spmAt: now,
            heardAt: now)
        let first = firstOwed(bytes, sequence, trail, now)
        return .admitAfter(
            SyntheticSPM(
                tsi: packet.tsi, sequence: 0, trail: trail, lead: first &- 1, path: arrival.source))
    }

    /// What libpgm is to ask for of a new stream: all that its sender still has, if it began while this node
    /// was listening.
    private mutating func firstOwed(
        _ bytes: Span<UInt8>, _ sequence: UInt32, _ trail: UInt32, _ now: Instant
    ) -> UInt32 {
        guard let age = FrameWire.streamAge(in: bytes, from: PGMPacket.dataStart), now - age >= openedAt,
            sequence &- trail < settings.window
        else { return sequence }
        jumps.refill(now)
        return jumps.take(Int(sequence &- trail)) ? trail : sequence
    }

    /// Forgets streams that libpgm has forgotten long ago; once in a while, for it looks at all.
    mutating func forgetSilent(_ now: Instant) {
        if let sweptAt, now < sweptAt + .seconds(1) { return }
        sweptAt = now
        for (tsi, stream) in streams.all { _ = forget(tsi, stream, now) }
    }

    /// Forgets a stream that has been silent for so long that libpgm has forgotten it for certain.
    private mutating func forget(_ tsi: UInt64, _ stream: AdmittedStream, _ now: Instant) -> Bool {
        guard now >= stream.heardAt + settings.peerExpiry * 2 else { return false }
        if !stream.isWhole { brokenCount -= 1 }
        streams[tsi] = nil
        aliases[Self.alias(tsi)] = nil
        let left = (streamsOfSource[stream.source] ?? 1) - 1
        streamsOfSource[stream.source] = left > 0 ? left : nil
        return true
    }

    /// All of an identifier that libpgm compares.
    private static func alias(_ tsi: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: tsi >> 32) ^ UInt32(truncatingIfNeeded: tsi)
    }

    /// The port that NAKs about a stream go to.
    mutating func steeredPort(_ tsi: UInt64) -> UInt16? { streams[tsi]?.port }
}
