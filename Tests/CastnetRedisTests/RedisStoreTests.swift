#if Redis
    import CastnetCore
    import CastnetTestKit
    import NIOCore
    import Testing

    @testable import CastnetRedis

    /// Nodes' registrations in a real Redis.
    @Suite(
        "Redis", .serialized, .timeLimit(.minutes(3)),
        .enabled(if: RedisServer.path != nil, "redis-server is not installed"))
    struct RedisStoreTests {
        private static let keyOfA = "castnet:default:node:a"

        @Test func `nodes find each other, hear every change, and see who withdraws`() async throws {
            let server = try RedisServer()
            let (a, b) = (StorePeer("a", at: try server.address), StorePeer("b", at: try server.address))
            try a.publish(topics: ["one"])
            try await eventually("a is registered") { try server.ask("EXISTS", Self.keyOfA) == .integer(1) }
            try b.publish()
            let met = try await eventually("both know each other") {
                a.log["b"] != nil && b.log["a"]?.services.count == 1
            }
            #expect(met < .seconds(1) * Patience.factor)
            try a.publish(version: 2, topics: ["one", "two"])
            let heard = try await eventually("the change arrives") { b.log["a"]?.services.count == 2 }
            #expect(heard < .seconds(1) * Patience.factor)
            let (ttl, most) = (try server.ask("PTTL", Self.keyOfA), Int64(2000))
            if case .integer(let left) = ttl { #expect((1...most).contains(left)) }
            await a.store.withdraw()
            #expect(try server.ask("EXISTS", Self.keyOfA) == .integer(0))
            let left = try await eventually("it is gone") { b.log.gone == ["a"] }
            #expect(left < .seconds(1) * Patience.factor)
            await b.store.withdraw()
            #expect(try server.ask("DBSIZE") == .integer(0))
            #expect(a.log.lines.isEmpty && b.log.lines.isEmpty, "\(a.log.lines) \(b.log.lines)")
        }

        @Test func `a record that nobody refreshes expires, and its node is gone`() async throws {
            let server = try RedisServer()
            let peer = StorePeer("b", at: try server.address, timeToLive: .milliseconds(600))
            try peer.publish()
            let value = StoredRecord.encode(StorePeer.record("a", 7))
            let key = ByteBuffer(string: Self.keyOfA)
            try server.ask(
                [ByteBuffer(string: "SET"), key, value] + ["PX", "1500"].map { ByteBuffer(string: $0) })
            // Nobody told of it: the next look at all names finds it.
            try await eventually("it is found") { peer.log["a"]?.identity.incarnation == Incarnation(7) }
            try await eventually("it is gone") { peer.log.gone == ["a"] }
            // The own one is refreshed all the while.
            #expect(try server.ask("EXISTS", "castnet:default:node:b") == .integer(1))
            #expect(peer.log[.redisRecordsStored] >= 3 && peer.log[.redisScans] >= 3)
            await peer.store.withdraw()
        }

        @Test func `an older start neither overwrites nor withdraws a newer one`() async throws {
            let server = try RedisServer()
            let (new, old) = (
                StorePeer("a", at: try server.address), StorePeer("a", at: try server.address)
            )
            let watch = StorePeer("watch", at: try server.address)
            try watch.publish()
            try new.publish(5, version: 3)
            try await eventually("it is registered") { watch.log["a"]?.version == 3 }
            try old.publish(4, version: 9)
            try await eventually("it is refused") { old.log[.redisRecordsRefused] > 0 }
            #expect(old.log.lines.count == 1 && old.log.lines[0].contains("newer start"))
            await old.store.withdraw()
            try await eventually("it is told") { watch.log[.redisNotifications] >= 2 }
            try watch.publish(version: 2)
            try await eventually("the watcher goes on") { watch.log[.redisRecordsStored] >= 2 }
            #expect(watch.log["a"]?.identity.incarnation == Incarnation(5) && watch.log.gone.isEmpty)
            // A newer version of the same start, and a newer start, do.
            try new.publish(5, version: 4)
            try await eventually("the version changes") { watch.log["a"]?.version == 4 }
            let next = StorePeer("a", at: try server.address)
            try next.publish(6)
            try await eventually("the start changes") {
                watch.log["a"]?.identity.incarnation == Incarnation(6)
            }
            #expect(watch.log.gone.isEmpty)
            for peer in [new, next, watch] { await peer.store.withdraw() }
        }

        @Test func `a store that crashes and comes back empty costs no node`() async throws {
            let server = try RedisServer()
            let peers = try (0..<5).map { StorePeer("n\($0)", at: try server.address) }
            for peer in peers { try peer.publish() }
            func isComplete() -> Bool {
                peers.allSatisfy { peer in
                    peers.allSatisfy { $0.name == peer.name || peer.log[$0.name] != nil }
                }
            }
            try await eventually("all know all") { isComplete() }
            server.kill()
            try await eventually("all notice") { peers.allSatisfy { $0.log[.redisFailures] >= 3 } }
            #expect(isComplete())
            for peer in peers {
                let warnings = peer.log.lines.filter { $0.contains("known nodes are kept") }
                #expect(warnings.count == 1 && warnings[0].contains("castnet.age"), "\(warnings)")
            }
            try server.start()
            let back = try await eventually("all are registered again") {
                try server.ask("DBSIZE") == .integer(5)
            }
            #expect(back < .seconds(7) * Patience.factor, "took \(back)")
            try await eventually("all say so") {
                peers.allSatisfy { $0.log.lines.contains { $0.contains("can be used again") } }
            }
            // One that dies now is gone, after the time to live.
            let heir = StorePeer("n0", at: try server.address)
            try heir.publish(0x7FFF_FFFF)
            try await eventually("the newcomer is seen") {
                peers[1].log["n0"]?.identity.incarnation == Incarnation(0x7FFF_FFFF)
            }
            await heir.store.withdraw()
            try await eventually("it is gone") { peers.dropFirst().allSatisfy { $0.log.gone == ["n0"] } }
            #expect(peers[0].log.gone.isEmpty)
            for peer in peers { await peer.store.withdraw() }
        }

        @Test func `a hundred nodes find each other, and again after a crash of the store`() async throws {
            let server = try RedisServer()
            // Fewer where a sanitizer watches every step.
            let count = Patience.factor > 1 ? 20 : 100
            let peers = try (0..<count).map {
                StorePeer("n\($0)", at: try server.address, timeToLive: .seconds(10))
            }
            for peer in peers { try peer.publish() }
            let formed = try await eventually("all know all") {
                peers.allSatisfy { $0.log.names.count == count - 1 }
            }
            server.kill()
            try await eventually("all notice") { peers.allSatisfy { $0.log[.redisFailures] >= 2 } }
            try server.start()
            let back = try await eventually("all have read everything again") {
                peers.allSatisfy { $0.log.lines.contains { $0.contains("can be used again") } }
            }
            #expect(try server.ask("DBSIZE") == .integer(Int64(count)))
            #expect(peers.allSatisfy { $0.log.gone.isEmpty && $0.log.names.count == count - 1 })
            print("\(count) nodes by Redis: formed in \(formed), back after \(back)")
            for peer in peers { await peer.store.withdraw() }
        }

        @Test func `whoever ends, in order or not, leaves no connection and no record`() async throws {
            let server = try RedisServer()
            for round in 0..<40 {
                let peer = StorePeer("n\(round)", at: try server.address)
                try peer.publish()
                if round % 4 > 0 {
                    try await eventually("it is registered") { peer.log[.redisRecordsStored] > 0 }
                }
                // The others are just dropped.
                if round.isMultiple(of: 2) { await peer.store.withdraw() }
            }
            try await eventually("only the one that asks is connected") {
                try server.ask("INFO", "clients").text?.contains("connected_clients:1\r\n") == true
            }
            #expect(try server.ask("DBSIZE") == .integer(0))
            let silent = StorePeer("never", at: try server.address)
            await silent.store.withdraw()
        }

        @Test func `a store that hangs is left and withdrawing does not wait for it`() async throws {
            let server = try RedisServer()
            let (a, b) = (StorePeer("a", at: try server.address), StorePeer("b", at: try server.address))
            try a.publish()
            try b.publish()
            try await eventually("they know each other") { a.log["b"] != nil && b.log["a"] != nil }
            server.pause()
            try await eventually("both notice") { a.log[.redisFailures] > 0 && b.log[.redisFailures] > 0 }
            #expect(a.log["b"] != nil && b.log["a"] != nil)
            #expect(a.log.lines.contains { $0.contains("no answer in time") }, "\(a.log.lines)")
            let start = clockNow()
            await a.store.withdraw()
            #expect(clockNow() - start < .milliseconds(3500) * Patience.factor)
            server.resume()
            try await eventually("b is back") { b.log.lines.contains { $0.contains("can be used again") } }
            await b.store.withdraw()
        }

        @Test func `user, password and database are used, and the password is not told`() async throws {
            let server = try RedisServer()
            // All that docs/wire-redis.md says a node needs, and nothing else.
            let rights =
                "on >s3:cr@t resetkeys ~castnet:* resetchannels &castnet:* -@all +auth +select +ping"
                + " +subscribe +publish +eval +scan +getrange +set +del"
            let words = ["ACL", "SETUSER", "nodes"] + rights.split(separator: " ").map(String.init)
            #expect(try server.ask(words.map { ByteBuffer(string: $0) }).text == "OK")
            try server.ask("ACL", "SETUSER", "default", "off")
            let place = "127.0.0.1:\(server.port)/3"
            let right = StorePeer("a", at: try RedisAddress("redis://nodes:s3%3Acr%40t@\(place)"))
            let wrong = StorePeer("b", at: try RedisAddress("redis://nodes:wr0ng@\(place)"))
            let none = StorePeer("c", at: try RedisAddress("redis://\(place)"))
            for peer in [right, wrong, none] { try peer.publish() }
            let other = StorePeer("d", at: try RedisAddress("redis://nodes:s3%3Acr%40t@\(place)"))
            try other.publish()
            try await eventually("those with the right one know each other") {
                right.log["d"] != nil && other.log["a"] != nil
            }
            try await eventually("the wrong one is refused") {
                wrong.log.lines.contains { $0.contains("WRONGPASS") }
                    && none.log.lines.contains { $0.contains("NOAUTH") }
            }
            #expect(right.log.lines.isEmpty, "\(right.log.lines)")
            for line in wrong.log.lines {
                #expect(!line.contains("s3") && !line.contains("wr0ng"), "\(line)")
            }
            for peer in [right, wrong, none, other] { await peer.store.withdraw() }
        }
    }
#endif
