import CastnetCore
import CastnetTestKit
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import Castnet

/// Directories over real multicast on the loopback interface; no root needed.
@Suite(.serialized) struct DirectoryShellTests {
    private func serving(_ topic: String, _ count: Int) -> @Sendable (DirectoryShell) -> Bool {
        { shell in
            shell.members(serving: Topic(unchecked: topic)).count { $0.identity != shell.own.identity }
                == count
        }
    }

    private func settings(_ port: UInt16, interval: Duration = .seconds(1)) -> DirectorySettings {
        var settings = DirectorySettings()
        settings.beacon = DirectoryPeer.beacon(port: port, interval: interval)
        return settings
    }

    @Test(arguments: [2, 5])
    func `nodes on one host find each other within half a second, and a goodbye removes`(
        _ count: Int
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let settings = settings(UInt16(17_400 + count))
        let peers = (0..<count).map {
            DirectoryPeer("node-\($0)", on: group.next(), settings: settings, services: ["work"])
        }
        for peer in peers.dropLast() { try await peer.start() }
        for peer in peers.dropLast() { _ = try await peer.when(serving("work", count - 2)) }
        let newcomer = try #require(peers.last)
        let started = MonotonicClock.now
        try await newcomer.start()
        var last = try await newcomer.when(serving("work", count - 1))
        for peer in peers { last = max(last, try await peer.when(serving("work", count - 1))) }
        #expect(last - started < .milliseconds(500) * Patience.factor, "took \(last - started)")

        try await newcomer.stop()
        for peer in peers.dropLast() {
            _ = try await peer.when(within: .milliseconds(500) * Patience.factor, serving("work", count - 2))
            #expect(
                try await peer.on { $0.nodes().first { $0.state == .left }?.record.identity.name }
                    == "node-\(count - 1)")
        }
        for peer in peers.dropLast() { try await peer.stop() }
        try await group.shutdownGracefully()
    }

    @Test func `a topic served later is seen at once, and not any more when it is withdrawn`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let settings = settings(17_410)
        let (server, client) = (
            DirectoryPeer("server", on: group.next(), settings: settings),
            DirectoryPeer("client", on: group.next(), settings: settings, subscriptions: ["w.**"])
        )
        try await server.start()
        try await client.start()
        _ = try await client.when { $0.record(of: "server") != nil }
        let started = MonotonicClock.now
        try await server.on {
            $0.update { $0.services.append(.init(topic: Topic(unchecked: "w.x"), server: "s")) }
        }
        let seen = try await client.when(serving("w.x", 1))
        #expect(seen - started < .milliseconds(500) * Patience.factor, "took \(seen - started)")
        let hearing = try await client.on { $0.members(hearing: Topic(unchecked: "w.x")).map(\.server) }
        #expect(hearing == ["s"])
        try await server.on { $0.update { $0.services = [] } }
        _ = try await client.when(within: .milliseconds(500) * Patience.factor, serving("w.x", 0))
        try await server.stop()
        try await client.stop()
        try await group.shutdownGracefully()
    }

    @Test func `clusters on one group do not see each other, and garbage is counted`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let settings = settings(17_420)
        let peer = DirectoryPeer("a", on: group.next(), settings: settings)
        try await peer.start()
        let beacon = try #require(settings.beacon)
        let address = try SocketAddress(ipAddress: beacon.group, port: Int(beacon.port))
        let channel = try await DatagramBootstrap(group: group.next()).bind(host: "127.0.0.1", port: 0).get()
        let options = try #require(channel as? any SocketOptionProvider)
        try await options.unsafeSetSocketOption(
            level: .ip, name: .init(rawValue: 32), value: UInt32(0x7F00_0001).bigEndian
        ).get()
        for round in 0..<3 {
            var bytes = ByteBuffer(string: "no beacon at all, number \(round)")
            if round == 2 {
                bytes.clear()
                Beacon(
                    cluster: 99, sender: NodeIdentity(name: "x", incarnation: Incarnation(1)),
                    recordVersion: 1, interval: .seconds(1), body: .digest([])
                ).encode(into: &bytes)
            }
            try await channel.writeAndFlush(AddressedEnvelope(remoteAddress: address, data: bytes)).get()
        }
        let twin = DirectoryPeer("b", on: group.next(), settings: settings)
        try await twin.start()
        _ = try await peer.when { $0.record(of: "b") != nil }
        let counters = try await peer.on { $0.counters }
        #expect(counters[.beaconRejectedForm] == 2)
        #expect(counters[.beaconRejectedCluster] == 1)
        try await channel.close().get()
        try await twin.stop()
        try await peer.stop()
        try await group.shutdownGracefully()
    }

    @Test func `a node without beacons or with impossible ones starts all the same`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var settings = settings(17_430)
        settings.staticEntries = [
            .init(
                node: "far", address: HostPort(host: "10.0.0.9", port: 1),
                topics: [Topic(unchecked: "work")])
        ]
        let beacon = settings.beacon
        var noGroup = try #require(beacon)
        noGroup.group = "10.0.0.1"
        for (interface, beacon) in [("none0", beacon), ("lo", nil), ("lo", noGroup)] {
            settings.beacon = beacon
            let peer = DirectoryPeer("own", on: group.next(), settings: settings, interface: interface)
            try await peer.start()
            _ = try await peer.when(serving("work", 1))
            try await peer.stop()
            try await peer.stop()
        }
        try await group.shutdownGracefully()
    }

    @Test func `a discovery source is heard, published to and withdrawn from, and may fail`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var settings = DirectorySettings()
        settings.beacon = nil
        var node = DiscoveredNode(name: "found", addresses: [HostPort(host: "10.0.0.9", port: 1)])
        node.services = [.init(topic: Topic(unchecked: "work"), server: "found")]
        let flaky = FlakyDiscovery(node)
        let own = DirectoryPeer(
            "own", on: group.next(), settings: settings,
            discovery: [StaticDiscovery([DiscoveredNode(name: "fixed", addresses: [])]), flaky])
        try await own.start()
        _ = try await own.when(serving("work", 1))
        _ = try await own.when { $0.record(of: "fixed") != nil }
        try await own.on {
            $0.update { $0.services = [.init(topic: Topic(unchecked: "mine"), server: "own")] }
        }
        var published = flaky.published.makeAsyncIterator()
        while let record = await published.next(), record.services.isEmpty {}
        flaky.forget()
        _ = try await own.when(serving("work", 0))
        try await own.stop()
        #expect(await published.next() == nil, "withdrawn")
        try await group.shutdownGracefully()
    }
}

