import CastnetCore
import CastnetTestKit
import NIOCore
import Synchronization
import Testing

@testable import Castnet

@Suite("Unicast when things go wrong", .serialized, .timeLimit(.minutes(3)))
struct UnicastFaultTests {
    private func hello(_ name: String, cluster: String = "default", to: NodeIdentity? = nil) -> Packet {
        var hello = Hello(
            purpose: .persistent, cluster: cluster,
            node: NodeIdentity(name: name, incarnation: Incarnation(1)), messageMax: 1 << 20)
        hello.expected = to
        return .hello(hello)
    }

    @Test("clients that say nothing, nonsense or the wrong thing are told why and closed")
    func strangers() async throws {
        let garbage = ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n")
        let other = NodeIdentity(name: "other", incarnation: Incarnation(1))
        let message = Packet.message(
            MessageHead(
                id: 1, kind: .cast, topic: Topic(unchecked: "t"), sequence: 1, sentAtMicroseconds: 0,
                timeLeftMicroseconds: 1_000_000, total: 0), ByteBuffer())
        let cases: [(ByteBuffer, Goodbye.Reason, Counter)] = [
            (ByteBuffer(), .helloDeadline, .linkClosedHelloDeadline),
            (garbage, .protocolError, .linkClosedProtocol),
            (RawPeer.bytes([message]), .protocolError, .linkClosedProtocol),
            (RawPeer.bytes([hello("x", cluster: "foreign"), message]), .cluster, .linkClosedCluster),
            (RawPeer.bytes([hello("x", to: other), message]), .wrongNode, .linkClosedWrongNode),
            (RawPeer.bytes([hello("server"), message]), .ownNode, .linkClosedOwnNode),
        ]
        for (bytes, reason, counter) in cases {
            // Only who says nothing is judged by the clock.
            let server = UnicastPeer(
                "server", helloDeadline: reason == .helloDeadline ? .milliseconds(50) : .seconds(20))
            let client = try await RawPeer.dial(try await server.bind(), greeting: bytes)
            try await eventually("closed: \(reason)") { client.isClosed && server.count(counter) == 1 }
            #expect(client.goodbye?.reason == reason)
            #expect(client.goodbye?.taken == 0)
            #expect(server.received.isEmpty)
            #expect(try await server.snapshot().isEmpty)
            try await server.close()
        }
    }

