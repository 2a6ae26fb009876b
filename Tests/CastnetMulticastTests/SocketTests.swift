#if Multicast
    import CastnetCore
    import CastnetMulticast
    import COpenPGM
    import NIOCore
    import Testing

    @Suite("A PGM socket on loopback, without root", .serialized, .timeLimit(.minutes(2)))
    struct SocketTests {
        @Test("two sockets of one process hear each other, not themselves, each with its own fresh TSI")
        func loopback() throws {
            let options = try Ports.options()
            var first = try PGMSocket(options)
            var second = try PGMSocket(options)
            let (mine, yours) = (first.tsi, second.tsi)
            #expect(mine != yours)
            for number in 0..<200 {
                _ = try first.send(ByteBuffer(integer: UInt64(number)))
                _ = try second.send(ByteBuffer(integer: UInt64(1000 + number)))
            }
            var heard: (first: [UInt64], second: [UInt64]) = ([], [])
            try Wait.until("both hear 200") {
                heard.first += try first.numbers(from: second.tsi)
                heard.second += try second.numbers(from: first.tsi)
                return heard.first.count >= 200 && heard.second.count >= 200
            }
            #expect(heard.second == Array(0..<200))
            #expect(heard.first == Array(1000..<1200))
        }

        @Test("a socket takes payloads from every alignment, up to the largest")
        func alignment() throws {
            let options = try Ports.options()
            var sender = try PGMSocket(options)
            var receiver = try PGMSocket(options)
            let largest = sender.payloadMax
            #expect(largest == options.mtu - PGMOptions.headerLength)
            var sent: [[UInt8]] = []
            for offset in 0..<16 {
                for length in [1, 31, 32, 33, 64, 777, largest - 1, largest] {
                    let payload = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ offset) }
                    var buffer = ByteBuffer(repeating: 0xEE, count: offset)
                    buffer.writeBytes(payload)
                    buffer.moveReaderIndex(forwardBy: offset)
                    let outcome = try sender.send(buffer)
                    #expect(outcome == .done)
                    sent.append(payload)
                }
            }
            var heard: [[UInt8]] = []
            try Wait.until("all \(sent.count) arrive") {
                heard += try receiver.payloads().map { Array($0.readableBytesView) }
                return heard.count >= sent.count
            }
            #expect(heard == sent)
        }

        @Test("what does not fit into one packet is refused, and nothing of it leaves")
        func oversize() throws {
            let options = try Ports.options()
            var sender = try PGMSocket(options)
            var receiver = try PGMSocket(options)
            let max = sender.payloadMax
            for length in [0, max + 1, max + 100, 65_536, 1 << 20] {
                do {
                    _ = try sender.send(ByteBuffer(repeating: 7, count: length))
                    Issue.record("\(length) bytes were taken")
                } catch {
                    #expect(error == .payload(length: length, max: max))
                }
            }
            let outcome = try sender.send(ByteBuffer(integer: UInt64(42)))
            #expect(outcome == .done)
            var heard: [UInt64] = []
            try Wait.until("the good one arrives") {
                heard += try receiver.numbers(from: sender.tsi)
                return !heard.isEmpty
            }
            #expect(heard == [42])
        }

        @Test("every socket draws a fresh TSI")
        func freshIdentity() throws {
            let options = try Ports.options()
            var seen = Set<UInt64>()
            for _ in 0..<20 {
                let socket = try PGMSocket(options)
                let identity = socket.tsi
                #expect(seen.insert(identity >> 16).inserted)
                #expect(identity & 0xFFFF != UInt64(options.port))
            }
        }

        @Test("the process uses PGM's monotonic timer")
        func timer() throws {
            _ = try PGMSocket(try Ports.options())
            #expect(Surroundings.variable("PGM_TIMER") == "CLOCK")
        }

        @Test("a stale EINTR before the bind does not hang it")
        func staleErrno() throws {
            let options = try Ports.options()
            Surroundings.interrupt()
            let socket = try PGMSocket(options)
            let largest = socket.payloadMax
            #expect(largest > 0)
        }

        @Test("empty and short datagrams end nothing")
        func emptyDatagram() throws {
            let options = try Ports.options()
            var sender = try PGMSocket(options)
            var receiver = try PGMSocket(options)
            let probe = try Datagrams()
            for length in [0, 0, 0, 1, 7, 15] {
                try probe.send(ByteBuffer(repeating: 1, count: length), to: 0x7F00_0001, port: options.port)
            }
            var heard: [UInt64] = []
            try Wait.until("a packet after the empty ones") {
                _ = try sender.send(ByteBuffer(integer: UInt64(heard.count)))
                heard += try receiver.numbers(from: sender.tsi)
                return heard.count >= 5
            }
            #expect(heard == Array(0..<UInt64(heard.count)))
        }

        @Test("unicast comes to the multicast port: a foreign NAK reaches a bus socket's one descriptor")
        func oneReceiveSocket() throws {
            let options = try Ports.options()
            let socket = try PGMSocket(options)
            let descriptor = socket.descriptors.receive
            #expect(Surroundings.boundPort(of: descriptor) == options.port)
        }

        @Test("a group on the same port does not bleed into another")
        func groups() throws {
            let options = try Ports.options()
            var other = options
            other.group += 1
            var sender = try PGMSocket(options)
            var receiver = try PGMSocket(options)
            var stranger = try PGMSocket(other)
            for number in 0..<50 { _ = try sender.send(ByteBuffer(integer: UInt64(number))) }
            var heard: [UInt64] = []
            try Wait.until("the group hears 50") {
                heard += try receiver.numbers(from: sender.tsi)
                return heard.count >= 50
            }
            let strange = try stranger.payloads()
            #expect(strange.isEmpty)
        }
    }
#endif
