#if Redis
    import Castnet
    import CastnetTestKit
    import NIOCore
    import Testing

    @testable import CastnetRedis

    /// Whole nodes that know each other from Redis only.
    @Suite(
        "Nodes by Redis", .serialized, .timeLimit(.minutes(3)),
        .enabled(if: RedisServer.path != nil, "redis-server is not installed"))
    struct RedisNodeTests {
        private func configuration(_ name: String, _ server: RedisServer) throws -> Configuration {
            let text = """
                node: {name: \(name), listen: "127.0.0.1:0", interface: lo, unix: off}
                directory: {beacon: off, redis: {url: "redis://127.0.0.1:\(server.port)", ttl: 2s}}
                policies: [{match: "**", carrier: persistent}]
                """
            let report = Configuration.parse(text, file: "test", overrides: [], environment: [:])
            return try #require(report.configuration, "\(report.problems)")
        }

        @Test func `a call works within a second, through a crash of the store, and to the end`() async throws
        {
            let server = try RedisServer()
            let topic = try Topic("work")
            try await Node.withNode(configuration("client", server)) { client in
                let serving = try Node(configuration: configuration("server", server))
                try await serving.start()
                let start = clockNow()
                try await serving.serve(topic) { .reply($0.payload) }
                let reply = try await client.call(topic, ByteBuffer(string: "x"))
                #expect(reply.payload == ByteBuffer(string: "x"))
                #expect(clockNow() - start < .seconds(1) * Patience.factor, "took \(clockNow() - start)")
                #expect(try await client.members().first { $0.identity.name == "server" }?.source == "redis")

                server.kill()
                try await eventually("the store is missed") {
                    try await client.snapshot().counters["redis.failures"] ?? 0 >= 2
                }
                for _ in 0..<100 { _ = try await client.call(topic, ByteBuffer(string: "x")) }
                try server.start()
                try await eventually("the node is back") {
                    try server.ask("EXISTS", "castnet:default:node:server") == .integer(1)
                }
                for _ in 0..<100 { _ = try await client.call(topic, ByteBuffer(string: "x")) }

                await serving.stop()
                #expect(try server.ask("EXISTS", "castnet:default:node:server") == .integer(0))
                try await eventually("it has left") {
                    try await client.members().first { $0.identity.name == "server" }?.state == .left
                }
            }
            #expect(try server.ask("DBSIZE") == .integer(0))
        }
    }
#endif
