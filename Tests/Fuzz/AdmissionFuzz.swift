// Fuzzes the admission of packets, compiled together with the sources of CastnetCore by run.sh: an input is
// a session of packets with their arrival and the time between them, and every answer is compared with what
// libpgm can bear.

/// All that the admission has to do with records of frames; the rest of them needs more of the core.
enum FrameRecord {
    enum Kind { static let announce: UInt8 = 3 }
}

/// What libpgm has been shown, kept apart from the machine that is judged.
struct Shown {
    /// libpgm's receive window, as it moves when everything goes badly: a number once missed stays missed
    /// until the trail has passed it.
    struct Window {
        var lead: UInt32
        var trail: UInt32
        var hasHoles = false

        init(lead: UInt32) { (self.lead, trail) = (lead, lead &+ 1) }

        /// Only an empty window jumps, and only once for a trail.
        mutating func move(trail next: UInt32) {
            guard Int32(bitPattern: next &- trail) > 0 else { return }
            trail = next
            guard Int32(bitPattern: next &- 1 &- lead) >= 0 else { return }
            if !hasHoles { lead = next &- 1 }
            hasHoles = false
        }

        /// How many placeholders it takes to get to `number`.
        mutating func move(lead number: UInt32, isData: Bool) -> Int {
            let jump = Int(Int32(bitPattern: number &- lead))
            guard jump > 0 else { return 0 }
            lead = number
            let missed = isData ? jump - 1 : jump
            if missed > 0 { hasHoles = true }
            return missed
        }
    }

    var windows: [UInt64: Window] = [:]
    var placeholders = 0
    private var seen: [UInt64: Instant] = [:]

    /// libpgm forgets a stream of which it sees nothing.
    mutating func hear(_ tsi: UInt64, _ now: Instant) {
        if let last = seen.updateValue(now, forKey: tsi), now >= last + .seconds(40) { windows[tsi] = nil }
    }

    /// What a packet makes libpgm allocate: a placeholder for each number that it skips.
    mutating func show(trail: UInt32, lead: UInt32, of tsi: UInt64, isData: Bool) {
        guard var window = windows[tsi] else {
            windows[tsi] = Window(lead: lead)
            return
        }
        window.move(trail: trail)
        let missed = window.move(lead: lead, isData: isData)
        precondition(missed <= Int(FuzzSession.window) * 2, "a jump of \(missed)")
        placeholders += missed
        windows[tsi] = window
    }
}

/// One input: records of a control byte, a pause, a length and that many bytes.
struct FuzzSession: ~Copyable {
    static let own: UInt64 = 0x0102_0304_0506_1111
    static let group: UInt32 = 0xefc0_070a
    static let port: UInt16 = 7500
    static let window: UInt32 = 1024
    static let magic: [UInt8] = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: FrameWire.magic >> $0) }
    static let streamsMax = 24

    private var machine: Admission
    private var shown = Shown()
    private var now = Instant(nanoseconds: 1_000_000_000)
    private let started: Instant
    private let jumps = TokenBucket(capacity: 2000, perSecond: 100_000)

    init() {
        var settings = Admission.Settings(
            tsi: Self.own, address: 0x0a00_0001, group: Self.group, dataPort: Self.port, payloadMax: 256,
            window: Self.window, magic: Self.magic)
        settings.streamsMax = Self.streamsMax
        settings.streamsPerSource = 8
        settings.jumps = jumps
        settings.repairs = TokenBucket(capacity: 200, perSecond: 1000)
        machine = Admission(settings)
        machine.opened(tsi: Self.own, now: now)
        started = now
    }

    /// Plays a whole input.
    mutating func play(_ input: UnsafeRawBufferPointer) {
        var at = 0
        while at + 4 <= input.count {
            let (control, pause) = (input[at], Int64(input[at + 1]))
            let length = (Int(input[at + 2]) << 8 | Int(input[at + 3])) % 320
            let end = min(at + 4 + length, input.count)
            let packet = Array(input[at + 4..<end])
            now = now + .milliseconds(pause < 128 ? pause : (pause - 127) * 250)
            take(control & 0x20 == 0 ? Self.checked(packet) : packet, control)
            at = end
        }
    }

    private mutating func take(_ packet: [UInt8], _ control: UInt8) {
        guard control & 0x10 == 0 else {
            _ = machine.sending(packet.span, now: now)
            return
        }
        let arrival = Admission.Arrival(
            source: 0x0a00_0002 + UInt32(control & 3), port: 40_000 + UInt16(control & 3),
            destination: control & 8 == 0 ? Self.group : 0, isOnSend: control & 4 != 0)
        let before = machine.streamCount
        let verdict = machine.received(packet.span, arrival, now: now)
        precondition(machine.streamCount <= Self.streamsMax, "too many streams")
        switch verdict {
        case .reject: precondition(machine.streamCount <= before, "a rejected packet made a stream")
        case .only(let spm):
            check(spm, arrival)
            shown.hear(spm.tsi, now)
            shown.show(trail: spm.trail, lead: spm.lead, of: spm.tsi, isData: false)
        case .admitAfter(let spm):
            check(spm, arrival)
            shown.hear(spm.tsi, now)
            shown.show(trail: spm.trail, lead: spm.lead, of: spm.tsi, isData: false)
            admitted(packet, arrival)
        case .admit, .admitNext: admitted(packet, arrival)
        }
        let elapsed = Int((now - started).nanoseconds / 10_000)
        precondition(shown.placeholders <= jumps.capacity + elapsed, "\(shown.placeholders) placeholders")
    }
}

