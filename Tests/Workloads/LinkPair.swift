internal import Castnet
internal import CastnetCore
internal import CastnetTestKit
internal import Logging
internal import NIOCore
internal import NIOEmbedded

/// The links of two nodes on one thread; what one writes is handed to the other.
final class LinkPair: Connector, @unchecked Sendable {
    private let loop = EmbeddedEventLoop()
    private var near: LinkNode!
    private var far: LinkNode!
    private var channels: [(near: EmbeddedChannel, far: EmbeddedChannel)] = []
    private static let address = HostPort(host: "10.0.0.2", port: 7000)

    init() {
        near = LinkNode("near", on: loop, connector: self)
        far = LinkNode("far", on: loop, connector: self)
        near.others = [Member(identity: far.identity, server: "far", addresses: [Self.address])]
    }

    func connect(to address: PeerAddress, on loop: any EventLoop) -> EventLoopFuture<any Channel> {
        do {
            let (near, far) = (EmbeddedChannel(loop: self.loop), EmbeddedChannel(loop: self.loop))
            far.remoteAddress = try SocketAddress(ipAddress: "10.0.0.1", port: 1)
            try self.far.unicast.accept(far)
            for channel in [far, near] {
                channel.connect(to: try SocketAddress(ipAddress: "10.0.0.2", port: 7000), promise: nil)
            }
            channels.append((near, far))
            return loop.makeSucceededFuture(near)
        } catch {
            return loop.makeFailedFuture(error)
        }
    }

    /// Sends so many messages; returns how many were accepted.
    func send(_ count: Int, _ workload: Workload) throws -> Int {
        let message = try message(workload)
        var sent = 0
        while sent < count {
            for _ in 0..<min(workload.batch, count - sent) {
                sent += 1
                var next = message
                next.sequence = UInt64(sent)
                near.unicast.send(next, completion: .copy(receipt: nil, far.identity))
            }
            near.unicast.flushLinks()
            try pump()
            guard near.accepted == sent else { break }
        }
        return near.accepted
    }

    private func message(_ workload: Workload) throws -> OutboundMessage {
        let kind = workload == .castEphemeral ? MessageKind.cast : .call
        let route = Route(carrier: kind == .cast ? .ephemeral : .persistent)
        return OutboundMessage(
            kind: kind, topic: try Topic("work"), sequence: 0, sentAtMicroseconds: 0,
            deadline: Instant(nanoseconds: Int64(loop.now.uptimeNanoseconds)) + .seconds(30),
            settle: kind == .call ? .processed : .received,
            payload: ByteBuffer(repeating: 7, count: workload.size), route: route, mandatory: false)
    }

    /// Carries bytes to and fro until nobody has any more to say.
    private func pump() throws {
        var isMoving = true
        while isMoving {
            loop.run()
            isMoving = false
            for (near, far) in channels {
                let there = try Self.carry(from: near, to: far)
                let back = try Self.carry(from: far, to: near)
                isMoving = isMoving || there || back
            }
        }
    }

    private static func carry(from one: EmbeddedChannel, to other: EmbeddedChannel) throws -> Bool {
        var hasMoved = false
        while let bytes = try one.readOutbound(as: ByteBuffer.self) {
            other.pipeline.fireChannelRead(bytes)
            hasMoved = true
        }
        if hasMoved { other.pipeline.fireChannelReadComplete() }
        return hasMoved
    }
}

/// One end of a ``LinkPair``: links without directory and API, and a handler that echoes.
private final class LinkNode: MemberSource, MessageSink, @unchecked Sendable {
    let identity: NodeIdentity
    private(set) var unicast: Unicast!
    private(set) lazy var answers = AnswerDesk(loop: loop) { [weak self] in self?.unicast.answer($0) }
    var others: [Member] = []
    private(set) var accepted = 0
    private let loop: EmbeddedEventLoop

    init(_ name: String, on loop: EmbeddedEventLoop, connector: any Connector) {
        self.loop = loop
        identity = NodeIdentity(name: name, incarnation: Incarnation(1))
        unicast = Unicast(
            loop: loop, identity: identity, configuration: Configuration(), counters: NodeCounters(),
            members: self, sink: self, seed: 7,
            log: Logger(label: "workload") { _ in SwiftLogNoOpLogHandler() }, connector: connector)
    }

    func members(serving topic: Topic) -> [Member] { others }

    func received(_ delivery: Delivery, settle: Settlement) -> Reception {
        var answer = Answer(.accepted)
        if delivery.kind == .call { answer.payload = delivery.record.body }
        delivery.answer?.give(answer)
        return .taken
    }

    func ended(copy: SendResult, receipt: UInt64?, member: NodeIdentity, bytes: Int) {
        if copy.outcome == .accepted { accepted += 1 }
    }
}
