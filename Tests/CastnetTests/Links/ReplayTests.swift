import CastnetCore
import NIOCore
import Synchronization
import Testing

@testable import Castnet

@Suite("Links that break, starve, and are promoted", .serialized, .timeLimit(.minutes(3)))
struct ReplayTests {
    @Test("a connection that breaks under calls costs none of them, and none is handled twice")
    func replayed() async throws {
        let (server, client) = (UnicastPeer("server", handling: .hold), UnicastPeer("client"))
        let relay = CuttingRelay(to: try await server.bind(), seed: 1)
        relay.stopCutting()
        let address = try await relay.listen()
        try await client.know([server.member(at: address)])
        async let results = client.send(all: (1...20).map { outbound("t", $0) })
        try await eventually("all are there") { server.received.count == 20 }
        try await relay.cutAll()
        try await eventually("they came again") { server.count(.linkMessagesAgain) == 20 }
        try await server.answerHeld()
        #expect(await results.allSatisfy { $0.outcome == .accepted })
        #expect(server.received.count == 20)
        #expect(client.count(.linkClosedFailed) == 1)
        #expect(client.count(.linkOpened) == 2)
        for peer in [server, client] { try await peer.close() }
        try await relay.close()
    }

    @Test("a reply that is cut in the middle comes again, whole")
    func replyCut() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let relay = CuttingRelay(to: try await server.bind(), seed: 1)
        relay.cutOnce(after: 300_000)
        let address = try await relay.listen()
        try await client.know([server.member(at: address)])
        // So many small replies that the large one is the next to be confirmed.
        let small = await client.send(all: (1...63).map { outbound("t", $0) })
        #expect(small.allSatisfy { $0.outcome == .accepted })
        let large = await client.send(outbound("t", 64, bytes: 900_000))
        #expect(relay.cuts == 1)
        #expect(large.outcome == .accepted)
        #expect(large.payload.readableBytes == 900_000)
        #expect(server.received.count == 64)
        for peer in [server, client] { try await peer.close() }
        try await relay.close()
    }

    @Test("what was on its way to a node that was started again is lost, not repeated")
    func startedAgain() async throws {
        let first = UnicastPeer("server", incarnation: 1, handling: .silence)
        let client = UnicastPeer("client")
        let relay = CuttingRelay(to: try await first.bind(), seed: 1)
        relay.stopCutting()
        let address = try await relay.listen()
        try await client.know([first.member(at: address)])
        async let result = client.send(outbound("t", 1, deadline: .seconds(15)))
        try await eventually("it is there") { first.received.count == 1 }
        let second = UnicastPeer("server", incarnation: 2)
        relay.redirect(to: try await second.bind())
        try await relay.cutAll()
        #expect(await result.outcome == .lost)
        #expect(second.received.isEmpty)
        for peer in [first, second, client] { try await peer.close() }
        try await relay.close()
    }

    @Test("a topic that is not taken holds back itself, not its neighbour on the same link")
    func starved() async throws {
        let (server, client) = (UnicastPeer("server", handling: .hold), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let many = CreditBook.firstMessages + 500
        async let stuck = client.send(
            all: (1...UInt64(many)).map { outbound("stuck", $0, carrier: .ephemeral) })
        try await eventually("the credit is used up") {
            server.received.count == CreditBook.firstMessages && client.count(.linkCreditWaits) == 500
        }
        try await server.answersFrom(topic: "free")
        let free = await client.send(outbound("free", 1, carrier: .ephemeral))
        #expect(free.outcome == .accepted)
        try await eventually("one link") { try await client.snapshot().count == 1 }
        try await server.answerHeld()
        try await eventually("the rest comes") { server.received.count == many + 1 }
        try await server.answerHeld()
        #expect(await stuck.allSatisfy { $0.outcome == .accepted })
        #expect(
            server.received.filter { $0.topic.name == "stuck" }.map(\.sequence) == Array(1...UInt64(many)))
        for peer in [server, client] { try await peer.close() }
    }

    @Test("a client that ends its side still gets its answers, then the link ends")
    func halfClosed() async throws {
        let server = UnicastPeer("server")
        let address = try await server.bind()
        var hello = Hello(
            purpose: .ephemeral, cluster: "default",
            node: NodeIdentity(name: "x", incarnation: Incarnation(1)), messageMax: 1 << 20)
        hello.features = []
        let calls = (1...3).map { (id: UInt64) in
            Packet.message(
                MessageHead(
                    id: id, kind: .call, topic: Topic(unchecked: "t"), sequence: id, sentAtMicroseconds: 0,
                    timeLeftMicroseconds: 5_000_000, total: 4), ByteBuffer(string: "ping"))
        }
        let client = try await RawPeer.dial(address, greeting: RawPeer.bytes([.hello(hello)] + calls))
        try await eventually("they have met") { !client.packets.isEmpty }
        client.endOutput()
        try await eventually("the link has ended") { client.isClosed }
        let replies = client.packets.compactMap { if case .reply(let head, _) = $0 { head.id } else { nil } }
        #expect(replies == [1, 2, 3])
        #expect(client.goodbye?.reason == .idle)
        try await eventually("the server knows") { server.count(.linkClosedFinished) == 1 }
        try await server.close()
    }

    @Test("a hot topic moves to a link of its own, in order")
    func promoted() async throws {
        let (server, client) = (UnicastPeer("server"), UnicastPeer("client"))
        let address = try await server.bind()
        try await client.know([server.member(at: address)])
        let messages = (1...400).map { (sequence: UInt64) in
            outbound("hot", sequence, carrier: .ephemeral) {
                $0.route.promote = Route.Promotion(afterPerMinute: 200, backPerMinute: 10)
            }
        }
        for batch in 0..<4 {
            let results = await client.send(all: Array(messages[(batch * 100)..<(batch * 100 + 100)]))
            #expect(results.allSatisfy { $0.outcome == .accepted })
        }
        // In one go, in the middle of which the topic is promoted.
        let last = await client.send(
            all: (401...900).map { (sequence: UInt64) in
                outbound("other", sequence, carrier: .ephemeral) {
                    $0.route.promote = Route.Promotion(afterPerMinute: 250, backPerMinute: 10)
                }
            })
        #expect(Set(last.map(\.carrier)) == [.ephemeral, .persistent])
        for topic in ["hot", "other"] {
            let order = server.received.filter { $0.topic.name == topic }.map(\.sequence)
            #expect(order == order.sorted())
        }
        #expect(client.count(.linkTopicsPromoted) == 2)
        let links = try await client.snapshot()
        #expect(links.filter { $0.carrier == "persistent" }.compactMap(\.topic).sorted() == ["hot", "other"])
        for peer in [server, client] { try await peer.close() }
    }
}
