import CastnetTestKit
import NIOCore
import Testing

@testable import CastnetCore

/// What libpgm may see, rule by rule.
@Suite struct AdmissionTests {
    static let start = Instant(nanoseconds: 1_000_000_000)
    static let group: UInt32 = 0xefc0_070a
    static let own = PGMPackets(tsi: 0x0102_0304_0506_1111, dataPort: 7500, source: 0x0a00_0001, group: group)
    static let peer = PGMPackets(
        tsi: 0xa1a2_a3a4_a5a6_2222, dataPort: 7500, source: 0x0a00_0002, group: group)

    static func admission(_ adjust: (inout Admission.Settings) -> Void = { _ in }) -> Admission {
        var settings = Admission.Settings(
            tsi: own.tsi, address: own.source, group: group, dataPort: 7500, payloadMax: 1448, window: 1024,
            magic: [0xff, 0xff, 0x43, 0x4e])
        adjust(&settings)
        return Admission(settings)
    }

    static func arrival(
        _ source: UInt32 = peer.source, port: UInt16 = 40_000, to destination: UInt32 = group,
        isOnSend: Bool = false
    ) -> Admission.Arrival {
        Admission.Arrival(source: source, port: port, destination: destination, isOnSend: isOnSend)
    }

    @Test func `the first data of a stream brings an SPM of it, later data comes alone`() {
        for first: UInt32 in [0, 7, UInt32.max, UInt32.max - 4000] {
            var machine = Self.admission()
            let trail = first &- 3
            let met = machine.received(
                Self.peer.data(first, trail: trail).span, Self.arrival(), now: Self.start)
            let spm = SyntheticSPM(
                tsi: Self.peer.tsi, sequence: 0, trail: trail, lead: first &- 1, path: Self.peer.source)
            #expect(met == .admitAfter(spm))
            let next = machine.received(
                Self.peer.data(first &+ 1, trail: trail).span, Self.arrival(), now: Self.start)
            #expect(next == .admit)
            // libpgm judges it as it judges any other.
            var reader = Self.admission()
            _ = reader.received(Self.peer.data(first, trail: trail).span, Self.arrival(), now: Self.start)
            let own = reader.received(spm.encoded(dataPort: 7500).span, Self.arrival(), now: Self.start)
            #expect(own == .admit)
        }
    }

    @Test func `of a stream that began while this node listened everything is asked for`() {
        func frame(ageMilliseconds: UInt32) -> [UInt8] {
            var buffer = ByteBuffer()
            let address = DatagramAddress(address: 1, port: 1)
            let header = FrameHeader(
                isHead: false, streamID: 1, sequence: 5, reportAddress: address, feedbackInterval: 10)
            var builder = FrameBuilder(header, sizeMax: 1448, into: &buffer)
            let identity = NodeIdentity(name: "api-1", incarnation: Incarnation(1))
            builder.announce(
                AnnounceRecord(
                    identity: identity, digest: 9, oldest: 3, firstOpenMessage: 2,
                    ageMilliseconds: ageMilliseconds), into: &buffer)
            return Array(buffer.readableBytesView)
        }
        // Its age, the sender's oldest number, and from which one on libpgm asks.
        let cases: [(age: UInt32, trail: UInt32, first: UInt32)] = [
            (0, 0, 0), (900, 0, 0), (900, 8, 8), (1001, 0, 9), (3_000_000_000, 0, 9),
        ]
        for (age, trail, first) in cases {
            var machine = Self.admission()
            machine.opened(tsi: Self.own.tsi, now: Self.start)
            let now = Self.start + .seconds(1)
            let packet = Self.peer.data(9, trail: trail, payload: frame(ageMilliseconds: age))
            guard case .admitAfter(let spm) = machine.received(packet.span, Self.arrival(), now: now) else {
                Issue.record("not met")
                continue
            }
            #expect(spm.lead == first &- 1, "age \(age), trail \(trail)")
        }
    }

    @Test func `only data makes a stream known`() {
        var machine = Self.admission()
        let packets: [([UInt8], Rejection)] = [
            (Self.peer.spm(1, trail: 0, lead: 5), .quiet), (Self.peer.ncf([1]), .unknown),
            (Self.peer.data(5, isRepair: true), .unknown), (Self.peer.nak([1]), .unknown),
            (Self.peer.spmr(), .unknown),
        ]
        for (packet, why) in packets {
            let verdict = machine.received(packet.span, Self.arrival(), now: Self.start)
            #expect(verdict == .reject(why))
        }
        #expect(machine.streamCount == 0)
    }

