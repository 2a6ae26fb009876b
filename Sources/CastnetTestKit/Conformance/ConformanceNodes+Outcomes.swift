import Castnet
import NIOCore

/// Checks of how sends end: receipts, deadlines, refusals.
extension ConformanceNodes {
    func checkReceipts() async throws {
        if carrier.kinds.contains(.fanout) { try await checkFanoutReceipts() }
        if carrier.kinds.contains(.cast) { try await checkCastReceipts() }
    }

    private func checkFanoutReceipts() async throws {
        let members = [member(0), member(1), member(2)]
        let nodes = Set(members.map(\.node.identity))
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            for member in members { try await member.read("conformance.*", in: &group) }
            try await settle(hearing: [Self.topic], members: members.count)
            for settlement in [Settlement.received, .processed] {
                for number in 0..<20 {
                    let receipt = try await sender.fanout(
                        Self.topic, ByteBuffer(integer: number), receipt: settlement)
                    try expect(
                        Set(receipt.rows.map(\.node)) == nodes && receipt.rows.count == nodes.count,
                        "a receipt has the rows \(receipt.rows), the members are \(nodes)")
                    try expect(
                        receipt.rows.allSatisfy { $0.outcome == carrier.delivered },
                        "a \(settlement) receipt says \(receipt.rows)")
                    try expect(receipt.isComplete, "a receipt of delivered rows is not complete")
                }
            }
            for member in members {
                let messages = try await member.inbox.wait(for: 40, "with a receipt")
                try expect(messages.count == 40, "\(messages.count) messages came of 40")
            }
            let quiet = try await sender.fanout(Topic("nobody.hears"), ByteBuffer(), receipt: .received)
            try expect(quiet.rows.isEmpty && quiet.isComplete, "nobody hears it, yet \(quiet.rows)")
        }
        try await checkRefusedFanout()
    }

    /// A handler that refuses a fanout shows in the receipt, where the carrier brings its word back.
    private func checkRefusedFanout() async throws {
        guard carrier.delivered == .unicast else { return }
        // Not a topic of the subscriptions before, whose end may not have spread yet.
        let topic = try Topic("refused")
        try await member().node.serve(topic) { _ in .reject("never") }
        try await settle(hearing: [topic])
        let receipt = try await sender.fanout(topic, ByteBuffer(string: "no"), receipt: .processed)
        try expect(receipt.rows.map(\.outcome) == [.rejected], "a refused fanout says \(receipt.rows)")
        try expect(!receipt.isComplete, "a refused fanout is complete")
    }

    private func checkCastReceipts() async throws {
        let member = member()
        try await member.serve(Self.topic)
        try await member.node.serve(Self.otherTopic) { _ in .reject("never") }
        try await settle(serving: [Self.topic, Self.otherTopic])
        for settlement in [Settlement.received, .processed] {
            let receipt = try await sender.cast(
                Self.topic, ByteBuffer(string: "cast"), options: SendOptions(settle: settlement))
            try expect(receipt.member == member.node.identity, "a cast went to \(receipt.member)")
            try expect(receipt.carrier == carrier.carrier, "a cast went by \(receipt.carrier)")
            let ids = try await member.inbox.wait(for: settlement == .received ? 1 : 2, "casts").map(\.id)
            try expect(ids.contains(receipt.id), "no message \(receipt.id) came")
        }
        try await expectError(.rejected, "a refused cast") {
            try await sender.cast(
                Self.otherTopic, ByteBuffer(), options: SendOptions(settle: .processed))
        }
        try await expectError(.rejected, "a refused call") {
            try await sender.call(Self.otherTopic, ByteBuffer())
        }
    }

    func checkDeadline() async throws {
        let (release, holder) = AsyncStream.makeStream(of: Void.self)
        let started = ConformanceCount()
        try await withReleased(holder) {
            let deaf = ConformanceMember(node: member().node)
            try await deaf.node.serve(Self.topic) { _ in
                started.add(1)
                for await _ in release {}
                return .done
            }
            try await settle(hearing: [Self.topic], serving: [Self.topic])
            for kind in [MessageKind.call, .cast] where carrier.kinds.contains(kind) {
                for topic in [Self.topic, try Topic("nobody.serves")] {
                    try await expectExpired("a \(kind) to \(topic)") { options in
                        if kind == .call {
                            _ = try await sender.call(topic, ByteBuffer(string: "?"), options: options)
                        } else {
                            try await sender.cast(topic, ByteBuffer(string: "?"), options: options)
                        }
                    }
                }
            }
            if carrier.delivered == .unicast {
                let receipt = try await sender.fanout(
                    Self.topic, ByteBuffer(), receipt: .processed,
                    options: SendOptions(deadline: .milliseconds(150)))
                try expect(receipt.rows.map(\.outcome) == [.timedOut], "nobody answered: \(receipt.rows)")
            }
            try expect(started.value > 0, "no handler was started")
        }
    }

    private func withReleased(
        _ holder: AsyncStream<Void>.Continuation, _ body: () async throws -> Void
    ) async throws {
        defer { holder.finish() }
        try await body()
    }

    /// The send ends with `expired`, not before its deadline and soon after it.
    private func expectExpired(_ what: String, _ send: (SendOptions) async throws -> Void) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        let options = SendOptions(deadline: .milliseconds(150), settle: .processed)
        try await expectError(.expired, what) { try await send(options) }
        let took = clock.now - start
        // The clocks of the two sides tick in microseconds, hence the one millisecond.
        try expect(took >= .milliseconds(149), "\(what) ended after \(took), before its deadline of 150 ms")
        try expect(took < .seconds(2), "\(what) ended after \(took); its deadline was 150 ms")
    }

    func expectError<Result>(
        _ code: CastnetError.Code, _ what: String, _ body: () async throws -> Result
    ) async throws {
        do {
            _ = try await body()
        } catch let error as CastnetError {
            return try expect(error.code == code, "\(what) failed with \(error) instead of \(code)")
        }
        throw ConformanceFailure("\(what) succeeded; it had to fail with \(code)")
    }

    func checkTooLarge() async throws {
        let large = Self.pattern(ConformancePlace.messageMax + 1)
        let largest = Self.pattern(ConformancePlace.messageMax)
        try await withMember { member in
            var came = 0
            for kind in MessageKind.allCases where carrier.kinds.contains(kind) {
                try await expectError(.tooLarge, "a \(kind) over limits.message") {
                    try await send(kind, Self.topic, large)
                }
                try await send(kind, Self.topic, largest)
                came += 1
                let messages = try await member.inbox.wait(for: came, "the largest \(kind)")
                try expect(messages.last?.payload == largest, "the largest \(kind) came changed")
                try expect(messages.last?.sequence == UInt64(came), "a refused \(kind) took a number")
            }
            if carrier.kinds.contains(.fanout) {
                try await expectError(.tooLarge, "a batch with a message over limits.message") {
                    try await sender.fanout(Self.topic, contentsOf: [ByteBuffer(), large])
                }
            }
            try expect(member.inbox.count == came, "\(member.inbox.count) messages came of \(came)")
        }
    }
}
