import Castnet
import NIOCore

/// Checks of several members, of members that leave, and of slow ones.
extension ConformanceNodes {
    func checkSeveralMembers() async throws {
        let members = [member(0), member(1), member(2)]
        let count = 200
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            for member in members { try await member.read("conformance.*", in: &group) }
            try await settle(hearing: [Self.topic], members: members.count)
            for number in 0..<count / 2 {
                try await sender.fanout(Self.topic, ByteBuffer(integer: number))
            }
            try await sender.fanout(
                Self.topic, contentsOf: (count / 2..<count).map { ByteBuffer(integer: $0) })
            for (place, member) in members.enumerated() {
                let messages = try await member.inbox.wait(for: count, "member \(place)")
                try checkOnce(messages, kind: .fanout, count: count)
            }
            // A second message to everybody, large, behind all the small ones.
            try await sender.fanout(Self.topic, Self.pattern(100_000))
            for (place, member) in members.enumerated() {
                let messages = try await member.inbox.wait(for: count + 1, "member \(place)")
                try expect(messages.last?.payload == Self.pattern(100_000), "member \(place): other bytes")
                try expect(messages.count == count + 1, "member \(place) got \(messages.count) messages")
            }
        }
    }

    func checkCancelledSubscription() async throws {
        let node = member().node
        let pattern = try TopicPattern("conformance.*")
        let ended = try await node.subscribe(pattern)
        let kept = try await node.subscribe(pattern)
        try await settle(hearing: [Self.topic])
        try await sender.fanout(Self.topic, ByteBuffer(integer: 0))
        var endedMessages = ended.makeAsyncIterator()
        var keptMessages = kept.makeAsyncIterator()
        let first = [await endedMessages.next(), await keptMessages.next()]
        try expect(first.allSatisfy { $0?.sequence == 1 }, "two subscriptions got \(first)")
        ended.cancel()
        for number in 1..<20 { try await sender.fanout(Self.topic, ByteBuffer(integer: number)) }
        for number in 1..<20 {
            let message = await keptMessages.next()
            try expect(
                message?.payload == ByteBuffer(integer: number),
                "the other subscription got \(message as Any)")
        }
        let more = await endedMessages.next()
        try expect(more == nil, "a cancelled subscription got \(more as Any)")
        kept.cancel()
        try await waitUntil("the news that nobody hears the topic") {
            try await sender.memberCount(hearing: Self.topic) == 0
        }
    }

    /// The reader waits until the sender is held back or done, then reads slowly; everything must come.
    func checkSlowReader() async throws {
        let node = member().node
        let (count, size) = (3000, 4096)
        let subscription = try await node.subscribe(try TopicPattern("conformance.*"))
        try await settle(hearing: [Self.topic])
        let sent = ConformanceCount()
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            group.addTask { [sender, sent] in
                for number in 0..<count {
                    var payload = ByteBuffer(integer: number)
                    payload.writeRepeatingByte(UInt8(number & 255), count: size - 8)
                    try await sender.fanout(Self.topic, payload)
                    sent.add(1)
                }
            }
            try await waitUntilStill { sent.value }
            if carrier.isWithinOneNode {
                let ahead = sent.value
                try expect(ahead < 64, "\(ahead) messages of \(size) B wait in 64 KiB")
            }
            var messages = subscription.makeAsyncIterator()
            for number in 0..<count {
                if number < 50 { try await ContinuousClock().sleep(for: .milliseconds(1)) }
                guard let message = await messages.next() else {
                    throw ConformanceFailure("the subscription ended after \(number) messages")
                }
                let came = message.payload.getInteger(at: message.payload.readerIndex, as: Int.self)
                try expect(
                    came == number && message.sequence == UInt64(number + 1),
                    "message \(message.sequence) with \(came as Any) came as number \(number)")
                try expect(
                    message.payload.readableBytes == size, "\(message.payload.readableBytes) B of \(size)")
            }
            try await group.next()
        }
    }

    /// Waits until a count has not risen for 100 ms: its task is held back, or done.
    private func waitUntilStill(_ count: () -> Int) async throws {
        var last = (count: count(), since: ContinuousClock().now)
        try await waitUntil("the sender to be held back") {
            let now = ContinuousClock().now
            if count() != last.count { last = (count(), now) }
            return now - last.since > .milliseconds(100)
        }
    }
}
