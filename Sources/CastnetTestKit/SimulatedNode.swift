internal import CastnetCore
internal import DequeModule
internal import NIOCore

/// A node of a ``ChannelSimulation``: a machine, the socket buffer before it and the subscription behind it.
final class SimulatedNode {
    /// Its place in the simulation, which its incarnation tells: a node that starts anew gets another.
    let index: Int
    let identity: NodeIdentity
    let streamID: UInt64
    var machine: ChannelMachine
    var book = ReceiptBook()
    /// What each receipt is about.
    private(set) var receipts: [UInt64: ReceiptSubject] = [:]
    static let channel = "sim"
    var batches: [Int] = []
    var consumerRate: Double?
    var isDraining = false
    /// When what this node last wrote to each other one gets there.
    var linkAt: [Int: Instant] = [:]
    var isServicePlanned = false
    /// When reports came in the last second.
    var reportTimes = Deque<Instant>()
    /// The process was killed.
    var isDead = false
    var deadline: Instant?
    var pausedUntil = Instant(nanoseconds: 0)
    /// Bytes of each record that waits for the consumer.
    var backlogRecords = Deque<Int>()
    private(set) var buffer = Deque<ByteBuffer>()
    private var charged = 0
    private let receiveBuffer: Int
    private var sequences: [Topic: UInt64] = [:]

    init(_ index: Int, name: String? = nil, _ scenario: ChannelSimulation.Scenario, now: Instant) {
        self.index = index
        identity = NodeIdentity(
            name: name ?? "node-\(index)", incarnation: Incarnation(UInt64(index) + 1))
        streamID = 0x1000 + UInt64(index)
        receiveBuffer = scenario.settings.receiveBuffer
        machine = ChannelMachine(
            settings: scenario.settings, limits: scenario.limits, identity: identity, streamID: streamID,
            reportAddress: DatagramAddress(address: 0x0A4D_0000 + UInt32(index), port: 9000),
            frameSizeMax: scenario.frameSizeMax, receiveBufferBytes: receiveBuffer,
            configurationDigest: 7, seed: scenario.seed &* 31 &+ UInt64(index), now: now)
        machine.listens(replays: scenario.settings.isReplayed, now: now)
    }

    var backlog: Int { backlogRecords.reduce(0, +) }

    func pausedUntil(_ now: Instant) -> Instant { max(now, pausedUntil) }

    /// Puts a frame into the socket buffer, charged as the kernel does; false: there is no room.
    func buffer(_ frame: ByteBuffer) -> Bool {
        let charge = frame.readableBytes + 852
        guard charged + charge <= receiveBuffer else { return false }
        charged += charge
        buffer.append(frame)
        return true
    }

    func read(_ count: Int) -> [ByteBuffer] {
        var frames: [ByteBuffer] = []
        while frames.count < count, let frame = buffer.popFirst() {
            charged -= frame.readableBytes + 852
            frames.append(frame)
        }
        return frames
    }

    func makeCasts(
        _ count: Int, _ scenario: ChannelSimulation.Scenario, _ generator: inout SeededGenerator, now: Instant
    ) -> [OutboundCast] {
        (0..<count).map { _ in
            let topic = Topic(
                unchecked: "sim.t\(Int.random(in: 0..<scenario.topics, using: &generator))")
            let sequence = sequences[topic, default: 0] + 1
            sequences[topic] = sequence
            var size = Int.random(in: scenario.sizes, using: &generator)
            if scenario.largeEvery > 0, Int.random(in: 0..<scenario.largeEvery, using: &generator) == 0 {
                size = Int.random(in: scenario.largeSize / 4...scenario.largeSize, using: &generator)
            }
            var headers = Headers()
            if Int.random(in: 0..<20, using: &generator) == 0 {
                headers["trace"] = String(repeating: "x", count: Int.random(in: 1...3000, using: &generator))
            }
            let asks = scenario.hasReceipts && sequence % 3 == 0
            return OutboundCast(
                topic: topic, sequence: sequence, sentAtMicroseconds: UInt64(now.nanoseconds / 1000),
                headers: headers, payload: Self.payload(index, topic, sequence, size),
                token: asks ? receipt(topic, sequence) : nil, asksProcessed: asks && sequence % 6 == 0)
        }
    }

    private func receipt(_ topic: Topic, _ sequence: UInt64) -> UInt64 {
        let token = UInt64(receipts.count) + 1
        receipts[token] = ReceiptSubject(
            topic: topic, sequence: sequence, settle: sequence % 6 == 0 ? .processed : .received)
        return token
    }

    func openReceipts(for casts: [OutboundCast], of members: [NodeIdentity], now: Instant) {
        for cast in casts {
            guard let token = cast.token else { continue }
            receipts[token]?.members = members.count - 1
            book.open(
                token, cast.topic, delivered: [], waiting: members.filter { $0 != identity },
                channel: Self.channel, settle: receipts[token]?.settle ?? .received,
                deadline: now + .seconds(3600), now: now)
        }
    }

    /// The bytes of one message, a function of who, where, which and how long.
    static func payload(_ sender: Int, _ topic: Topic, _ sequence: UInt64, _ size: Int) -> ByteBuffer {
        let mark = UInt64(sender) << 56 ^ UInt64(topic.name.utf8.last ?? 0) << 48 ^ sequence
        var buffer = ByteBuffer()
        buffer.reserveCapacity(size + 8)
        for _ in 0..<(size + 7) / 8 { buffer.writeInteger(mark) }
        buffer.moveWriterIndex(to: size)
        return buffer
    }
}

/// What a receipt is about.
struct ReceiptSubject {
    var topic: Topic
    var sequence: UInt64
    var settle: Settlement
    /// How many the message was for.
    var members = 0
}

extension NodeIdentity {
    /// The place in the simulation of the node that has this identity.
    var place: Int { Int(incarnation.value) - 1 }
}
