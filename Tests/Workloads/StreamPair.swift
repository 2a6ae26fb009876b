internal import Castnet
internal import CastnetCore
internal import CastnetTestKit
internal import NIOCore

/// Sender and member of a channel on one thread; frames and reports are handed from one to the other.
struct StreamPair: ~Copyable {
    private var sender: ChannelMachine
    private var member: ChannelMachine
    private var now = Instant(nanoseconds: 1_000_000_000)
    private var frame = ByteBuffer()
    private var report = ByteBuffer()
    private var arrived = 0
    private static let addresses = (
        DatagramAddress(address: 0x0A00_0001, port: 9000), DatagramAddress(address: 0x0A00_0002, port: 9000)
    )

    init() {
        var settings = ChannelSettings(name: "work", group: "239.192.7.10", port: 7500)
        settings.rate = 1_000_000_000
        let names = ["sender", "member"].map { NodeIdentity(name: $0, incarnation: Incarnation(1)) }
        let start = now
        func machine(_ index: Int) -> ChannelMachine {
            ChannelMachine(
                settings: settings, limits: LimitSettings(), identity: names[index],
                streamID: UInt64(index) + 1,
                reportAddress: index == 0 ? Self.addresses.0 : Self.addresses.1, frameSizeMax: 1448,
                receiveBufferBytes: 8 << 20, configurationDigest: 7, seed: 7, now: start)
        }
        sender = machine(0)
        member = machine(1)
        member.listens(replays: false, now: now)
        sender.membersChanged(names, now: now)
    }

    /// Sends so many messages; returns how many arrived.
    consuming func send(_ count: Int, _ workload: Workload) throws -> Int {
        let topic = try Topic("work")
        let payload = ByteBuffer(repeating: 7, count: workload.size)
        var sent = 0
        while sent < count {
            let batch = min(workload.batch, count - sent)
            let payloads = Array(repeating: payload, count: batch)
            sender.submit(
                OutboundCast.packing(
                    payloads[...], topic: topic, first: UInt64(sent + 1), sentAtMicroseconds: 0), now: now)
            sent += batch
            // A second without progress is the end.
            for _ in 0..<1000 where arrived < sent { turn() }
            guard arrived == sent else { break }
        }
        return arrived
    }

    /// A millisecond: all frames that may leave, then all reports.
    private mutating func turn() {
        now = now + .milliseconds(1)
        sender.timerFired(now: now)
        member.timerFired(now: now)
        frame.clear()
        while sender.nextFrame(into: &frame, now: now) {
            member.frameReceived(frame, now: now)
            frame.clear()
        }
        for record in member.takeDeliveries() { arrived += record.count }
        report.clear()
        while member.nextReport(into: &report, now: now) != nil {
            sender.reportReceived(report, from: Self.addresses.1, now: now)
            report.clear()
        }
        _ = (sender.takeEvents(), member.takeEvents())
    }
}