    @Test("a doubted peer is asked on its link, and its answer refutes the doubt")
    func probing() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let result = await client.send(outbound("scheduler", 1, deadline: .seconds(5)))
        #expect(result.outcome == .accepted)
        #expect(client.heardPeers.withLock { $0.isEmpty })
        try await client.loop.submit { client.unicast.probe(server.identity) }.get()
        let deadline = ContinuousClock().now + .seconds(10)
        while client.heardPeers.withLock({ $0.isEmpty }), ContinuousClock().now < deadline {
            try await Task.sleep(for: .milliseconds(1))
        }
        #expect(client.heardPeers.withLock { $0 } == [server.identity])
        try await client.close()
        try await server.close()
    }

    @Test("a silent server: calls expire at their deadline, and the link survives")
    func silence() async throws {
        let (server, client) = (UnicastPeer("server", handling: .silence), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        async let first = client.send(outbound("scheduler", 1, deadline: .seconds(2)))
        try await eventually("the link stands") { server.received.count == 1 }
        let message = outbound("scheduler", 2, deadline: .milliseconds(60))
        let result = await client.send(message)
        #expect(result.outcome == .expired)
        #expect(MonotonicClock.now >= message.deadline)
        #expect(result.latency < .seconds(1) * Patience.factor)
        #expect((await first).outcome == .expired)
        let links = try await client.snapshot()
        #expect(links.map(\.outstanding) == [0], "\(links)")
        try await client.close()
        try await server.close()
    }

    @Test("nobody serves: mandatory fails at once, others wait for a member or their deadline")
    func nobody() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let unroutable = await client.send(outbound { $0.mandatory = true })
        #expect(unroutable.outcome == .unroutable)
        let expired = await client.send(outbound("scheduler", 2, deadline: .milliseconds(30)))
        #expect(expired.outcome == .expired)
        async let waiting = client.send(outbound("scheduler", 3))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        #expect((await waiting).outcome == .accepted)
        try await client.close()
        try await server.close()
    }

    @Test("a server restarts under load: every call ends once, and calls flow again in order")
    func restart() async throws {
        let client = UnicastPeer("client")
        // An address of its own and a port that the system gives to nobody: while it is free nobody takes it.
        let first = HostPort(host: "127.0.0.9", port: 17_609)
        var server = UnicastPeer("server") { $0.node.listen = first }
        _ = try await server.bind()
        try await client.know([server.member(at: first, incarnation: Incarnation(0))])
        var outcomes: [Outcome] = []
        for round in 0..<5 as Range<UInt64> {
            let sequences = round * 200 + 1...round * 200 + 200
            async let results = client.send(all: sequences.map { outbound("scheduler", $0) })
            try await eventually("some are in") { !server.received.isEmpty }
            try await server.close(drain: .seconds(5 * Patience.factor))
            let taken = server.received.map(\.sequence)
            #expect(taken == taken.sorted())
            server = UnicastPeer("server", incarnation: round + 2) { $0.node.listen = first }
            _ = try await server.bind()
            for result in await results { outcomes.append(result.outcome) }
        }
        // An orderly restart loses nothing: what the old one did not take, the new one has.
        #expect(outcomes.allSatisfy { $0 == .accepted }, "\(Set(outcomes))")
        #expect(outcomes.count == 1000)
        try await client.close()
        try await server.close()
    }

    @Test("what a stopping server did not take goes to another one")
    func handOver() async throws {
        let (leaving, staying) = (UnicastPeer("a", handling: .hold), UnicastPeer("b"))
        let client = UnicastPeer("client")
        let members = [
            leaving.member(at: try await leaving.bind()), staying.member(at: try await staying.bind()),
        ]
        try await client.know([members[0]])
        async let held = client.send(outbound("scheduler", 1))
        try await eventually("it is held") { leaving.received.count == 1 }
        try await client.know(members)
        async let closed: Void = leaving.close(drain: .seconds(10))
        let results = await client.send(all: (2...40).map { outbound("scheduler", $0) })
        #expect(results.allSatisfy { $0.outcome == .accepted })
        try await leaving.answerHeld()
        #expect((await held).outcome == .accepted || leaving.received.count > 1)
        // Those that reached it before its goodbye are answered, too.
        try await leaving.answerHeld()
        try await closed
        try await client.close()
        try await staying.close()
    }

    @Test("a peer that goes silent is dead after three intervals; what it had is lost")
    func dead() async throws {
        let client = UnicastPeer("client")
        let (listener, address) = try await RawPeer.listen(greeting: RawPeer.bytes([hello("server")]))
        let server = UnicastPeer("server")
        try await client.know([server.member(at: address)])
        let result = await client.send(outbound { $0.route.heartbeatInterval = .milliseconds(20) })
        #expect(result.outcome == .lost)
        #expect(result.why?.hasSuffix("dead, nothing heard for 3 heartbeat intervals") == true)
        #expect(client.count(.linkClosedDead) == 1)
        #expect(result.latency >= .milliseconds(60))
        try await client.close()
        try await listener.close()
    }

    @Test("a dead address: the other address is tried, then the other member")
    func unreachable() async throws {
        let (server, other, client) = (UnicastPeer("a"), UnicastPeer("b"), UnicastPeer("client"))
        let address = try await server.bind()
        var member = server.member(at: address)
        member.addresses.insert(HostPort(host: "127.0.0.1", port: 1), at: 0)
        let nowhere = NodeIdentity(name: "nowhere", incarnation: Incarnation(1))
        let dead = Member(
            identity: nowhere, server: "nowhere", addresses: [HostPort(host: "127.0.0.1", port: 1)])
        try await client.know([member])
        #expect((await client.send(outbound("t", 1))).outcome == .accepted)
        try await client.know([dead, other.member(at: try await other.bind())])
        let results = await client.send(all: (2...21).map { outbound("t", $0) })
        #expect(results.allSatisfy { $0.outcome == .accepted && $0.member == other.identity })
        #expect(client.count(.linkDialFailed) >= 1)
        for peer in [server, other, client] { try await peer.close() }
    }

    @Test("beacons for a link that never opens are counted, each once")
    func wordsDropped() async throws {
        let client = UnicastPeer("client")
        let nowhere = HostPort(host: "127.0.0.1", port: 1)
        try await client.loop.submit {
            client.unicast.say([ByteBuffer(string: "one"), ByteBuffer(string: "two")], toSeed: nowhere)
            client.unicast.say([ByteBuffer(string: "three")], toSeed: nowhere)
        }.get()
        try await eventually("the dial failed") { client.count(.linkDialFailed) > 0 }
        // The link's end counts both, on its own thread.
        try await client.close()
        #expect(client.count(.directoryWordsDropped) == 3)
    }

    @Test("a member that is gone for good: its copies end, nothing dials it")
    func gone() async throws {
        let (server, client) = (UnicastPeer("server", handling: .silence), UnicastPeer("client"))
        let member = server.member(at: try await server.bind())
        let dead = Member(
            identity: NodeIdentity(name: "dead", incarnation: Incarnation(1)), server: "dead",
            addresses: [HostPort(host: "127.0.0.1", port: 1)])
        try await client.fanout(outbound("t", 1, kind: .fanout), to: [member, dead])
        try await eventually("one is in") { server.received.count == 1 && client.count(.linkDialFailed) > 0 }
        try await client.gone(dead)
        try await client.gone(member)
        try await eventually("both ended") { client.copiesEnded.count == 2 }
        #expect(client.copiesEnded.first { $0.member == dead.identity }?.outcome == .released)
        #expect(client.copiesEnded.first { $0.member == member.identity }?.outcome == .lost)
        try await eventually("no link is left") { try await client.snapshot().isEmpty }
        try await client.close()
        try await server.close()
    }

    @Test("limits: links in all, per address and per peer, and messages outstanding")
    func limits() async throws {
        let full = UnicastPeer("full") { $0.limits.connections = 2 }
        let address = try await full.bind()
        let clients = [
            try await RawPeer.dial(address, greeting: RawPeer.bytes([hello("x")])),
            try await RawPeer.dial(address, greeting: RawPeer.bytes([hello("y")])),
        ]
        try await eventually("two are in") { try await full.snapshot().filter(\.isOpen).count == 2 }
        let third = try await RawPeer.dial(address)
        try await eventually("the third is out") { third.isClosed && full.count(.limitConnectionsHit) == 1 }
        clients[0].close()
        try await eventually("one left") { full.count(.linkClosedFailed) == 1 }
        let stranger = try await RawPeer.dial(address)
        try await eventually("there is room again") { full.count(.linkAccepted) == 3 }
        let node = try await RawPeer.dial(address, greeting: RawPeer.bytes([hello("z")]))
        try await eventually("who says nothing makes room") {
            let open = try await full.snapshot().filter(\.isOpen)
            return stranger.isClosed && open.count == 2
        }
        #expect(stranger.goodbye?.reason == .limit)
        #expect(!clients[1].isClosed)
        node.close()
        clients[1].close()

        let narrow = UnicastPeer("narrow") { $0.limits.perPeer = 1 }
        let other = try await narrow.bind()
        let one = try await RawPeer.dial(other, greeting: RawPeer.bytes([hello("x")]))
        try await eventually("it is in") { !one.packets.isEmpty }
        let two = try await RawPeer.dial(other, greeting: RawPeer.bytes([hello("x")]))
        try await eventually("refused") { two.isClosed && two.goodbye?.reason == .limit }
        #expect(!one.isClosed)
        one.close()

        let client = UnicastPeer("client") { $0.limits.pendingCalls = 3 }
        async let waiting = client.send(all: (1...5).map { outbound("t", $0, deadline: .milliseconds(500)) })
        let outcomes = await waiting.map(\.outcome)
        #expect(outcomes == Array(repeating: .expired, count: 5))
        #expect(client.count(.limitPendingCallsHit) == 2)
        for peer in [full, narrow, client] { try await peer.close() }
    }

    @Test("a refused member hands over where the policy says so, up to its attempts")
    func otherMember() async throws {
        let (refusing, serving) = (UnicastPeer("a", handling: .answer(.released)), UnicastPeer("b"))
        let client = UnicastPeer("client")
        try await client.know([
            refusing.member(at: try await refusing.bind()), serving.member(at: try await serving.bind()),
        ])
        let results = await client.send(
            all: (1...20).map { outbound("t", $0) { $0.route.retry = .otherMember } })
        #expect(results.allSatisfy { $0.outcome == .accepted && $0.member == serving.identity })
        let plain = await client.send(all: (21...22).map { outbound("t", $0) })
        #expect(plain.map(\.outcome).sorted { $0.code < $1.code } == [.accepted, .released])
        for peer in [refusing, serving, client] { try await peer.close() }
    }

    @Test(
        "connections cut anywhere: each call ends once, nothing is executed twice",
        arguments: [1, 2, 3] as [UInt64])
    func cuts(seed: UInt64) async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let relay = CuttingRelay(to: try await server.bind(), seed: seed)
        try await client.know([server.member(at: try await relay.listen())])
        var outcomes: [UInt64: Outcome] = [:]
        for round in 0..<6 as Range<UInt64> {
            let messages = (1...50).map { outbound("t", round * 50 + $0, bytes: Int($0) * 10) }
            for (message, result) in zip(messages, await client.send(all: messages)) {
                outcomes[message.sequence] = result.outcome
            }
        }
        relay.stopCutting()
        #expect((await client.send(outbound("t", 1000))).outcome == .accepted)
        #expect(relay.cuts > 5, "seed \(seed)")
        #expect(outcomes.count == 300)
        #expect(
            Set(outcomes.values).isSubset(of: [.accepted, .lost]), "seed \(seed): \(Set(outcomes.values))")
        let executed = server.received.map(\.sequence)
        #expect(Set(executed).count == executed.count, "seed \(seed): executed twice")
        let accepted = outcomes.filter { $0.value == .accepted }.keys
        #expect(accepted.allSatisfy(executed.contains), "seed \(seed): accepted and not executed")
        try await client.close()
        try await server.close()
        try await relay.close()
    }
}
