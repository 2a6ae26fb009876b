#if Redis
    import CastnetCore
    import NIOCore
    import Testing

    @testable import CastnetRedis

    /// What others may have written under the keys of nodes, and on the channel.
    @Suite(
        "Redis, hostile", .serialized, .timeLimit(.minutes(3)),
        .enabled(if: RedisServer.path != nil, "redis-server is not installed"))
    struct HostileStoreTests {
        private static let prefix = "castnet:default:node:"

        private func set(_ name: String, _ value: ByteBuffer, on server: RedisServer) throws {
            try server.ask([ByteBuffer(string: "SET"), ByteBuffer(string: Self.prefix + name), value])
        }

        @Test func `values that are no records are counted and skipped`() async throws {
            let server = try RedisServer()
            let good = StoredRecord.encode(StorePeer.record("good"))
            try set("empty", ByteBuffer(), on: server)
            try set("text", ByteBuffer(string: "no record at all"), on: server)
            try set("large", ByteBuffer(repeating: 0x43, count: 4 << 20), on: server)
            try server.ask("SETRANGE", Self.prefix + "huge", "\(64 << 20)", "x")
            try set("other", StoredRecord.encode(StorePeer.record("good")), on: server)
            try set("foreign", StoredRecord.encode(StorePeer.record("foreign", cluster: "x")), on: server)
            try set("zero", StoredRecord.encode(StorePeer.record("zero", 0)), on: server)
            for length in [1, 8, 24, good.readableBytes - 1] {
                try set("cut-\(length)", good.getSlice(at: 0, length: length) ?? ByteBuffer(), on: server)
            }
            try server.ask("RPUSH", Self.prefix + "list", "a", "b")
            try server.ask("HSET", Self.prefix + "hash", "a", "b")
            try server.ask("SADD", Self.prefix + "set", "a", "b")
            try set("has space", good, on: server)
            try set("", good, on: server)
            try set(String(repeating: "n", count: 65), good, on: server)
            try set(String(repeating: "n", count: 100_000), good, on: server)
            var noText = ByteBuffer(string: "castnet:default:node:")
            noText.writeBytes([0xFF, 0xFE, 0x80])
            try server.ask([ByteBuffer(string: "SET"), noText, good])
            try set("good", good, on: server)

            let peer = StorePeer("peer", at: try server.address)
            try peer.publish()
            try await eventually("the good one is found") { peer.log["good"] != nil }
            try await eventually("all were looked at") { peer.log[.redisRecordsRejected] >= 13 }
            #expect(peer.log.names.count == 1)
            #expect(peer.log[.redisFailures] == 0)
            #expect(peer.log.lines.count == 1 && peer.log.lines[0].contains("no record"), "\(peer.log.lines)")
            await peer.store.withdraw()
        }

        @Test func `a key that somebody has spoilt is written anew, and its node stays`() async throws {
            let server = try RedisServer()
            let (a, b) = (StorePeer("a", at: try server.address), StorePeer("b", at: try server.address))
            try a.publish(5)
            try b.publish()
            try await eventually("it is known") { b.log["a"] != nil }
            let spoils = [
                "redis.call('SET', KEYS[1], 'x')",
                "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')",
            ]
            for spoil in spoils {
                let before = b.log[.redisRecordsRejected]
                try server.ask("EVAL", spoil, "1", Self.prefix + "a")
                try server.ask("PUBLISH", "castnet:default:changes", "a")
                try await eventually("it is seen") { b.log[.redisRecordsRejected] > before }
                try await eventually("it is written anew") {
                    try server.ask("GETRANGE", Self.prefix + "a", "0", "3")
                        == .bytes(ByteBuffer(string: "CNRD"))
                }
            }
            #expect(b.log["a"] != nil && b.log.gone.isEmpty)
            await a.store.withdraw()
            await b.store.withdraw()
        }

        @Test func `notifications of anything harm nobody`() async throws {
            let server = try RedisServer()
            let (a, b) = (
                StorePeer("a", at: try server.address, timeToLive: .seconds(20)),
                StorePeer("b", at: try server.address, timeToLive: .seconds(20))
            )
            try a.publish()
            try b.publish()
            try await eventually("they know each other") { a.log["b"] != nil && b.log["a"] != nil }
            let channel = ByteBuffer(string: "castnet:default:changes")
            var noises = ["", "a b", "no-such-node", "b", String(repeating: "x", count: 300)].map {
                ByteBuffer(string: $0)
            }
            noises.append(ByteBuffer(bytes: [0xFF, 0x00, 0xC3]))
            for noise in noises { try server.ask([ByteBuffer(string: "PUBLISH"), channel, noise]) }
            try server.ask(
                "EVAL", "for i = 1, 2000 do redis.call('PUBLISH', ARGV[1], 'ghost-' .. i) end", "0",
                "castnet:default:changes")
            try await eventually("all are heard") { b.log[.redisNotifications] >= 2006 }
            #expect(b.log[.redisRecordsRejected] == 4 && b.log[.redisFailures] == 0)
            // What no notification can be ends the connection; all is read again over the next.
            try server.ask([
                ByteBuffer(string: "PUBLISH"), channel, ByteBuffer(repeating: 0x41, count: 1 << 20),
            ])
            try await eventually("b is back") { b.log[.redisConnects] >= 2 }
            try a.publish(version: 2, topics: ["late"])
            try await eventually("a change is heard") { b.log["a"]?.version == 2 }
            #expect(a.log["b"] != nil && a.log.gone.isEmpty && b.log.gone.isEmpty)
            await a.store.withdraw()
            await b.store.withdraw()
        }

        @Test func `more keys than members and many foreign ones are looked through`() async throws {
            let server = try RedisServer()
            // Half of it with names that a careless pattern would match.
            try server.ask(
                "EVAL",
                "for i = 1, 8000 do for _, k in ipairs(ARGV) do redis.call('SET', k .. i, 'x') end end",
                "0", "other:", "castnet:defaultXnode:")
            for number in 0..<300 {
                try set(
                    "n\(number)", StoredRecord.encode(StorePeer.record("n\(number)")), on: server)
            }
            let peer = StorePeer("peer", at: try server.address, membersMax: 100)
            try peer.publish()
            try await eventually("a look is done") { peer.log[.redisScans] >= 2 }
            #expect(peer.log.names.count == 100)
            #expect(peer.log[.limitMembersHit] > 0 && peer.log[.redisRecordsRejected] == 0)
            await peer.store.withdraw()
        }

        @Test func `a prefix of pattern characters means itself`() async throws {
            let server = try RedisServer()
            let prefix = #"a*[b]?\c"#
            let (a, b) = (
                StorePeer("a*", at: try server.address, prefix: prefix, cluster: "[x]"),
                StorePeer("b", at: try server.address, prefix: prefix, cluster: "[x]")
            )
            try a.store.publish(StorePeer.record("a*", cluster: "[x]"))
            try await eventually("a is registered") { a.log[.redisRecordsStored] > 0 }
            try b.store.publish(StorePeer.record("b", cluster: "[x]"))
            try await eventually("they know each other") { a.log["b"] != nil && b.log["a*"] != nil }
            await a.store.withdraw()
            await b.store.withdraw()
        }
    }
#endif
