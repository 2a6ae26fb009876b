#if Multicast
    import CastnetCore
    import CastnetMulticast
    import CastnetTestKit
    import COpenPGM
    import Glibc
    import NIOCore
    import Testing

    @Suite("libpgm behind the seam", .serialized, .timeLimit(.minutes(20)))
    struct SeamHostileTests {
        /// Seconds to go on for; `CASTNET_FUZZ_SECONDS` asks for more.
        static let seconds = Surroundings.variable("CASTNET_FUZZ_SECONDS").flatMap { Int($0) } ?? 3

        @Test("survives all that is admitted, and goes on delivering, for CASTNET_FUZZ_SECONDS")
        func survives() throws {
            let seed =
                Surroundings.variable("CASTNET_FUZZ_SEED").flatMap { UInt64($0) } ?? UInt64(castnet_now())
            let options = try Ports.options(window: 1024)
            let start = Instant(nanoseconds: castnet_now())
            let gate = SeamGate(SeamGate.Settings(options), now: start)
            let peerGate = SeamGate(SeamGate.Settings(options), now: start)
            var victim = try PGMSocket(options, gate: gate)
            var peer = try PGMSocket(options, gate: peerGate)
            // A crash leaves nothing else.
            print("seed \(seed)")
            try #require(victim.seamProblem == nil)
            let addresses: [UInt32] = [0x7F00_0002, 0x7F00_0003, 0x7F00_0004]
            let attackers = try addresses.map { try Datagrams(from: $0) }
            var packets = HostilePackets(
                options, addresses: addresses, victim: victim.tsi, live: peer.tsi, seed: seed)
            let sendPort = Surroundings.boundPort(of: victim.descriptors.send)
            var traffic = Traffic()
            var (sent, turns) = (0, 0)
            // Whoever speaks first of a stream is its source.
            try traffic.send(&victim, &peer)
            try settle(&victim, &peer, gate, peerGate, &traffic)
            var now = Instant(nanoseconds: castnet_now())
            let end = now + .seconds(Self.seconds)
            while now < end {
                for _ in 0..<32 {
                    let (packet, from, to) = packets.next()
                    let (address, port) =
                        switch to {
                        case .group: (options.group, options.port)
                        case .port: (options.interface.address, options.port)
                        case .sendPort: (options.interface.address, sendPort)
                        }
                    try? attackers[from].send(ByteBuffer(bytes: packet), to: address, port: port)
                    sent += 1
                }
                turns += 1
                if turns.isMultiple(of: 8) { try traffic.send(&victim, &peer) }
                packets.victimLead = UInt32(truncatingIfNeeded: traffic.sent)
                for (isVictim, gate) in [(true, gate), (false, peerGate)] {
                    now = Instant(nanoseconds: castnet_now())
                    gate.now = now
                    if isVictim {
                        try traffic.serve(&victim, hears: peer.tsi, isVictim: true)
                    } else {
                        try traffic.serve(&peer, hears: victim.tsi, isVictim: false)
                    }
                }
            }
            try settle(&victim, &peer, gate, peerGate, &traffic)
            print(
                "\(sent) packets in \(Self.seconds) s, judged \(victim.seamFacts.packetsIn), "
                    + "longest call \(traffic.longest), traffic \(traffic.sent)")
            #expect(traffic.atVictim == Array(0..<traffic.sent), "seed \(seed)")
            #expect(traffic.atPeer == Array(0..<traffic.sent), "seed \(seed)")
            // A call that fills half of all numbers with placeholders takes minutes; the whole budget of
            // jumps, which one call may spend, half a second.
            #expect(traffic.longest < .seconds(5), "seed \(seed)")
        }

        /// Waits for the end of the traffic.
        private func settle(
            _ victim: inout PGMSocket, _ peer: inout PGMSocket, _ gate: SeamGate, _ peerGate: SeamGate,
            _ traffic: inout Traffic
        ) throws {
            let end = ContinuousClock.now + .seconds(30)
            while ContinuousClock.now < end,
                traffic.atVictim.count < traffic.sent || traffic.atPeer.count < traffic.sent
            {
                let now = Instant(nanoseconds: castnet_now())
                (gate.now, peerGate.now) = (now, now)
                try traffic.serve(&victim, hears: peer.tsi, isVictim: true)
                try traffic.serve(&peer, hears: victim.tsi, isVictim: false)
                poll(nil, 0, 1)
            }
        }
    }

    /// Numbered payloads in both directions, and what has come of them.
    private struct Traffic {
        private(set) var sent: UInt64 = 0
        private(set) var atVictim: [UInt64] = []
        private(set) var atPeer: [UInt64] = []
        private(set) var longest = Duration.zero

        mutating func send(_ victim: inout PGMSocket, _ peer: inout PGMSocket) throws {
            guard !victim.hasPending, !peer.hasPending else {
                _ = try victim.resend()
                _ = try peer.resend()
                return
            }
            var frame = ByteBuffer(integer: FrameWire.magic)
            frame.writeInteger(sent)
            _ = try victim.send(frame)
            _ = try peer.send(frame)
            sent += 1
        }

        /// Takes what has come, until there is nothing, but not for ever.
        mutating func serve(_ socket: inout PGMSocket, hears stream: UInt64, isVictim: Bool) throws {
            socket.noteSendReadable()
            var idle = 0
            for _ in 0..<4096 where idle < 4 {
                let before = castnet_now()
                let received = try socket.receive()
                longest = max(longest, .nanoseconds(castnet_now() - before))
                switch received {
                case .packet(let packet):
                    guard packet.tsi == stream,
                        let number = packet.copy.getInteger(at: FrameWire.magic.bitWidth / 8, as: UInt64.self)
                    else {
                        continue
                    }
                    if isVictim { atVictim.append(number) } else { atPeer.append(number) }
                case .reset, .empty: continue
                case .idle, .limited: idle += 1
                }
            }
            _ = try socket.flush()
        }
    }
#endif
