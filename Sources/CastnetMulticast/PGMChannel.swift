import COpenPGM
package import CastnetCore
import NIOCore
import Synchronization

/// What a channel hands its node; called on the engine thread, once per wake-up with everything.
package protocol ChannelSink: AnyObject, Sendable {
    func delivered(_ records: [InboundRecord])
    func happened(_ events: [StreamEvent])
    /// The outbox has room again after it was full.
    func spaceAvailable()
    /// The bytes that wait in this node's fullest member.
    func backlogBytes() -> Int
    /// The channel broke and is closed: nothing comes or goes any more.
    func failed(_ error: CastnetError)
}

extension ChannelSink {
    /// The engine has logged it already.
    package func failed(_ error: CastnetError) {}
}

/// One open channel of one node: the handle that any thread may hold and use.
///
/// Memory: the outbox (`outboxMax` payload bytes, or one larger message), libpgm's windows, and what the
/// channel machine holds. All work happens on the engine thread.
package final class PGMChannel: Sendable {
    /// What a channel is, for directory and status.
    package struct Facts: Sendable {
        package var name: String
        package var streamID: UInt64
        package var interface: InterfaceChoice
        package var mtu: Int
        package var window: Int
        /// Digest of group and port: equal where two nodes mean the same channel.
        package var digest: UInt64
        /// Why packets go to the kernel one by one and unjudged; nil: they go in batches, each judged.
        package var seamProblem: String?
    }

    /// Payload bytes that may wait to be cut into frames.
    package static let outboxMax = 4 << 20

    package let facts: Facts
    private let shared: ChannelMailbox
    #if Multicast
        private let engine: Engine
        private let key: UInt64
    #endif

    /// Opens a channel; the engine thread starts with the first one.
    package static func open(
        _ settings: ChannelSettings, limits: LimitSettings, identity: NodeIdentity,
        interface: InterfaceChoice, listens: Bool = true, seed: UInt64, sink: any ChannelSink
    ) async throws -> PGMChannel {
        #if Multicast
            try await open(
                settings, limits: limits, identity: identity, interface: interface, listens: listens,
                seed: seed, sink: sink, on: .shared)
        #else
            throw CastnetError(.multicastUnavailable, "this build is without the Multicast trait")
        #endif
    }

    /// True while the outbox takes another message. Any thread.
    package var hasRoom: Bool { shared.hasRoom(Self.outboxMax) }

    /// What the channel has counted, as of the engine's last turn.
    package var counters: CounterSet { shared.counters }

    #if Multicast
        /// The same on an engine of its own: a host of its own, for tests.
        package static func open(
            _ settings: ChannelSettings, limits: LimitSettings, identity: NodeIdentity,
            interface: InterfaceChoice, listens: Bool = true, seed: UInt64, sink: any ChannelSink,
            on engine: Engine
        ) async throws -> PGMChannel {
            var generator = SeededGenerator(seed: seed)
            let plan = ChannelPlan(settings, interfaceMTU: interface.mtu)
            let options = try PGMOptions(settings, interface: interface, plan: plan)
            var facts = Facts(
                name: settings.name, streamID: generator.next(), interface: interface, mtu: plan.mtu,
                window: plan.window, digest: digest(settings))
            let shared = ChannelMailbox()
            let opening = ChannelOpening(
                settings: settings, limits: limits, identity: identity, facts: facts, options: options,
                listens: listens, seed: generator.next(), sink: sink, mailbox: shared)
            let (key, seamProblem) = try await engine.open(opening)
            facts.seamProblem = seamProblem
            return PGMChannel(facts: facts, engine: engine, key: key, shared: shared)
        }

        private init(facts: Facts, engine: Engine, key: UInt64, shared: ChannelMailbox) {
            self.facts = facts
            self.engine = engine
            self.key = key
            self.shared = shared
        }

        /// Queues messages in order; the caller has asked for room. Any thread; one wake-up per batch.
        package func send(_ casts: [OutboundCast]) { if shared.put(casts) { engine.wake(key) } }

        /// The members that hear the channel now, the own node left out; `mtu`: the smallest of the nodes
        /// that have joined it, to which frames are cut.
        package func membersChanged(_ members: [NodeIdentity], mtu: Int? = nil) {
            let frameSizeMax = mtu.map { $0 - PGMOptions.headerLength }
            engine.post { [key] loop in
                loop.membersChanged(members, frameSizeMax: frameSizeMax, of: key)
            }
        }

        /// What the node subscribes has changed.
        package func subscriptionsChanged(epoch: UInt64) {
            engine.post { [key] loop in loop.subscriptionsChanged(epoch: epoch, of: key) }
        }

        /// Somebody listens from now on: what senders sent before is not owed; `replays`: it is wanted as far
        /// as they keep it. Once is enough.
        package func listens(replays: Bool) {
            engine.post { [key] loop in loop.listens(replays: replays, on: key) }
        }

        /// A delivered message was handled, or will never be. Any thread.
        package func ended(_ mark: FrameMark, isHandled: Bool) {
            engine.post { [key] loop in loop.ended(mark, isHandled: isHandled, on: key) }
        }

        /// A peer has said something about missing frames. Any thread.
        package func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {
            engine.post { [key] loop in loop.repairReceived(packet, from: peer, on: key) }
        }

        /// A request of this node for frames of `stream` did not get through.
        package func repairFailed(_ stream: UInt64) {
            engine.post { [key] loop in loop.repairFailed(stream, on: key) }
        }

        /// So many bytes of repaired frames for `member` have left, or never will.
        package func repairWritten(_ bytes: Int, to member: NodeIdentity) {
            engine.post { [key] loop in loop.repairWritten(bytes, to: member, on: key) }
        }

        /// Goes on on an interface that took the place of the one before. Throws `multicastUnavailable` where
        /// that does not work yet: the channel stays as it was.
        package func move(to interface: InterfaceChoice) async throws {
            try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
                engine.post { [key] loop in
                    done.resume(with: Result { try loop.move(key, to: interface) })
                }
            }
        }

        /// Sends what waits, serves repairs until every member has everything or `linger` is over, then
        /// closes. A second close waits for the first.
        package func close(linger: Duration) async {
            await withCheckedContinuation { continuation in
                engine.post { [key] loop in loop.close(key, linger: linger) { continuation.resume() } }
            }
        }
    #else
        private init(facts: Facts, shared: ChannelMailbox) {
            self.facts = facts
            self.shared = shared
        }

        package func send(_ casts: [OutboundCast]) {}
        package func membersChanged(_ members: [NodeIdentity], mtu: Int? = nil) {}
        package func subscriptionsChanged(epoch: UInt64) {}
        package func listens(replays: Bool) {}
        package func move(to interface: InterfaceChoice) async throws {}
        package func ended(_ mark: FrameMark, isHandled: Bool) {}
        package func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity) {}
        package func repairFailed(_ stream: UInt64) {}
        package func repairWritten(_ bytes: Int, to member: NodeIdentity) {}
        package func close(linger: Duration) async {}
    #endif

    /// FNV-1a over what both ends must agree on.
    private static func digest(_ settings: ChannelSettings) -> UInt64 {
        "\(settings.group)|\(settings.port)".utf8.reduce(0xCBF2_9CE4_8422_2325 as UInt64) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01B3
        }
    }
}

