import CastnetCore
import Foundation
import NIOCore
import Testing

@testable import Castnet

/// A message on its way; tests change what they are about.
func outbound(
    _ topic: String = "scheduler", _ sequence: UInt64 = 1, kind: MessageKind = .call, bytes: Int = 64,
    carrier: Carrier = .persistent, deadline: Duration = .seconds(20),
    _ adjust: (inout OutboundMessage) -> Void = { _ in }
) -> OutboundMessage {
    var message = OutboundMessage(
        kind: kind, topic: Topic(unchecked: topic), server: nil, instance: nil, sequence: sequence,
        sentAtMicroseconds: 0, deadline: MonotonicClock.now + deadline, settle: .received,
        headers: Headers(), payload: ByteBuffer(repeating: UInt8(truncatingIfNeeded: sequence), count: bytes),
        route: Route(carrier: carrier), mandatory: false)
    adjust(&message)
    return message
}

/// Asks until the condition holds; an issue after 20 seconds.
func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
    let end = MonotonicClock.now + .seconds(20)
    while MonotonicClock.now < end {
        if try await condition() { return }
        await Task.yield()
    }
    Issue.record("timed out waiting: \(what)")
}

@Suite("Unicast over loopback", .serialized, .timeLimit(.minutes(3)))
struct UnicastTests {
    @Test("1,000 calls use one persistent connection")
    func oneConnection() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        for sequence in 1...100 as ClosedRange<UInt64> {
            let result = await client.send(outbound("scheduler", sequence))
            #expect(result.outcome == .accepted)
            #expect(result.payload.readableBytes == 64)
            #expect(result.member == server.identity)
        }
        let results = await client.send(all: (101...1000).map { outbound("scheduler", $0) })
        for (index, result) in results.enumerated() {
            #expect(result.outcome == .accepted)
            #expect(result.payload.readableBytesView.first == UInt8(truncatingIfNeeded: index + 101))
        }
        #expect(server.count(.linkAccepted) == 1)
        #expect(client.count(.linkOpened) == 1)
        #expect(server.received.map(\.sequence) == Array(1...1000))
        try await client.close()
        try await server.close()
        #expect(client.count(.linkClosedStopping) == 1)
    }

    @Test("a peer known by its name only keeps its link when its start is known")
    func named() async throws {
        let (server, client) = (UnicastPeer("server", incarnation: 7), UnicastPeer("client"))
        let known = server.member(at: try await server.bind())
        var named = known
        named.identity = NodeIdentity(name: "server", incarnation: Incarnation(0))
        try await client.know([named])
        #expect(await client.send(outbound("scheduler", 1)).outcome == .accepted)
        try await client.know([known])
        #expect(await client.send(outbound("scheduler", 2)).outcome == .accepted)
        #expect(client.count(.linkOpened) == 1)
        try await client.gone(known)
        try await eventually("the link ends with its peer") { try await client.snapshot().isEmpty }
        try await client.close()
        try await server.close()
    }

    @Test("casts and headers arrive; an ephemeral link closes after its linger, and reopens on demand")
    func linger() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        for round in 1...2 {
            let casts = (1...50).map { number in
                outbound("mail.\(number % 3)", UInt64(number), kind: .cast, carrier: .ephemeral) {
                    $0.route.linger = .milliseconds(30)
                    $0.headers = ["trace": "abc"]
                }
            }
            for result in await client.send(all: casts) {
                #expect(result.outcome == .accepted)
                #expect(result.headers["trace"] == "abc")
                #expect(result.carrier == .ephemeral)
            }
            #expect(server.count(.linkAccepted) == round)
            try await eventually("the link closes") {
                server.count(.linkClosedIdle) == round && client.count(.linkClosedFinished) == round
            }
            #expect(try await client.snapshot().isEmpty)
        }
        try await client.close()
        try await server.close()
    }

    @Test("linger 0 closes at once; without sharing each message has a link of its own")
    func unshared() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let messages = (1...20).map { number in
            outbound("mail", UInt64(number), carrier: .ephemeral) {
                $0.route.linger = .zero
                $0.route.share = false
            }
        }
        for result in await client.send(all: messages) { #expect(result.outcome == .accepted) }
        #expect(server.count(.linkAccepted) == 20)
        try await eventually("all close") { server.count(.linkClosedIdle) == 20 }
        try await client.close()
        try await server.close()
    }

    @Test("a message of 64 MiB comes back whole, and a small call passes it")
    func large() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let bytes = 64 << 20
        async let large = client.send(outbound("scheduler", 1, bytes: bytes, deadline: .seconds(60)))
        try await eventually("it is under way") { try await client.snapshot().first?.outstanding == 1 }
        let small = await client.send(outbound("scheduler", 2))
        #expect(small.outcome == .accepted)
        let result = await large
        #expect(result.outcome == .accepted)
        #expect(result.payload.readableBytes == bytes)
        #expect(server.received.map(\.sequence) == [2, 1])
        let tooLarge = await client.send(outbound("scheduler", 3, bytes: bytes + 1))
        #expect(tooLarge.outcome == .rejected)
        try await client.close()
        try await server.close()
    }

    @Test("the receiver refuses what is larger than it takes, and goes on")
    func receiverLimit() async throws {
        let server = UnicastPeer("server") { $0.limits.message = 1 << 20 }
        let client = UnicastPeer("client")
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let result = await client.send(outbound("scheduler", 1, bytes: 2 << 20))
        #expect(result.outcome == .rejected)
        #expect(result.why?.contains("limits.message") == true)
        #expect(server.count(.limitMessageHit) == 1)
        #expect((await client.send(outbound("scheduler", 2))).outcome == .accepted)
        #expect(server.count(.linkAccepted) == 1)
        try await client.close()
        try await server.close()
    }

    @Test("round robin is strict: shares differ by one at most")
    func roundRobin() async throws {
        let servers = (1...3).map { UnicastPeer("server-\($0)") }
        let client = UnicastPeer("client")
        var members: [Member] = []
        for server in servers { members.append(server.member(at: try await server.bind())) }
        try await client.know(members)
        _ = await client.send(all: (1...100).map { outbound("scheduler", $0) })
        let shares = servers.map { $0.received.count }.sorted()
        #expect(shares == [33, 33, 34])
        try await client.know(Array(members.dropFirst()))
        _ = await client.send(all: (101...200).map { outbound("scheduler", $0) })
        let later = servers.dropFirst().map { $0.received.filter { $0.sequence > 100 }.count }
        #expect(later == [50, 50])
        for peer in servers + [client] { try await peer.close() }
    }

    @Test("a fanout's copies reach ten members in parallel")
    func fanout() async throws {
        let servers = (1...10).map { UnicastPeer("server-\($0)") }
        let client = UnicastPeer("client")
        var members: [Member] = []
        for server in servers { members.append(server.member(at: try await server.bind())) }
        try await client.fanout(
            outbound("agents", 1, kind: .fanout, bytes: 100_000, carrier: .ephemeral), to: members)
        try await eventually("ten rows") { client.copiesEnded.count == 10 }
        #expect(Set(client.copiesEnded.map(\.member)) == Set(members.map(\.identity)))
        for ending in client.copiesEnded { #expect(ending.outcome == .accepted) }
        for peer in servers + [client] { try await peer.close() }
    }
}
