#if Redis
    internal import CHiredis
    internal import CastnetCore
    internal import Glibc
    internal import NIOCore

    /// One connection over hiredis' blocking interface, every call bounded in time and memory.
    ///
    /// Used by one thread at a time, which blocks in it: for ``timeout`` to connect, write or read a piece,
    /// and for ``replyTimeout`` until an answer is whole; looking up a host's name takes as long as the
    /// system's resolver does. That thread blocks SIGPIPE, because hiredis writes without asking the kernel
    /// to leave it out. Memory: an answer of at most ``replySizeMax`` bytes, once in C and once in Swift.
    @safe struct RedisConnection: ~Copyable {
        static let timeout: Duration = .seconds(1)
        static let replyTimeout: Duration = .seconds(3)
        /// The largest record, and room for the names of one step through the keys.
        static let replySizeMax = StoredRecord.sizeMax + (64 << 10)
        /// No answer has a list of more: a step through the keys brings some 500 names.
        private static let elementsMax: Int32 = 65_536
        /// hiredis takes in as much with each call.
        private static let readSize = 16 << 10

        private let context: UnsafeMutablePointer<redisContext>
        /// What bounds the lists; nil in a connection that is about to be given up.
        private let bound: UnsafeMutablePointer<castnet_redis_bound>?
        /// Bytes of the answer that is not whole yet, at most.
        private var partSize = 0
        private let sizeMax: Int

        /// Connects; throws where nobody answers. `sizeMax`: the largest answer that is taken in.
        static func open(
            host: String, port: UInt16, sizeMax: Int = Self.replySizeMax
        ) throws(RedisError) -> RedisConnection {
            let limit = time(timeout)
            guard let context = unsafe redisConnectWithTimeout(host, Int32(port), limit) else {
                throw RedisError("no memory for a connection")
            }
            let connection = unsafe RedisConnection(context, sizeMax: sizeMax)
            guard unsafe context.pointee.err == 0, unsafe redisSetTimeout(context, limit) == REDIS_OK else {
                throw connection.fault
            }
            guard unsafe connection.bound != nil else { throw RedisError("no memory for a connection") }
            return connection
        }

        private init(_ context: UnsafeMutablePointer<redisContext>, sizeMax: Int) {
            unsafe self.context = unsafe context
            unsafe bound = unsafe castnet_redis_bind(context, Self.elementsMax)
            self.sizeMax = sizeMax
        }

        deinit {
            unsafe redisFree(context)
            unsafe free(bound)
        }

        /// For waiting until something arrives.
        var descriptor: Int32 { unsafe context.pointee.fd }

        private static func time(_ duration: Duration) -> timeval {
            let microseconds = duration.nanoseconds / 1000
            return timeval(
                tv_sec: Int(microseconds / 1_000_000), tv_usec: Int(microseconds % 1_000_000))
        }

        /// What hiredis says went wrong. It reports a timeout as the error of the call that waited.
        private var fault: RedisError {
            let text = unsafe withUnsafeBytes(of: context.pointee.errstr) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            let isTimeout = unsafe context.pointee.err == REDIS_ERR_IO && [EAGAIN, ETIMEDOUT].contains(errno)
            return RedisError(isTimeout ? "no answer in time" : text.isEmpty ? "it failed" : text)
        }

        // MARK: Commands

        /// Puts a command into the output buffer.
        func append(_ arguments: [ByteBuffer]) throws(RedisError) {
            var bytes: [CChar] = []
            for argument in arguments {
                bytes += argument.readableBytesView.lazy.map { CChar(bitPattern: $0) }
            }
            let lengths = arguments.map(\.readableBytes)
            let result = unsafe bytes.withUnsafeBufferPointer { all -> Int32 in
                guard let base = all.baseAddress else { return REDIS_ERR }
                var offset = 0
                var starts = unsafe lengths.map { length -> UnsafePointer<CChar>? in
                    defer { offset += length }
                    return unsafe base + offset
                }
                return unsafe redisAppendCommandArgv(context, Int32(lengths.count), &starts, lengths)
            }
            guard result == REDIS_OK else { throw fault }
        }

        /// Sends what is in the output buffer.
        func flush() throws(RedisError) {
            let end = clockNow() + Self.replyTimeout
            var isDone: Int32 = 0
            while isDone == 0 {
                guard unsafe redisBufferWrite(context, &isDone) == REDIS_OK else { throw fault }
                if clockNow() > end { throw RedisError("no answer in time") }
            }
        }

        /// Sends one command and waits for its answer.
        mutating func command(_ arguments: [ByteBuffer]) throws(RedisError) -> RedisReply {
            try append(arguments)
            try flush()
            return try reply(until: clockNow() + Self.replyTimeout)
        }

        /// Waits for the next answer.
        mutating func reply(until end: Instant) throws(RedisError) -> RedisReply {
            while true {
                if let reply = try nextReply() { return reply }
                guard clockNow() < end else { throw RedisError("no answer in time") }
                try readMore()
            }
        }

        /// Takes in what has arrived; waits for ``timeout`` where there is nothing.
        mutating func readMore() throws(RedisError) {
            partSize += Self.readSize
            guard partSize <= sizeMax + Self.readSize else {
                throw RedisError("an answer of more than \(sizeMax) bytes")
            }
            guard unsafe redisBufferRead(context) == REDIS_OK else { throw fault }
        }

        /// An answer that is whole; nil: more must be read.
        mutating func nextReply() throws(RedisError) -> RedisReply? {
            var raw: UnsafeMutableRawPointer?
            guard unsafe redisGetReplyFromReader(context, &raw) == REDIS_OK else { throw fault }
            guard let raw = unsafe raw else { return nil }
            defer { unsafe freeReplyObject(raw) }
            partSize = 0
            return unsafe Self.copy(raw.assumingMemoryBound(to: redisReply.self).pointee)
        }

        /// hiredis nests no deeper than it has room for, which bounds the recursion.
        private static func copy(_ reply: redisReply) -> RedisReply {
            switch unsafe reply.type {
            case REDIS_REPLY_STRING, REDIS_REPLY_STATUS:
                let bytes = unsafe UnsafeRawBufferPointer(start: reply.str, count: reply.len)
                return unsafe .bytes(ByteBuffer(bytes: bytes))
            case REDIS_REPLY_ERROR:
                let text = unsafe UnsafeRawBufferPointer(start: reply.str, count: min(reply.len, 200))
                return unsafe .error(String(decoding: text, as: UTF8.self))
            case REDIS_REPLY_INTEGER: return unsafe .integer(reply.integer)
            case REDIS_REPLY_ARRAY:
                var replies: [RedisReply] = []
                for index in 0..<(unsafe reply.elements) {
                    let element = unsafe reply.element?[index]
                    replies.append(unsafe element.map { unsafe copy($0.pointee) } ?? .null)
                }
                return .list(replies)
            default: return .null
            }
        }
    }

    /// The CLOCK_MONOTONIC time, which the node's other machines go by.
    func clockNow() -> Instant {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }
#endif