/// What passes between a channel's users and the engine thread.
final class ChannelMailbox: Sendable {
    private struct State {
        var casts: [OutboundCast] = []
        var bytes = 0
        /// Payload bytes the machine has not cut yet.
        var cuttingBytes = 0
        var wasFull = false
        /// The channel broke: what is sent goes nowhere.
        var isClosed = false
        var counters = CounterSet()
    }
    private let state = Mutex(State())

    func hasRoom(_ bytesMax: Int) -> Bool {
        state.withLock { state in
            let hasRoom = state.bytes + state.cuttingBytes < bytesMax
            if !hasRoom { state.wasFull = true }
            return hasRoom
        }
    }

    /// True when the engine thread must be woken.
    func put(_ casts: [OutboundCast]) -> Bool {
        let bytes = casts.reduce(0) { $0 + $1.payload.readableBytes }
        return state.withLock { state in
            guard !state.isClosed else { return false }
            let wasEmpty = state.casts.isEmpty
            if wasEmpty { state.casts = casts } else { state.casts += casts }
            state.bytes += bytes
            return wasEmpty
        }
    }

    var isEmpty: Bool { state.withLock { $0.casts.isEmpty } }

    func close() {
        state.withLock { state in
            state.isClosed = true
            state.casts = []
            state.bytes = 0
        }
    }

    func take() -> [OutboundCast] {
        state.withLock { state in
            guard !state.casts.isEmpty else { return [] }
            let casts = state.casts
            state.casts = []
            state.cuttingBytes += state.bytes
            state.bytes = 0
            return casts
        }
    }

    /// Says what the machine holds now; true when waiting senders should hear of room.
    func settle(cuttingBytes: Int) -> Bool {
        state.withLock { state in
            state.cuttingBytes = cuttingBytes
            guard state.wasFull, state.bytes + cuttingBytes < PGMChannel.outboxMax / 2 else {
                return false
            }
            state.wasFull = false
            return true
        }
    }

    func publish(_ counters: CounterSet) { state.withLock { $0.counters = counters } }

    var counters: CounterSet { state.withLock { $0.counters } }
}
