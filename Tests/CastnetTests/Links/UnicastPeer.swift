import CastnetCore
import Foundation
import Logging
import NIOCore
import NIOPosix
import Synchronization

@testable import Castnet

/// One `Unicast` with its loop, a made-up membership and a handler: a node without directory and API.
final class UnicastPeer: MemberSource, MessageSink, @unchecked Sendable {
    /// What becomes of a message that arrives.
    enum Handling: Sendable {
        /// Answered with its own bytes.
        case echo
        /// Left without an answer.
        case silence
        case answer(Outcome)
        /// Kept until ``answerHeld()``.
        case hold
    }

    private static let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)

    let loop: any EventLoop
    let identity: NodeIdentity
    let counters = NodeCounters()
    // Everything below is used on the loop only; the handed-over lists stand behind locks.
    private(set) var unicast: Unicast!
    private(set) lazy var answers = AnswerDesk(loop: loop) { [weak self] in self?.unicast.answer($0) }
    private var others: [Member] = []
    private var handling: Handling
    private var held: [Delivery] = []
    private var answered: String?
    private let inbox = Mutex<[(topic: Topic, sequence: UInt64, bytes: Int, from: NodeIdentity)]>([])
    let repairs = Mutex<[(packet: RepairPacket, from: NodeIdentity)]>([])
    let endedRepairLinks = Mutex<[NodeIdentity]>([])
    let heardPeers = Mutex<[NodeIdentity]>([])
    private let endings = Mutex<[(member: NodeIdentity, outcome: Outcome)]>([])

    init(
        _ name: String, incarnation: UInt64 = 1, handling: Handling = .echo,
        helloDeadline: Duration = .seconds(5),
        _ adjust: (inout Configuration) -> Void = { _ in }
    ) {
        loop = Self.group.next()
        identity = NodeIdentity(name: name, incarnation: Incarnation(incarnation))
        self.handling = handling
        var configuration = Configuration()
        configuration.node.listen = HostPort(host: "127.0.0.1", port: 0)
        adjust(&configuration)
        unicast = Unicast(
            loop: loop, identity: identity, configuration: configuration, counters: counters, members: self,
            sink: self, seed: 7, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            helloDeadline: helloDeadline)
    }

    // MARK: What tests call, from any thread

    func bind() async throws -> HostPort { try await loop.flatSubmit { self.unicast.bind() }.get() }

    func close(drain: Duration = .seconds(2)) async throws {
        try await loop.flatSubmit { self.unicast.close(drain: drain) }.get()
    }

    /// Says who serves every topic.
    func know(_ members: [Member]) async throws {
        try await loop.submit {
            self.others = members
            self.unicast.membershipChanged()
        }.get()
    }

    func gone(_ member: Member) async throws {
        try await loop.submit {
            self.others.removeAll { $0.identity == member.identity }
            self.unicast.memberGone(member.identity)
        }.get()
    }

    func send(_ message: OutboundMessage) async -> SendResult {
        await withUnsafeContinuation { continuation in
            loop.execute {
                self.unicast.send(message, completion: .continuation(continuation))
                self.unicast.flushLinks()
            }
        }
    }

    /// Sends in one step what must stay in order; returns the results in order.
    func send(all messages: [OutboundMessage]) async -> [SendResult] {
        let batch = Batch(peer: self, messages: messages)
        return await withTaskGroup(of: (Int, SendResult).self) { group in
            for index in messages.indices { group.addTask { (index, await batch.result(of: index)) } }
            var results = [SendResult?](repeating: nil, count: messages.count)
            for await (index, result) in group { results[index] = result }
            return results.compactMap(\.self)
        }
    }

    /// Messages that leave together once somebody waits for each of them.
    private final class Batch: Sendable {
        private let peer: UnicastPeer
        private let messages: [OutboundMessage]
        private let waiting = Mutex<[Int: UnsafeContinuation<SendResult, Never>]>([:])

        init(peer: UnicastPeer, messages: [OutboundMessage]) {
            self.peer = peer
            self.messages = messages
        }

        func result(of index: Int) async -> SendResult {
            await withUnsafeContinuation { continuation in
                let all = waiting.withLock { waiting in
                    waiting[index] = continuation
                    return waiting.count == messages.count ? waiting : [:]
                }
                guard !all.isEmpty else { return }
                peer.loop.execute { [self] in
                    for (index, message) in messages.enumerated() {
                        guard let continuation = all[index] else { continue }
                        peer.unicast.send(message, completion: .continuation(continuation))
                    }
                    peer.unicast.flushLinks()
                }
            }
        }
    }

    func fanout(_ message: OutboundMessage, to members: [Member]) async throws {
        try await loop.submit {
            for member in members {
                self.unicast.send(message, to: member, completion: .copy(receipt: 1, member.identity))
            }
            self.unicast.flushLinks()
        }.get()
    }

    func snapshot() async throws -> [LinkSnapshot] {
        try await loop.submit { self.unicast.snapshot() }.get()
    }

    func answerHeld() async throws {
        try await loop.submit {
            for delivery in self.held { delivery.answer?.give(Answer(.accepted)) }
            self.held = []
        }.get()
    }

    /// Messages of this topic are answered whatever becomes of the others.
    func answersFrom(topic: String) async throws { try await loop.submit { self.answered = topic }.get() }

    func count(_ counter: Counter) -> Int { Int(counters.values[counter]) }
    var received: [(topic: Topic, sequence: UInt64, bytes: Int, from: NodeIdentity)] { inbox.withLock { $0 } }
    var copiesEnded: [(member: NodeIdentity, outcome: Outcome)] { endings.withLock { $0 } }

    func member(at address: HostPort, incarnation: Incarnation? = nil) -> Member {
        let identity = NodeIdentity(
            name: identity.name, incarnation: incarnation ?? self.identity.incarnation)
        return Member(identity: identity, server: identity.name, addresses: [address])
    }

    // MARK: What the unicast calls, on the loop

    func members(serving topic: Topic) -> [Member] { others }

    func received(_ delivery: Delivery, settle: Settlement) -> Reception {
        let record = delivery.record
        inbox.withLock {
            $0.append((record.topic, record.firstSequence, record.body.readableBytes, record.from))
        }
        if record.topic.name == answered {
            delivery.answer?.give(Answer(.accepted))
            return .taken
        }
        switch handling {
        case .echo:
            var answer = Answer(.accepted)
            answer.payload = record.body
            answer.headers = record.headers
            delivery.answer?.give(answer)
        case .silence: break
        case .answer(let outcome): delivery.answer?.give(Answer(outcome, why: "as told"))
        case .hold: held.append(delivery)
        }
        return .taken
    }

    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {
        endings.withLock { $0.append((member, copy.outcome)) }
    }

    func heard(_ peer: NodeIdentity) { heardPeers.withLock { $0.append(peer) } }
    func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {
        repairs.withLock { $0.append((packet, peer)) }
    }
    func repairLinkEnded(_ peer: NodeIdentity) { endedRepairLinks.withLock { $0.append(peer) } }
}