// MARK: What libpgm can bear

extension FuzzSession {
    private func check(_ spm: SyntheticSPM, _ arrival: Admission.Arrival) {
        precondition(spm.path == arrival.source, "an SPM that names another source")
        precondition(spm.tsi != Self.own && spm.tsi != 0, "an SPM of no stranger")
        let bytes = spm.encoded(dataPort: Self.port)
        precondition(bytes == Self.checked(bytes) && bytes.count == 36, "an SPM that libpgm refuses")
    }

    /// Holds an admitted packet against the table of shapes, without the parser under test.
    private mutating func admitted(_ packet: [UInt8], _ arrival: Admission.Arrival) {
        func word(_ at: Int) -> UInt32 { packet[at..<at + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        precondition(packet.count >= 16 && Self.checked(packet) == packet, "a wrong checksum")
        precondition(packet[6] != 0 || packet[7] != 0, "no checksum")
        let identifier = UInt64(word(8)) << 32 | UInt64(word(12) & 0xffff_0000)
        shown.hear(identifier | UInt64(word(0) >> 16), now)
        switch packet[4] {
        case 0x08, 0x0c:
            precondition(identifier | UInt64(word(0) & 0xffff) == Self.own, "a request for another")
            precondition(packet[4] == 0x0c ? packet.count == 16 : isRequest(packet), "a request's shape")
        case 0x04, 0x05:
            precondition(packet[5] == 0 && packet.count == 24 + Int(word(14) >> 16), "data's shape")
            precondition(packet.count > 27 && packet[24..<28].elementsEqual(Self.magic), "no frame")
            shown.show(
                trail: word(20), lead: word(16), of: identifier | UInt64(word(0) >> 16), isData: true)
        case 0x00:
            precondition(packet.count == (packet[5] == 0 ? 36 : 44) && word(28) >> 16 == 1, "an SPM's shape")
            precondition(word(32) == arrival.source, "a reflector")
            shown.show(
                trail: word(20), lead: word(24), of: identifier | UInt64(word(0) >> 16), isData: false)
        case 0x0a:
            precondition(isRequest(packet), "a confirmation's shape")
            guard let lead = shown.windows[identifier | UInt64(word(0) >> 16)]?.lead else {
                preconditionFailure("a confirmation about nobody")
            }
            for at in [16] + Array(stride(from: 44, to: packet.count, by: 4)) {
                precondition(Int32(bitPattern: word(at) &- lead) <= 0, "a confirmation past the lead")
            }
        default: preconditionFailure("a packet of type \(packet[4])")
        }
        if packet[4] != 0x08, packet[4] != 0x0c {
            precondition(!arrival.isOnSend && arrival.destination == Self.group, "not for the group")
        }
    }

    private func isRequest(_ packet: [UInt8]) -> Bool {
        if packet.count == 36 { return packet[5] == 0 }
        let listed = packet.count - 44
        return packet.count > 44 && listed % 4 == 0 && listed <= 248 && packet[36] == 0 && packet[37] == 4
            && Int(packet[38]) << 8 | Int(packet[39]) == 8 + listed && packet[40] == 0x82
            && Int(packet[41]) == 4 + listed
    }

    /// The packet with its right checksum, summed the plain way.
    static func checked(_ packet: [UInt8]) -> [UInt8] {
        guard packet.count >= 16 else { return packet }
        var packet = packet
        (packet[6], packet[7]) = (0, 0)
        var sum = 0
        for (index, byte) in packet.enumerated() { sum += Int(byte) << (index & 1 == 0 ? 8 : 0) }
        while sum >> 16 != 0 { sum = (sum & 0xffff) + sum >> 16 }
        let checksum = sum == 0xffff ? sum : ~sum & 0xffff
        (packet[6], packet[7]) = (UInt8(checksum >> 8), UInt8(checksum & 0xff))
        return packet
    }
}

/// What libFuzzer calls with each input.
@_cdecl("LLVMFuzzerTestOneInput")
func fuzzAdmission(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var session = FuzzSession()
    session.play(UnsafeRawBufferPointer(start: bytes, count: count))
    return 0
}