/// A source whose first try fails, that then tells of one node until told to forget it.
private final class FlakyDiscovery: Discovery {
    let name = "flaky"
    let published: AsyncStream<DiscoveredNode>
    private let publications: AsyncStream<DiscoveredNode>.Continuation
    private let changes: AsyncStream<DiscoveryEvent>
    private let change: AsyncStream<DiscoveryEvent>.Continuation
    private let tries = CallCounter()

    init(_ node: DiscoveredNode) {
        (published, publications) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(10))
        (changes, change) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(10))
        change.yield(.found(node))
    }

    func publish(_ own: DiscoveredNode) async throws { publications.yield(own) }

    func withdraw(_ own: DiscoveredNode) async throws { publications.finish() }

    func events() async throws -> AsyncStream<DiscoveryEvent> {
        if tries.next() == 1 { throw CastnetError(.unreachable, "first try") }
        return changes
    }

    func forget() { change.yield(.gone(name: "found")) }
}

/// Counts calls, from 1.
private final class CallCounter: Sendable {
    private let count = Mutex(0)
    func next() -> Int {
        count.withLock {
            $0 += 1
            return $0
        }
    }

    /// Peers come over links as soon as a node listens, and that is before it has a directory.
    @Test func `what peers tell a node that is still starting counts for nothing`() async throws {
        let report = Configuration.parse(
            """
            node: {name: starting, listen: "127.0.0.1:0", interface: lo}
            directory: {beacon: off, seeds: ["127.0.0.1:9"]}
            policies: [{match: "**", carrier: persistent}]
            """, file: "test.yaml")
        let configuration = try #require(report.configuration)
        let node = try Node(configuration: configuration)
        let peer = NodeIdentity(name: "peer", incarnation: Incarnation(1))
        var word = ByteBuffer()
        let told = Beacon.Told(
            record: NodeRecord(identity: peer, version: 1), interval: .seconds(1), age: .zero)
        Beacon(
            cluster: Beacon.digest(ofCluster: "default"), sender: peer, recordVersion: 1,
            interval: .seconds(1), body: .table([told])
        ).encode(into: &word)
        let (shell, early) = (node.shell, word)
        try await shell.loop.submit {
            shell.met(peer)
            shell.directoryReceived(early, from: peer)
            shell.missed(peer)
            shell.heard(peer)
            #expect(shell.directory == nil && shell.members(serving: Topic(unchecked: "work")).isEmpty)
        }.get()
        try await node.start()
        func knows() async throws -> Bool {
            try await shell.loop.submit { shell.directory?.record(of: "peer") != nil }.get()
        }
        #expect(try await !knows())
        // The same, once it has one.
        try await shell.loop.submit { shell.directoryReceived(early, from: peer) }.get()
        #expect(try await knows())
        await node.stop()
    }
}
