import COpenPGM
import CastnetCore
import Glibc

/// The engine thread's own state and its loop; nothing here is touched by another thread.
final class EngineThread {
    private let engine: Engine
    private let epoll: Int32
    private var channels: [UInt64: ChannelDriver] = [:]
    private var ready = [castnet_ready](repeating: castnet_ready(), count: 64)

    /// Descriptors of channels are tagged with the channel's key; the wake-up has tag 0.
    private static let wakeTag: UInt64 = 0

    private init(_ engine: Engine, epoll: Int32) {
        self.engine = engine
        self.epoll = epoll
    }

    static func start(_ engine: Engine) throws {
        let epoll = castnet_epoll_create()
        guard epoll >= 0, castnet_epoll_set(epoll, engine.wakeDescriptor, wakeTag, true, false) >= 0 else {
            throw CastnetError(.multicastUnavailable, "epoll failed with errno \(-epoll)")
        }
        // The box carries the thread's state across pthread_create; the thread takes it over whole.
        let box = unsafe Unmanaged.passRetained(EngineThread(engine, epoll: epoll))
        var thread = pthread_t()
        let code = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let state = unsafe Unmanaged<EngineThread>.fromOpaque(argument).takeRetainedValue()
                unsafe castnet_thread_name("castnet-pgm")
                state.run()
                return nil
            }, box.toOpaque())
        guard code == 0 else {
            unsafe box.release()
            throw CastnetError(.multicastUnavailable, "no thread for the multicast engine: errno \(code)")
        }
        pthread_detach(thread)
    }

    private func run() {
        while true {
            let now = Instant(nanoseconds: castnet_now())
            for command in engine.takeCommands() { carryOut(command, now: now) }
            var deadline: Instant?
            var isBusy = false
            for (key, channel) in channels {
                let outcome = channel.run(now: now)
                isBusy = isBusy || outcome.isBusy
                deadline = earliest(deadline, outcome.deadline)
                if outcome.isOver { channels[key] = nil }
            }
            sleep(isBusy ? 0 : deadline.map { max(0, $0.nanoseconds - castnet_now()) } ?? -1)
        }
    }

    private func sleep(_ nanoseconds: Int64) {
        let count = unsafe ready.withUnsafeMutableBufferPointer { buffer -> Int32 in
            guard let base = buffer.baseAddress else { return 0 }
            return unsafe castnet_epoll_wait(epoll, base, Int32(buffer.count), nanoseconds)
        }
        for event in ready.prefix(Int(max(0, count))) {
            if event.tag == Self.wakeTag {
                castnet_eventfd_drain(engine.wakeDescriptor)
            } else {
                channels[event.tag]?.isReadable = true
            }
        }
    }

    private func carryOut(_ command: Engine.Command, now: Instant) {
        switch command {
        case .open(let key, let opening, let continuation):
            #if Multicast
                do {
                    channels[key] = try ChannelDriver(opening, key: key, epoll: epoll, now: now)
                    continuation.resume(returning: nil)
                } catch {
                    continuation.resume(returning: error)
                }
            #else
                continuation.resume(returning: CastnetError(.multicastUnavailable, "built without Multicast"))
            #endif
        case .members(let key, let members): channels[key]?.membersChanged(members, now: now)
        case .subscriptions(let key): channels[key]?.subscriptionsChanged()
        case .close(let key, let linger, let continuation):
            if let channel = channels[key] {
                channel.close(at: now + linger, continuation)
            } else {
                continuation.resume()
            }
        }
    }
}
