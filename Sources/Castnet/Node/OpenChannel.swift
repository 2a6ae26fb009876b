import CastnetCore
import CastnetMulticast
import NIOCore
import Synchronization

/// A channel of this node that is open, with the gate where its senders wait for room.
///
/// The engine thread calls it as the channel's sink; everything it does there is hand over to the registry or
/// to the loop.
final class OpenChannel: ChannelSink, @unchecked Sendable {
    let name: String
    let gate: SpaceGate
    private let registry: Registry
    /// Whether who joined late wants what was sent on a topic before.
    private let replays: @Sendable (Topic) -> Bool
    private let mailbox: LoopMailbox<StreamEvent>
    // Set once, right after the channel has opened and before anybody else sees this object.
    private(set) var channel: PGMChannel!
    /// What was handled before the channel was known here.
    private let early = Mutex<[(FrameMark, isHandled: Bool)]?>([])

    static func open(_ settings: ChannelSettings, shell: NodeShell, interface: InterfaceChoice, seed: UInt64)
        async throws -> OpenChannel
    {
        let open = OpenChannel(settings.name, shell: shell)
        open.channel = try await PGMChannel.open(
            settings, limits: shell.configuration.limits, identity: shell.identity, interface: interface,
            listens: false, seed: seed, sink: open)
        let early = open.early.withLock { early in
            defer { early = nil }
            return early ?? []
        }
        for (mark, isHandled) in early { open.channel.ended(mark, isHandled: isHandled) }
        return open
    }

    private init(_ name: String, shell: NodeShell) {
        self.name = name
        registry = shell.registry
        replays = { [weak shell] topic in shell?.replays(topic) ?? false }
        gate = SpaceGate(loop: shell.loop)
        mailbox = LoopMailbox(loop: shell.loop) { [weak shell] events in
            shell?.happened(events, on: name)
        }
    }

    var hasRoom: Bool { channel.hasRoom }

    func send(_ casts: [OutboundCast]) { channel.send(casts) }

    /// How many of the payloads go into the outbox in one step: up to 1 MiB, at least one.
    func piece(of payloads: ArraySlice<ByteBuffer>) -> Int {
        var (count, bytes) = (0, 0)
        for payload in payloads {
            bytes += payload.readableBytes
            if count > 0, bytes > 1 << 20 { break }
            count += 1
            if count >= 4096 { break }
        }
        return count
    }

    /// A message of the group was handled here, or never will be. Any thread.
    func ended(_ mark: FrameMark, isHandled: Bool) {
        let isEarly = early.withLock { early in
            early?.append((mark, isHandled))
            return early != nil
        }
        if !isEarly { channel.ended(mark, isHandled: isHandled) }
    }

    // MARK: Called on the engine thread

    func delivered(_ records: [InboundRecord]) {
        // Neighbours of one topic that nobody waits for.
        var alike: [Delivery] = []
        for record in records {
            if let topic = alike.first?.record.topic, record.mark != nil || record.topic != topic {
                registry.spread(alike, of: topic)
                alike.removeAll(keepingCapacity: true)
            }
            if record.isReplayed, !replays(record.topic) {
                if let mark = record.mark { ended(mark, isHandled: false) }
                continue
            }
            var delivery = Delivery(record, kind: .fanout, carrier: .multicast)
            guard let mark = record.mark else {
                alike.append(delivery)
                continue
            }
            let slip = AnswerSlip(mark, on: self)
            delivery.answer = slip
            // Where nobody listens there is nothing to handle.
            if registry.listeners(to: record.topic).isEmpty { slip.give(Answer(.accepted)) }
            registry.spread(delivery, settle: .processed)
        }
        if let topic = alike.first?.record.topic { registry.spread(alike, of: topic) }
    }

    func happened(_ events: [StreamEvent]) { for event in events { mailbox.put(event) } }

    func spaceAvailable() { gate.open() }

    func backlogBytes() -> Int { registry.backlogBytes }
}
