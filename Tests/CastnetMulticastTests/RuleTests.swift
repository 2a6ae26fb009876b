#if Multicast
    import CastnetCore
    import CastnetMulticast
    import Foundation
    import NIOCore
    import Testing

    // The rules of working with libpgm and where each is held:
    //   receive vectors of one                 scatteredLoss
    //   never pgm_send, any alignment          SocketTests.alignment
    //   no PGM fragments                       SocketTests.oversize
    //   one port, unicast and multicast        SocketTests.oneReceiveSocket
    //   fresh source identifiers               restart, SocketTests.freshIdentity
    //   the monotonic timer                    SocketTests.timer
    //   errno before the bind                  SocketTests.staleErrno
    //   senders keep serving receive           idleRepair, EngineLossTests
    //   windows are powers of two              OptionTests.window
    //   an empty datagram is no end            SocketTests.emptyDatagram
    //   silent standard output                 SilenceTests
    //   one pending packet, also at a close    blocked
    // Two processes that send on one host and port lose repairs under loss until NAKs are steered; without
    // loss they work: ChannelTests runs two nodes of one host on one port. A malformed packet can still kill
    // libpgm: refusing those is the datagram seam's work, below this layer.

    @Suite("PGM under loss, between two hosts", .namespaces, .serialized, .timeLimit(.minutes(3)))
    struct RuleTests {
        private static let port: UInt16 = 7600

        @Test("after losses that nothing can repair a stream goes on: it never wedges")
        func scatteredLoss() async throws {
            try await TwoHosts.run { hosts in
                var sender = try hosts.socket(on: .left, port: Self.port, window: 64)
                var receiver = try hosts.socket(on: .right, port: Self.port, window: 64)
                try hosts.lose(0.2, at: .right)
                var heard: [UInt64] = []
                // Bursts of twice the window, unserved in between, push losses out of it.
                for burst in 0..<40 {
                    for number in 0..<128 {
                        _ = try sender.send(ByteBuffer(integer: UInt64(burst * 128 + number)))
                    }
                    try serve(&sender)
                    heard += try receiver.numbers(from: sender.tsi)
                }
                let lostSoFar = 40 * 128 - heard.count
                try hosts.lose(0, at: .right)
                let tail = UInt64(1_000_000)
                var sent: UInt64 = 0
                try Wait.until("the stream goes on behind the losses") {
                    _ = try sender.send(ByteBuffer(integer: tail + sent))
                    sent += 1
                    try serve(&sender)
                    heard += try receiver.numbers(from: sender.tsi)
                    return heard.suffix(50).allSatisfy { $0 >= tail } && heard.count > 50
                }
                #expect(lostSoFar > 0)
                #expect(heard == heard.sorted())
                #expect(Set(heard).count == heard.count, "something came twice")
            }
        }

        @Test("a sender with nothing more to send keeps repairing, so that all arrives")
        func idleRepair() async throws {
            try await TwoHosts.run { hosts in
                var sender = try hosts.socket(on: .left, port: Self.port, window: 4096)
                var receiver = try hosts.socket(on: .right, port: Self.port, window: 4096)
                try introduce(&sender, to: &receiver)
                try hosts.lose(0.2, at: .right)
                for number in 0..<3000 { _ = try sender.send(ByteBuffer(integer: UInt64(number))) }
                var heard: [UInt64] = []
                var repaired = 0
                try Wait.until("all 3000 arrive") {
                    try serve(&sender)
                    while case .packet(let packet) = try receiver.receive() {
                        repaired += packet.isRepaired ? 1 : 0
                        heard.append(packet.copy.getInteger(at: 0) ?? 0)
                    }
                    return heard.count >= 3000
                }
                #expect(heard == Array(0..<3000))
                #expect(repaired > 300)
            }
        }

        @Test("an outage shorter than the window and the retries is repaired whole")
        func outage() async throws {
            try await TwoHosts.run { hosts in
                var sender = try hosts.socket(on: .left, port: Self.port, window: 4096)
                var receiver = try hosts.socket(on: .right, port: Self.port, window: 4096)
                try introduce(&sender, to: &receiver)
                try hosts.lose(1, at: .right)
                for number in 0..<1000 {
                    _ = try sender.send(ByteBuffer(integer: UInt64(number)))
                    if number == 900 { try hosts.lose(0, at: .right) }
                }
                var heard: [UInt64] = []
                try Wait.until("all 1000 arrive") {
                    try serve(&sender)
                    heard += try receiver.numbers(from: sender.tsi)
                    return heard.count >= 1000
                }
                #expect(heard == Array(0..<1000))
            }
        }

        @Test("a sender that starts again is heard from its first message")
        func restart() async throws {
            try await TwoHosts.run { hosts in
                var receiver = try hosts.socket(on: .right, port: Self.port, window: 256)
                for _ in 0..<3 {
                    var sender = try hosts.socket(on: .left, port: Self.port, window: 256)
                    for number in 0..<100 { _ = try sender.send(ByteBuffer(integer: UInt64(number))) }
                    var heard: [UInt64] = []
                    try Wait.until("100 of a fresh stream") {
                        heard += try receiver.numbers(from: sender.tsi)
                        return heard.count >= 100
                    }
                    #expect(heard == Array(0..<100))
                }
            }
        }

        @Test("a blocked packet keeps its turn: nothing passes it, and closing with it pending is harmless")
        func blocked() async throws {
            try await TwoHosts.run { hosts in
                var sender = try hosts.socket(on: .left, port: Self.port, window: 256) {
                    $0.sendBuffer = 4096
                }
                var receiver = try hosts.socket(on: .right, port: Self.port, window: 256)
                try introduce(&sender, to: &receiver)
                try hosts.shell(on: .left, "tc qdisc add dev cable root tbf rate 8mbit burst 4kb latency 1s")
                var blockedCount = 0
                for number in 0..<200 {
                    var payload = ByteBuffer(integer: UInt64(number))
                    payload.writeRepeatingByte(1, count: 1200)
                    var outcome = try sender.send(payload)
                    if outcome == .done { continue }
                    blockedCount += 1
                    let refusal = #expect(throws: PGMError.self) { try sender.trySend(payload) }
                    #expect(refusal == .busy)
                    try Wait.until("the blocked packet leaves") {
                        outcome = try sender.resend()
                        return outcome == .done
                    }
                }
                #expect(blockedCount > 0)
                var heard: [UInt64] = []
                try Wait.until("all 200 arrive") {
                    try serve(&sender)
                    heard += try receiver.numbers(from: sender.tsi)
                    return heard.count >= 200
                }
                #expect(heard == Array(0..<200))
                while try sender.send(ByteBuffer(repeating: 2, count: 1200)) == .done {}
                let hasPending = sender.hasPending
                #expect(hasPending)
                sender.close(flush: true)
            }
        }

        /// What an engine does for a sender: repairs leave one per call.
        private func serve(_ sender: inout PGMSocket) throws {
            for _ in 0..<32 { _ = try sender.receive() }
        }

        /// Waits until the receiver knows the sender: a loss before its first SPM could not be repaired.
        private func introduce(_ sender: inout PGMSocket, to receiver: inout PGMSocket) throws {
            var heard: [UInt64] = []
            _ = try sender.send(ByteBuffer(integer: UInt64.max))
            try Wait.until("the first packet") {
                try serve(&sender)
                heard += try receiver.numbers(from: sender.tsi)
                return !heard.isEmpty
            }
            let end = ContinuousClock.now + .milliseconds(50)
            try Wait.until("an SPM has been asked for and came") {
                try serve(&sender)
                _ = try receiver.payloads()
                return ContinuousClock.now >= end
            }
        }
    }

    extension PGMSocket {
        /// `send` where its outcome does not matter.
        fileprivate mutating func trySend(_ payload: ByteBuffer) throws { _ = try send(payload) }
    }

    @Suite("libpgm is silent", .timeLimit(.minutes(1)))
    struct SilenceTests {
        @Test("standard output stays empty at the most talkative level; the lines are for the taking")
        func silence() async {
            let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent]) {
                setenv("PGM_MIN_LOG_LEVEL", "T", 1)
                setenv("PGM_LOG_MASK", "0xFFFF", 1)
                var sender = try PGMSocket(try Ports.options())
                _ = try sender.send(ByteBuffer(integer: UInt64(1)))
                sender.close(flush: true)
                var lines = 0
                while PGMLog.take() != nil { lines += 1 }
                #expect(lines > 0, "nothing was logged, so silence proves nothing")
            }
            let text = String(decoding: result?.standardOutputContent ?? [], as: UTF8.self)
            #expect(!text.contains("Trace") && !text.contains("OpenPGM"), "\(text)")
        }
    }
#endif
