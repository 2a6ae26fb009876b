#if Multicast
    import CastnetCore
    import CastnetMulticast
    import CastnetTestKit
    import Glibc
    import NIOCore

    /// Makes packets that come close to what libpgm is shown: those of streams that mostly keep the rules,
    /// with wild numbers and with bytes changed under a right checksum.
    struct HostilePackets {
        enum Target: Hashable { case group, port, sendPort }

        /// A stream of a source address; its numbers wander.
        private struct Stream {
            var packets: PGMPackets
            var sequence: UInt32
            var spm: UInt32 = 0
        }

        private let options: PGMOptions
        private let addresses: [UInt32]
        private let victim: UInt64
        private let live: UInt64
        private var generator: SeededGenerator
        private var streams: [Stream] = []
        /// What the victim has sent last, roughly.
        var victimLead: UInt32 = 0

        init(_ options: PGMOptions, addresses: [UInt32], victim: UInt64, live: UInt64, seed: UInt64) {
            self.options = options
            self.addresses = addresses
            self.victim = victim
            self.live = live
            generator = SeededGenerator(seed: seed)
            for index in 0..<addresses.count * 8 { streams.append(stream(of: index % addresses.count)) }
        }

        private mutating func random(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &generator) }
        private mutating func number() -> UInt32 { UInt32.random(in: 0...UInt32.max, using: &generator) }

        private mutating func stream(of address: Int) -> Stream {
            Stream(
                packets: PGMPackets(
                    tsi: generator.next() | 1, dataPort: options.port, source: addresses[address],
                    group: options.group),
                sequence: random(2) == 0 ? number() : UInt32.max - UInt32(random(3000)))
        }

        /// The next packet, which of the addresses it comes from, and where it goes.
        mutating func next() -> (packet: [UInt8], from: Int, to: Target) {
            let index = random(streams.count)
            let from = index % addresses.count
            if random(4000) == 0 { streams[index] = stream(of: from) }
            var packet = make(index)
            switch random(12) {
            case 0...2: mutate(&packet)
            case 3 where packet.count > 1: packet.removeLast(1 + random(packet.count - 1))
            default: break
            }
            let isRequest = packet.count > 4 && (packet[4] == 0x08 || packet[4] == 0x0c)
            let to: Target = isRequest || random(40) == 0 ? (random(2) == 0 ? .port : .sendPort) : .group
            return (random(30) == 0 ? packet : PGMPackets.checked(packet), from, to)
        }

        private mutating func make(_ index: Int) -> [UInt8] {
            let step: UInt32 =
                switch random(40) {
                case 0: 1 << UInt32(random(32))
                case 1: 0 &- (1 << UInt32(random(32)))
                case 2...4: UInt32(random(options.window + 10))
                case 5...9: UInt32(random(40))
                case 10...12: 0 &- UInt32(random(60))
                default: 1
                }
            streams[index].sequence &+= step
            let (sequence, packets) = (streams[index].sequence, streams[index].packets)
            let trail = sequence &- UInt32([0, 1, 50, options.window, 1 << 23][random(5)])
            switch random(24) {
            case 0...1:
                streams[index].spm &+= random(50) == 0 ? number() : 1
                return packets.spm(
                    streams[index].spm, trail: trail, lead: sequence, isFinal: random(4) == 0)
            case 2...4: return packets.ncf(numbers(near: sequence))
            case 5...6:
                let back = sequence &- UInt32(random(options.window))
                return packets.data(
                    back, trail: back &- UInt32(random(100)), payload: payload(), isRepair: true)
            case 7...8: return request(of: victim).nak(numbers(near: victimLead))
            case 9: return request(of: random(2) == 0 ? victim : packets.tsi).spmr()
            case 10: return foreign(live).data(sequence, trail: trail, payload: payload())
            case 11:
                return packets.packet(
                    UInt8(random(256)), options: UInt8(random(256)), payload: random(40),
                    words: (0..<random(12)).map { _ in number() })
            default: return packets.data(sequence, trail: trail, payload: payload())
            }
        }

        private mutating func payload() -> [UInt8] {
            [0xff, 0xff, 0x43, 0x4e]
                + (0..<random(random(20) == 0 ? 1400 : 20)).map { UInt8(truncatingIfNeeded: $0) }
        }

        private mutating func numbers(near number: UInt32) -> [UInt32] {
            let first = number &- UInt32(random(100))
            return (0..<1 + UInt32(random(3) == 0 ? random(63) : 0)).map { first &+ $0 }
        }

        private func request(of tsi: UInt64) -> PGMPackets {
            PGMPackets(
                tsi: tsi, dataPort: options.port, source: options.interface.address, group: options.group)
        }

        private func foreign(_ tsi: UInt64) -> PGMPackets {
            PGMPackets(tsi: tsi, dataPort: options.port, source: addresses[0], group: options.group)
        }

        private mutating func mutate(_ packet: inout [UInt8]) {
            for _ in 0...random(3) where !packet.isEmpty {
                // Headers rather than payloads.
                let at = random(min(packet.count, 48))
                packet[at] = random(2) == 0 ? UInt8(random(256)) : packet[at] ^ (1 << UInt8(random(8)))
            }
        }
    }
#endif
