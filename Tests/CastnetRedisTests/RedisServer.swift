#if Redis
    import CastnetCore
    import Foundation
    import NIOCore

    @testable import CastnetRedis

    /// A redis-server of a test's own on a free loopback port, without persistence; it ends with this object.
    ///
    /// Used by one test at a time, on whatever thread that runs, which makes it sendable.
    final class RedisServer: @unchecked Sendable {
        struct Failed: Error {}

        static let path = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"].first {
            FileManager.default.isExecutableFile(atPath: $0)
        }

        private(set) var port: UInt16 = 0
        private var process: Process?

        init() throws {
            for _ in 0..<20 {
                port = UInt16.random(in: 21_000...29_000)
                if (try? start()) != nil { return }
            }
            throw Failed()
        }

        deinit { kill() }

        /// Starts it, again and empty after ``kill()``, and waits until it answers.
        func start() throws {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: Self.path ?? "")
            process.arguments =
                ["--port", "\(port)", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            process.currentDirectoryURL = FileManager.default.temporaryDirectory
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            self.process = process
            let end = clockNow() + .seconds(20)
            while process.isRunning, clockNow() < end {
                let facts = (try? ask("INFO", "server"))?.text ?? ""
                // Another server may have the port.
                if facts.contains("process_id:\(process.processIdentifier)") { return }
                sched_yield()
            }
            kill()
            throw Failed()
        }

        /// As a crash would end it.
        func kill() {
            guard let process else { return }
            if process.isRunning { _ = Foundation.kill(process.processIdentifier, SIGKILL) }
            process.waitUntilExit()
            self.process = nil
        }

        /// Stops it without ending it, and lets it go on.
        func pause() { if let process { _ = Foundation.kill(process.processIdentifier, SIGSTOP) } }
        func resume() { if let process { _ = Foundation.kill(process.processIdentifier, SIGCONT) } }

        var address: RedisAddress {
            get throws { try RedisAddress("redis://127.0.0.1:\(port)") }
        }

        /// One command, as anybody may send it.
        @discardableResult
        func ask(_ words: String...) throws -> RedisReply { try ask(words.map { ByteBuffer(string: $0) }) }

        @discardableResult
        func ask(_ arguments: [ByteBuffer]) throws -> RedisReply {
            var connection = try RedisConnection.open(host: "127.0.0.1", port: port)
            return try connection.command(arguments)
        }
    }
#endif
