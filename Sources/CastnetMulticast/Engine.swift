import COpenPGM
import CastnetCore
import Synchronization

/// What the engine thread needs to open a channel.
struct ChannelOpening: Sendable {
    var settings: ChannelSettings
    var limits: LimitSettings
    var identity: NodeIdentity
    var facts: PGMChannel.Facts
    var plan: ChannelPlan
    var seed: UInt64
    var sink: any ChannelSink
    var mailbox: ChannelMailbox
}

/// The one thread that serves every channel of every node in the process.
///
/// It lives from the first channel on for as long as the process: an idle one sleeps in epoll. Commands come
/// through a mailbox that is emptied as a whole; one eventfd wakes the thread.
final class Engine: Sendable {
    enum Command: Sendable {
        case open(UInt64, ChannelOpening, CheckedContinuation<(any Error)?, Never>)
        case members(UInt64, [NodeIdentity])
        case subscriptions(UInt64)
        case close(UInt64, Duration, CheckedContinuation<Void, Never>)
    }

    private static let shared = Mutex<Engine?>(nil)
    private let commands = Mutex<[Command]>([])
    private let nextKey = Atomic<UInt64>(1)
    let wakeDescriptor: Int32

    /// The engine, started if need be.
    static func running() throws -> Engine {
        try shared.withLock { shared in
            if let shared { return shared }
            let descriptor = castnet_eventfd_create()
            guard descriptor >= 0 else {
                throw CastnetError(.multicastUnavailable, "eventfd failed with errno \(-descriptor)")
            }
            let engine = Engine(wakeDescriptor: descriptor)
            try EngineThread.start(engine)
            shared = engine
            return engine
        }
    }

    private init(wakeDescriptor: Int32) { self.wakeDescriptor = wakeDescriptor }

    func wake() { castnet_eventfd_signal(wakeDescriptor) }

    func tell(_ command: Command) {
        commands.withLock { $0.append(command) }
        wake()
    }

    func takeCommands() -> [Command] {
        commands.withLock { commands in
            defer { commands = [] }
            return commands
        }
    }

    func open(_ opening: ChannelOpening) async throws -> UInt64 {
        let key = nextKey.add(1, ordering: .relaxed).oldValue
        let error = await withCheckedContinuation { tell(.open(key, opening, $0)) }
        if let error { throw error }
        return key
    }

    func close(_ key: UInt64, linger: Duration) async {
        await withCheckedContinuation { tell(.close(key, linger, $0)) }
    }
}
