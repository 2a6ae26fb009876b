import Castnet
import NIOCore

/// Checks of what arrives: order, sizes, headers.
extension ConformanceNodes {
    static let topic = Topic(unchecked: "conformance.first")
    static let otherTopic = Topic(unchecked: "conformance.second")

    /// Around what one frame on an Ethernet holds, around the chunk of a link, and large.
    static let sizes = [0, 1] + Array(1390...1460) + [65_535, 65_536, 65_537, 4 << 20]

    /// Bytes of which no two parts can be mistaken for each other: numbered blocks of varied bytes.
    static func pattern(_ size: Int) -> ByteBuffer {
        var block = ByteBuffer()
        var value = UInt64(size) &+ 1
        while block.readableBytes < 1000 {
            value = value &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            block.writeInteger(value)
        }
        var buffer = ByteBuffer()
        buffer.reserveCapacity(size + 1008)
        while buffer.readableBytes < size {
            buffer.writeInteger(UInt64(buffer.readableBytes))
            buffer.writeImmutableBuffer(block)
        }
        return buffer.getSlice(at: 0, length: size) ?? ByteBuffer()
    }

    /// Runs `body` with a member that hears and serves the topics.
    func withMember(_ body: (ConformanceMember) async throws -> Void) async throws {
        let topics = [Self.topic, Self.otherTopic]
        let member = member()
        try await withThrowingTaskGroup(of: Void.self) { group in
            if carrier.kinds == [.fanout] {
                try await member.read("conformance.*", in: &group)
            } else {
                for topic in topics { try await member.serve(topic) }
            }
            try await settle(hearing: topics, serving: carrier.kinds == [.fanout] ? [] : topics)
            defer { group.cancelAll() }
            try await body(member)
        }
    }

    /// Sends one message of any kind; what a call brings back must be what was sent.
    func send(
        _ kind: MessageKind, _ topic: Topic, _ payload: ByteBuffer, headers: Headers = Headers()
    ) async throws {
        let options = SendOptions(headers: headers)
        switch kind {
        case .call:
            let reply = try await sender.call(topic, payload, options: options)
            try expect(reply.payload == payload, "a call of \(payload.readableBytes) B brought another reply")
            try expect(reply.headers == headers, "a call brought back other headers: \(reply.headers)")
            try expect(reply.carrier == carrier.carrier, "a call went by \(reply.carrier)")
        case .cast:
            let receipt = try await sender.cast(topic, payload, options: options)
            try expect(receipt.carrier == carrier.carrier, "a cast went by \(receipt.carrier)")
        case .fanout: try await sender.fanout(topic, payload, options: options)
        }
    }

    func checkInOrder() async throws {
        let count = 300
        try await withMember { member in
            var all = 0
            for kind in MessageKind.allCases where carrier.kinds.contains(kind) {
                if kind == .fanout {
                    for number in 0..<count {
                        try await send(kind, Self.topic, ByteBuffer(integer: number))
                        try await send(kind, Self.otherTopic, ByteBuffer(integer: number))
                    }
                } else {
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for number in 0..<count {
                            for topic in [Self.topic, Self.otherTopic] {
                                group.addTask { try await send(kind, topic, ByteBuffer(integer: number)) }
                            }
                        }
                        try await group.waitForAll()
                    }
                }
                all += 2 * count
                let messages = try await member.inbox.wait(for: all, kind.rawValue).suffix(2 * count)
                for topic in [Self.topic, Self.otherTopic] {
                    try checkOnce(messages.filter { $0.topic == topic }, kind: kind, count: count)
                }
            }
            try expect(member.inbox.count == all, "\(member.inbox.count) messages came of \(all)")
        }
    }

    /// Every number came once; the sequence rises by one from message to message.
    func checkOnce(_ messages: [Message], kind: MessageKind, count: Int) throws {
        try expect(messages.count == count, "\(messages.count) \(kind) messages came of \(count)")
        let numbers = messages.compactMap { $0.payload.getInteger(at: $0.payload.readerIndex, as: Int.self) }
        try expect(numbers.sorted() == Array(0..<count), "not every \(kind) came exactly once: \(numbers)")
        try expect(kind != .fanout || numbers == Array(0..<count), "fanouts came out of order: \(numbers)")
        for (before, after) in zip(messages, messages.dropFirst()) {
            try expect(
                after.sequence == before.sequence + 1, "\(after.sequence) came after \(before.sequence)")
        }
        for message in messages {
            try expect(message.kind == kind, "a \(kind) arrived as \(message.kind)")
            try expect(message.carrier == carrier.carrier, "a \(kind) came by \(message.carrier)")
            try expect(message.from == sender.identity, "a \(kind) came from \(message.from)")
        }
    }

    func checkSizes() async throws {
        try await withMember { member in
            var all = 0
            for kind in MessageKind.allCases where carrier.kinds.contains(kind) {
                for size in Self.sizes { try await send(kind, Self.topic, Self.pattern(size)) }
                let messages = try await member.inbox.wait(for: all + Self.sizes.count, kind.rawValue)
                for (size, message) in zip(Self.sizes, messages[all...]) {
                    try expect(
                        message.payload == Self.pattern(size),
                        "a \(kind) of \(size) B arrived as \(message.payload.readableBytes) B of other bytes")
                }
                all += Self.sizes.count
            }
        }
    }

    func checkHeaders() async throws {
        let value = String(repeating: "0123456789abcdef", count: 212)
        let large: Headers = ["first": value, "second": value, "third": value]
        let many = (0..<64).reduce(into: Headers()) { $0["name-\($1)"] = "\($1)" }
        let traced: Headers = [
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-01", "größe": "ü", "e": "",
        ]
        let cases = [Headers(), traced, many, large]
        try await withMember { member in
            var sent: [Headers] = []
            for kind in MessageKind.allCases where carrier.kinds.contains(kind) {
                for size in [0, 1, 1400, 65_537] {
                    for headers in cases {
                        try await send(kind, Self.topic, Self.pattern(size), headers: headers)
                        sent.append(headers)
                    }
                }
            }
            let messages = try await member.inbox.wait(for: sent.count, "headers")
            for (headers, message) in zip(sent, messages) {
                try expect(
                    message.headers == headers,
                    "a \(message.kind) of \(message.payload.readableBytes) B: headers differ")
            }
        }
    }
}
