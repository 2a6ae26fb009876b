import CastnetCore
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import Castnet

/// What a member that dies had started is lost; the rest goes to another, and nothing is started twice.
@Suite("Messages that ask before they start", .serialized, .timeLimit(.minutes(1)))
struct ClaimTests {
    private final class Accepted: Sendable {
        // Of this lock the thread sanitizer knows.
        private let peers = NIOLockedValueBox<[RawPeer]>([])
        func add(_ peer: RawPeer) { peers.withLockedValue { $0.append(peer) } }
        var first: RawPeer? { peers.withLockedValue { $0.first } }
    }

    private func message(_ sequence: UInt64) -> OutboundMessage {
        outbound("t", sequence) { message in
            message.route.retry = .otherMember
            // The end of the connection tells of the member's, no silence.
            message.route.heartbeatInterval = .seconds(10)
        }
    }

    /// Four messages go to a member that never asks for the first, is let start the others, says so of the
    /// last, and ends: with a reset or in order.
    @Test(arguments: [false, true]) func `what a dead member had not started goes to another`(
        isReset: Bool
    ) async throws {
        let (server, other, client) = (UnicastPeer("a"), UnicastPeer("b"), UnicastPeer("client"))
        var hello = Hello(
            purpose: .persistent, cluster: "default", node: server.identity, messageMax: 1 << 20)
        hello.features = [.credit, .claims]
        let accepted = Accepted()
        let (listener, address) = try await RawPeer.listen(greeting: RawPeer.bytes([.hello(hello)])) {
            accepted.add($0)
        }
        try await client.know([server.member(at: address)])
        async let results = client.send(all: (1...4).map(message))
        try await eventually("they are there") {
            accepted.first?.packets.count { if case .message = $0 { true } else { false } } == 4
        }
        let peer = try #require(accepted.first)
        let heads = peer.packets.compactMap { if case .message(let head, _) = $0 { head } else { nil } }
        #expect(heads.count { $0.isClaimed } == 4)
        let ids = heads.map(\.id)
        peer.say(RawPeer.bytes(ids.dropFirst().map { .mayStart(id: $0) } + [.mayStart(id: 99)]))
        try await eventually("they may start, what nobody sent may not") {
            let (starts, cancels) = (peer.packets.filter { $0.isStart }, peer.packets.filter { $0.isCancel })
            return starts.count == 3 && cancels == [.cancel(id: 99)]
        }
        peer.say(RawPeer.bytes([.started(id: ids[3])]))
        // Nobody can know whether the client has seen it when the connection is reset.
        if isReset { try await client.roundTrip(peer) }
        try await client.know([other.member(at: try await other.bind())])
        isReset ? peer.reset() : peer.endOutput()
        let outcomes = await results.map(\.outcome)
        #expect(outcomes == [.accepted, isReset ? .lost : .accepted, isReset ? .lost : .accepted, .lost])
        #expect(other.received.count == (isReset ? 1 : 3))
        for peer in [other, client] { try await peer.close() }
        try await listener.close()
    }
}

extension Packet {
    fileprivate var isStart: Bool { if case .start = self { true } else { false } }
    fileprivate var isCancel: Bool { if case .cancel = self { true } else { false } }
}

extension UnicastPeer {
    /// Returns when this node has taken in what `peer` had said.
    fileprivate func roundTrip(_ peer: RawPeer) async throws {
        peer.say(RawPeer.bytes([.heartbeat(77)]))
        try await eventually("an answer") { peer.packets.contains(.heartbeatAnswer(77)) }
    }
}
