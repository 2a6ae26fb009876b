#if Redis
    internal import CastnetCore
    internal import Glibc
    internal import Logging
    internal import NIOCore

    /// Drives a ``StoreMachine`` over two connections, on the thread that runs it: one exchange after the
    /// other, between them what was notified, and rest when nothing is due.
    struct RedisLoop: ~Copyable {
        private static let changesSizeMax = 64 << 10
        /// Nothing waits longer than this at a time.
        private static let restMax: Duration = .seconds(60)
        private static let scanCount = 500

        private let options: RedisOptions
        private let schema: RedisSchema
        private let mailbox: RedisMailbox
        private let wake: Int32
        private let sink: any RedisSink
        private let log: Logger
        private var machine: StoreMachine
        private var commands: RedisConnection?
        private var changes: RedisConnection?
        /// When the connection for notifications was asked whether it lives, until it has answered.
        private var askedAt: Instant?
        private var reason = ""

        init(
            _ options: RedisOptions, mailbox: RedisMailbox, wake: Int32, sink: any RedisSink, log: Logger
        ) {
            self.options = options
            self.mailbox = mailbox
            self.wake = wake
            self.sink = sink
            self.log = log
            schema = RedisSchema(prefix: options.prefix, cluster: options.cluster)
            var rules = StoreMachine.Rules()
            rules.timeToLive = options.timeToLive
            rules.membersMax = options.membersMax
            machine = StoreMachine(
                name: options.name, cluster: options.cluster, rules: rules, seed: options.seed,
                now: clockNow())
        }

        /// Returns when the own record has been taken back.
        mutating func run() {
            blockSignals()
            while true {
                let (record, isStopping) = mailbox.take()
                if let record { machine.publish(record, now: clockNow()) }
                if isStopping { machine.stop() }
                do throws(RedisError) {
                    try hear()
                    let step = machine.next(now: clockNow())
                    if step == .end { break }
                    try carryOut(step)
                } catch {
                    disconnect()
                    reason = error.description
                    machine.failed(now: clockNow())
                }
                tell()
            }
            disconnect()
            mailbox.end()
        }

        /// hiredis writes to connections that may be closed; and no signal of the process is for this thread.
        private func blockSignals() {
            var all = sigset_t()
            unsafe sigfillset(&all)
            unsafe pthread_sigmask(SIG_SETMASK, &all, nil)
        }

        private mutating func carryOut(_ step: StoreStep) throws(RedisError) {
            switch step {
            case .connect: try connect()
            case .put(let record): try put(record)
            case .scan(let cursor): try scan(from: cursor)
            case .fetch(let names): try fetch(names)
            case .remove(let identity):
                let command =
                    script(RedisSchema.remove, keys: [schema.key(of: identity.name)])
                    + [ByteBuffer(integer: identity.incarnation.value)]
                    + words(schema.changes, identity.name)
                _ = try commands?.command(command)
            case .rest(let instant): try rest(until: instant)
            case .end: break
            }
        }

        // MARK: Connections

        private mutating func connect() throws(RedisError) {
            let address = options.address
            var changes = try RedisConnection.open(
                host: address.host, port: address.port, sizeMax: Self.changesSizeMax)
            try authenticate(&changes)
            let answer = try changes.command(words("SUBSCRIBE", schema.changes))
            guard answer.list?.first?.text == "subscribe" else { throw refusal(answer, of: "SUBSCRIBE") }
            var commands = try RedisConnection.open(host: address.host, port: address.port)
            try authenticate(&commands)
            if address.database > 0 {
                let answer = try commands.command(words("SELECT", "\(address.database)"))
                guard answer.text == "OK" else { throw refusal(answer, of: "SELECT") }
            }
            self.changes = consume changes
            self.commands = consume commands
            askedAt = nil
            machine.connected(now: clockNow())
        }

        private func authenticate(_ connection: inout RedisConnection) throws(RedisError) {
            guard let password = options.address.password else { return }
            let answer = try connection.command(
                words("AUTH") + words(options.address.user.map { [$0, password] } ?? [password]))
            if answer.text == "OK" { return }
            // Some stores repeat what they were sent.
            guard case .error(let text) = answer else { throw RedisError("AUTH: not an answer") }
            throw RedisError("AUTH: \(text.prefix { $0 != " " && $0 != "\n" })")
        }

        private func refusal(_ answer: RedisReply, of command: String) -> RedisError {
            if case .error(let text) = answer { return RedisError("\(command): \(text)") }
            return RedisError("\(command): not an answer")
        }

        private mutating func disconnect() {
            commands = nil
            changes = nil
        }

        // MARK: Commands

        private func words(_ words: String...) -> [ByteBuffer] { self.words(words) }

        private func words(_ words: [String]) -> [ByteBuffer] { words.map { ByteBuffer(string: $0) } }

        private func script(_ text: String, keys: [String]) -> [ByteBuffer] {
            words(["EVAL", text, "\(keys.count)"] + keys)
        }

        private mutating func put(_ record: NodeRecord) throws(RedisError) {
            try askWhetherChangesLive()
            let milliseconds = max(1, options.timeToLive.nanoseconds / 1_000_000)
            let name = record.identity.name
            let command =
                script(RedisSchema.put, keys: [schema.key(of: name)]) + [StoredRecord.encode(record)]
                + words("\(milliseconds)", schema.changes, name)
            switch try commands?.command(command) {
            case .integer(1): machine.stored(.taken, now: clockNow())
            case .integer: machine.stored(.superseded, now: clockNow())
            case .error(let text): machine.stored(.refused(text), now: clockNow())
            default: throw RedisError("EVAL: not an answer")
            }
        }

        private mutating func scan(from cursor: String) throws(RedisError) {
            let command =
                script(RedisSchema.scan, keys: [])
                + words(cursor, schema.pattern, "\(Self.scanCount)", "\(schema.keyPrefix.utf8.count)")
            let answer = try commands?.command(command) ?? .null
            guard let parts = answer.list, parts.count == 2, let next = parts[0].text,
                let names = parts[1].list
            else { throw refusal(answer, of: "SCAN") }
            machine.scanned(names.compactMap(\.text), next: next, now: clockNow())
        }

        /// All are asked for at once; each answer is used before the next one is taken in, so that memory
        /// holds one of them.
        private mutating func fetch(_ names: [String]) throws(RedisError) {
            for name in names {
                // One byte more than allowed shows a value that is too long without reading it.
                let command = words("GETRANGE", schema.key(of: name), "0", "\(StoredRecord.sizeMax)")
                try commands?.append(command)
            }
            try commands?.flush()
            let end = clockNow() + RedisConnection.replyTimeout * 2
            for name in names {
                switch try commands?.reply(until: end) {
                case .bytes(let bytes):
                    machine.fetched(name, bytes.readableBytes == 0 ? .absent : .bytes(bytes), now: clockNow())
                case .error(let text) where text.hasPrefix("WRONGTYPE"):
                    machine.fetched(name, .foreign, now: clockNow())
                case let answer: throw refusal(answer ?? .null, of: "GETRANGE")
                }
            }
        }

        // MARK: Notifications

        /// A connection that only listens cannot tell silence from death, so it is asked now and then.
        private mutating func askWhetherChangesLive() throws(RedisError) {
            let now = clockNow()
            if let askedAt {
                guard now - askedAt < RedisConnection.replyTimeout else {
                    throw RedisError("notifications do not come any more")
                }
                return
            }
            let command = words("PING")
            try changes?.append(command)
            try changes?.flush()
            askedAt = now
        }

        /// Takes in the notifications that have arrived.
        private mutating func hear() throws(RedisError) {
            guard let descriptor = changes?.descriptor, isReadable([descriptor], within: .zero)[0] else {
                return
            }
            try changes?.readMore()
            while let message = try changes?.nextReply() {
                switch message.list?.first?.text {
                case "message": machine.notified(message.list?.last?.text ?? "")
                case "pong": askedAt = nil
                default: break
                }
            }
        }

        private mutating func rest(until instant: Instant) throws(RedisError) {
            let pause = max(.zero, min(Self.restMax, instant - clockNow()))
            let descriptors = [wake, changes?.descriptor ?? -1, commands?.descriptor ?? -1]
            let ready = isReadable(descriptors, within: pause)
            if ready[0] {
                var bytes: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0]
                _ = unsafe read(wake, &bytes, bytes.count)
            }
            // Nothing was asked, so this is the end of the connection.
            if ready[2] { throw RedisError("the connection was closed") }
        }

        /// Which descriptors can be read, or have ended, within the time; negative ones are left out.
        private func isReadable(_ descriptors: [Int32], within limit: Duration) -> [Bool] {
            var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            let milliseconds = Int32(clamping: (limit.nanoseconds + 999_999) / 1_000_000)
            guard unsafe poll(&entries, UInt(entries.count), milliseconds) > 0 else {
                return descriptors.map { _ in false }
            }
            return entries.map { $0.revents != 0 }
        }

        // MARK: What came of it

        private mutating func tell() {
            for event in machine.takeEvents() {
                switch event {
                case .found(let record): sink.found(record)
                case .gone(let name): sink.gone(name)
                case .count(let counter): sink.count(counter)
                case .down(let age, let known):
                    log.warning(
                        "Redis cannot be used; known nodes are kept",
                        metadata: [
                            "castnet.reason": "\(reason)", "castnet.nodes": "\(known)",
                            "castnet.age":
                                "\(age.map { "\($0.nanoseconds / 1_000_000) ms" } ?? "never read")",
                        ])
                case .back(let known):
                    log.notice("Redis can be used again", metadata: ["castnet.nodes": "\(known)"])
                case .unfit(let name, let why):
                    log.warning(
                        "Redis holds a value that is no record; such values are skipped",
                        metadata: ["castnet.peer": "\(name)", "castnet.reason": "\(why)"])
                case .superseded:
                    log.error("Redis holds a newer start of this node's name; this one is not registered")
                case .refused(let why):
                    log.warning(
                        "Redis does not take this node's record", metadata: ["castnet.reason": "\(why)"])
                }
            }
        }
    }
#endif