    @Test func `strangers, echoes and other sessions are refused`() {
        var machine = Self.admission()
        var other = Self.peer
        other.dataPort = 7501
        var null = Self.peer
        null.tsi = 0
        let cases: [([UInt8], Admission.Arrival, Rejection)] = [
            (other.data(1), Self.arrival(), .port), (null.data(1), Self.arrival(), .tsi),
            (Self.own.data(1), Self.arrival(), .own),
            (Self.peer.data(1), Self.arrival(to: 0), .destination),
            (Self.peer.data(1), Self.arrival(to: Self.group + 1), .destination),
            (Self.peer.data(1), Self.arrival(isOnSend: true), .destination),
            (Self.peer.data(1, payload: [1, 2, 3, 4]), Self.arrival(), .magic),
            (Self.peer.data(1, payload: [0xff]), Self.arrival(), .magic),
            // ZeroMQ in the middle of a message.
            (Self.peer.data(1, payload: [0xff, 0xff, 1, 2]), Self.arrival(), .magic),
            (Self.peer.data(1, payload: []), Self.arrival(), .length),
            (
                Self.peer.data(1, payload: [0xff, 0xff, 0x43, 0x4e] + [UInt8](repeating: 0, count: 1445)),
                Self.arrival(),
                .length
            ),
            (Self.peer.data(1 << 24, trail: 0), Self.arrival(), .numbers),
            (Self.peer.packet(0x01, words: [0, 0, 0, 0, 0]), Self.arrival(), .type),
            (Self.peer.packet(0x0d, words: [0, 0]), Self.arrival(), .type),
            (Self.peer.packet(0x33, words: []), Self.arrival(), .type),
            (
                Self.peer.packet(0x04, options: 0x80, payload: 4, words: [1, 0, 0xffff_434e]), Self.arrival(),
                .options
            ),
        ]
        for (packet, arrival, why) in cases {
            let verdict = machine.received(packet.span, arrival, now: Self.start)
            #expect(verdict == .reject(why))
        }
        #expect(machine.streamCount == 0)
    }

    @Test func `a stream is pinned to its address, and one that looks alike is refused`() {
        var machine = Self.admission()
        _ = machine.received(Self.peer.data(1).span, Self.arrival(), now: Self.start)
        let moved = machine.received(Self.peer.data(2).span, Self.arrival(0x0a00_0003), now: Self.start)
        #expect(moved == .reject(.source))
        var twin = Self.peer
        twin.tsi = Self.peer.tsi >> 32 | Self.peer.tsi << 32
        let alias = machine.received(twin.data(2).span, Self.arrival(0x0a00_0003), now: Self.start)
        #expect(alias == .reject(.alias))
    }

    @Test func `streams are capped by address and in all, and forgotten after two expiries`() {
        var machine = Self.admission {
            $0.streamsMax = 20
            $0.streamsPerSource = 16
        }
        func meet(_ number: UInt64, from source: UInt32, _ now: Instant) -> Admission.Verdict {
            var stream = Self.peer
            stream.tsi = number << 40 | 0x77
            return machine.received(stream.data(1).span, Self.arrival(source), now: now)
        }
        for number: UInt64 in 1...16 {
            guard case .admitAfter = meet(number, from: 9, Self.start) else {
                Issue.record("stream \(number) refused")
                continue
            }
        }
        let seventeenth = meet(17, from: 9, Self.start)
        #expect(seventeenth == .reject(.streams))
        for number: UInt64 in 17...20 { _ = meet(number, from: 10, Self.start) }
        let more = meet(21, from: 11, Self.start + .seconds(10))
        #expect(more == .reject(.streams))
        guard case .admitAfter = meet(21, from: 11, Self.start + .seconds(41)) else {
            Issue.record("nobody was forgotten")
            return
        }
        #expect(machine.streamCount == 1)
    }

    @Test func `jumps inside the window pay, old numbers pass until the window's end`() {
        for lead: UInt32 in [5000, UInt32.max - 2, 3] {
            var machine = Self.admission { $0.jumps = TokenBucket(capacity: 1500, perSecond: 1_000) }
            func judge(_ offset: Int32, _ now: Instant = Self.start) -> Admission.Verdict {
                let number = lead &+ UInt32(bitPattern: offset)
                return machine.received(
                    Self.peer.data(number, trail: number &- 10).span, Self.arrival(), now: now)
            }
            _ = judge(0)
            let results = [judge(0), judge(-5), judge(-1023), judge(-1024), judge(1024), judge(1024 + 900)]
            #expect(
                results == [.admit, .admit, .admit, .reject(.behind), .admit, .reject(.jump)], "\(lead)")
            let later = judge(1024 + 900, Self.start + .milliseconds(900))
            #expect(later == .admit)
        }
    }

    @Test func `an outage past the window is taken up step by step`() {
        var machine = Self.admission()
        var now = Self.start
        func judge(_ number: UInt32) -> Admission.Verdict {
            machine.received(
                Self.peer.data(number, trail: number &- 100).span, Self.arrival(), now: now)
        }
        func step(trail: UInt32, lead: UInt32) -> SyntheticSPM {
            SyntheticSPM(
                tsi: Self.peer.tsi, sequence: 0, trail: trail, lead: lead, path: Self.peer.source)
        }
        _ = judge(10)
        let first = [judge(100_000), judge(100_001), judge(100_002)]
        #expect(first == [.reject(.far), .reject(.far), .only(step(trail: 11, lead: 11))])
        now = now + .milliseconds(49)
        let early = [judge(100_003), judge(100_004)]
        #expect(early == [.only(step(trail: 12, lead: 11)), .reject(.resync)])
        now = now + .milliseconds(1)
        let last = [judge(100_005), judge(100_006)]
        #expect(last == [.admitAfter(step(trail: 100_002, lead: 100_001)), .admit])
    }

    @Test func `wild jumps never take a stream up`() {
        var machine = Self.admission()
        _ = machine.received(Self.peer.data(10).span, Self.arrival(), now: Self.start)
        for index: UInt32 in 1...200 {
            let number = index &* 50_000_017
            let verdict = machine.received(
                Self.peer.data(number, trail: number &- 1).span, Self.arrival(), now: Self.start)
            #expect(verdict == .reject(.far) || verdict == .reject(.behind))
        }
        let next = machine.received(Self.peer.data(11).span, Self.arrival(), now: Self.start)
        #expect(next == .admit)
    }
}
