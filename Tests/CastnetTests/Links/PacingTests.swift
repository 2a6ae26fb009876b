import CastnetCore
import CastnetTestKit
import NIOCore
import Testing

@testable import Castnet

/// Nodes that come faster than their peer takes them in.
@Suite("Pacing asked for by the receiver", .serialized, .timeLimit(.minutes(1)))
struct PacingTests {
    private func message(_ sequence: UInt64, deadline: Duration = .seconds(30)) -> OutboundMessage {
        outbound("t", sequence, deadline: deadline) { $0.route.carrier = .persistent }
    }

    @Test("a crowd is told to come back, obeys, and in the end every message is accepted")
    func crowd() async throws {
        let server = UnicastPeer("server") { $0.limits.hellos = 3 }
        let member = server.member(at: try await server.bind())
        let clients = (1...6).map { UnicastPeer("client-\($0)") }
        for client in clients { try await client.know([member]) }
        let outcomes = await withTaskGroup(of: Outcome.self) { group in
            for client in clients { group.addTask { await client.send(self.message(1)).outcome } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(outcomes == Array(repeating: .accepted, count: 6))
        #expect(server.received.count == 6)
        #expect(server.count(.limitHellosHit) >= 1)
        #expect(server.count(.limitHellosHit) == clients.map { $0.count(.linkDialsPaced) }.reduce(0, +))
        for client in clients { #expect(client.count(.linkDialFailed) == 0) }
        for peer in clients + [server] { try await peer.close() }
    }

    /// A node that is always busy: it says so after its hello, and takes nothing.
    private func busy(_ identity: NodeIdentity, comeBack: UInt32?) async throws -> (any Channel, HostPort) {
        let hello = Hello(
            purpose: .service, cluster: "default", node: identity, messageMax: 1 << 20)
        let goodbye = Goodbye(.limit, "busy", comeBackMilliseconds: comeBack)
        return try await RawPeer.listen(greeting: RawPeer.bytes([.hello(hello), .goodbye(goodbye)]))
    }

    @Test("messages go to another member meanwhile; the deadline rules where there is none")
    func elsewhere() async throws {
        let (server, away, client) = (UnicastPeer("b"), UnicastPeer("a"), UnicastPeer("client"))
        let (listener, address) = try await busy(away.identity, comeBack: .max)
        try await client.know([away.member(at: address)])
        let result = await client.send(message(1, deadline: .milliseconds(200 * Patience.factor)))
        #expect(result.outcome == .expired)
        #expect(client.count(.linkDialsPaced) == 1 && client.count(.linkOpened) == 1)
        try await client.know([
            away.member(at: address), server.member(at: try await server.bind()),
        ])
        let results = await client.send(all: (2...9).map { message($0) })
        #expect(results.allSatisfy { $0.outcome == .accepted && $0.member == server.identity })
        // It has obeyed: whoever asks for ever is heeded for five seconds.
        #expect(client.count(.linkOpened) == 2)
        let end = try await client.loop.submit {
            client.unicast.dials.backoffEnd(away.identity).map { $0 - client.unicast.now }
        }.get()
        #expect(end.map { $0 > .zero && $0 <= .seconds(5) } == true)
        for peer in [server, client] { try await peer.close() }
        try await listener.close()
    }

    @Test("a peer that does not say when is dialled again after a wait of this side's own")
    func older() async throws {
        let (away, client) = (UnicastPeer("a"), UnicastPeer("client"))
        let (listener, address) = try await busy(away.identity, comeBack: nil)
        try await client.know([away.member(at: address)])
        let result = await client.send(message(1, deadline: .milliseconds(500)))
        #expect(result.outcome == .expired)
        #expect(client.count(.linkDialsPaced) == 0)
        #expect(client.count(.linkClosedLimit) >= 1)
        try await client.close()
        try await listener.close()
    }

    @Test("links for repair and ephemeral ones are not paced")
    func exempt() async throws {
        let server = UnicastPeer("server") { $0.limits.hellos = 1 }
        let address = try await server.bind()
        for purpose in [Hello.Purpose.service, .ephemeral, .persistent, .service, .ephemeral] {
            let hello = Hello(
                purpose: purpose, cluster: "default",
                node: NodeIdentity(name: "x", incarnation: Incarnation(1)), messageMax: 1 << 20)
            _ = try await RawPeer.dial(address, greeting: RawPeer.bytes([.hello(hello)]))
        }
        try await eventually("all are in") { try await server.snapshot().filter(\.isOpen).count == 5 }
        #expect(server.count(.limitHellosHit) == 0)
        try await server.close()
    }
}
