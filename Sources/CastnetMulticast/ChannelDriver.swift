#if Multicast
    import CastnetCore
    import COpenPGM
    import NIOCore

    /// Drives one channel on the engine thread: moves bytes between sockets and the channel machine, decides
    /// nothing itself.
    final class ChannelDriver {
        struct Turn {
            var isBusy = false
            var isOver = false
            var deadline: Instant?
        }

        private let key: UInt64
        private let epoll: Int32
        private let sink: any ChannelSink
        private let mailbox: ChannelMailbox
        private var machine: ChannelMachine
        private var socket: PGMSocket?
        private let descriptors: castnet_pgm_descriptors
        private let reportSocket: Int32
        private var frame = ByteBufferAllocator().buffer(capacity: 9216)
        private var datagram = ByteBufferAllocator().buffer(capacity: 2048)
        private var reportBytes = [UInt8](
            repeating: 0, count: ChannelDriver.reportSlots * ChannelDriver.reportSlot)
        private var reportHeads = [castnet_datagram](
            repeating: castnet_datagram(), count: ChannelDriver.reportSlots)
        private var counts = CounterSet()
        /// Something arrived since the last turn.
        var isReadable = true
        private var waitsForWritable = false
        private var retryAt: Instant?
        /// Repairs may be asked for until then: the socket is served every millisecond.
        private var attentiveUntil: Instant
        private var sentAt: Instant?
        private var closing: (at: Instant, continuation: CheckedContinuation<Void, Never>)?

        private static let reportSlots = 32
        private static let reportSlot = 1500
        /// Frames sent or received before the other side gets a turn.
        private static let burst = 64

        init(_ opening: ChannelOpening, key: UInt64, epoll: Int32, now: Instant) throws {
            self.key = key
            self.epoll = epoll
            sink = opening.sink
            mailbox = opening.mailbox
            attentiveUntil = now
            let name = opening.settings.name
            let socket: PGMSocket
            do {
                socket = try PGMSocket(
                    opening.settings, interface: opening.facts.interface, plan: opening.plan)
            } catch {
                throw CastnetError(
                    .multicastUnavailable, "channel \(name) on \(opening.facts.interface.name): \(error)")
            }
            var port: UInt16 = 0
            reportSocket = unsafe castnet_udp_open(opening.facts.interface.address, 1 << 20, &port)
            guard reportSocket >= 0 else {
                throw CastnetError(
                    .multicastUnavailable, "channel \(name): no socket for reports, errno \(-reportSocket)")
            }
            descriptors = socket.descriptors
            machine = ChannelMachine(
                settings: opening.settings, limits: opening.limits, identity: opening.identity,
                streamID: opening.facts.streamID,
                reportAddress: DatagramAddress(address: opening.facts.interface.address, port: port),
                frameSizeMax: socket.payloadMax, receiveBufferBytes: socket.receiveBuffer,
                configurationDigest: opening.facts.digest, seed: opening.seed, now: now)
            self.socket = consume socket
            for descriptor in watched { _ = castnet_epoll_set(epoll, descriptor, key, true, false) }
        }

        private var watched: [Int32] {
            [descriptors.receive, descriptors.pending, descriptors.repair, reportSocket]
        }

        func membersChanged(_ members: [NodeIdentity], now: Instant) {
            machine.membersChanged(members, now: now)
        }

        func subscriptionsChanged() { machine.subscriptionsChanged() }

        func close(at deadline: Instant, _ continuation: CheckedContinuation<Void, Never>) {
            if let closing { closing.continuation.resume() }
            closing = (deadline, continuation)
        }

        // MARK: A turn

        func run(now: Instant) -> Turn {
            var turn = Turn()
            let casts = mailbox.take()
            if !casts.isEmpty { machine.submit(casts, now: now) }
            receiveReports(now: now)
            turn.isBusy = receiveFrames(now: now)
            machine.backlogChanged(bytes: sink.backlogBytes(), now: now)
            machine.timerFired(now: now)
            turn.isBusy = sendFrames(now: now) || turn.isBusy
            while let address = machine.nextReport(into: &datagram, now: now) { sendReport(to: address) }
            handOver()
            turn.isOver = closeIfSettled(now: now)
            turn.deadline = deadline(now: now)
            isReadable = false
            return turn
        }

        private func deadline(now: Instant) -> Instant? {
            var deadline = earliest(machine.nextDeadline(now: now), retryAt)
            if let closing { deadline = earliest(deadline, min(closing.at, now + .milliseconds(2))) }
            let remaining = socket?.timeRemaining ?? .seconds(1)
            // The socket tells nobody that a NAK has queued repairs: look every millisecond for a while.
            let isAttentive = now < attentiveUntil
            return earliest(deadline, now + (isAttentive ? min(remaining, .milliseconds(1)) : remaining))
        }

        private func handOver() {
            let records = machine.takeDeliveries()
            if !records.isEmpty { sink.delivered(records) }
            let events = machine.takeEvents()
            if !events.isEmpty { sink.happened(events) }
            var counters = machine.counters
            counters.merge(counts)
            if mailbox.settle(cuttingBytes: machine.queuedBytes, counters: counters) { sink.spaceAvailable() }
        }

        private func closeIfSettled(now: Instant) -> Bool {
            guard let closing, machine.isSettled || now >= closing.at else { return false }
            // Descriptors leave the epoll set before they are closed.
            for descriptor in watched { _ = castnet_epoll_remove(epoll, descriptor) }
            if waitsForWritable { _ = castnet_epoll_remove(epoll, descriptors.send) }
            socket = nil
            castnet_descriptor_close(reportSocket)
            closing.continuation.resume()
            return true
        }

        // MARK: Receiving

        /// Serves libpgm until it has nothing, at most a burst; true when there may be more.
        private func receiveFrames(now: Instant) -> Bool {
            let isSender = sentAt.map { now < $0 + .seconds(5) } ?? false
            if isReadable, isSender { attentiveUntil = now + .milliseconds(100) }
            // Each call sends at most one repair, so a sender under NAKs calls more often than it receives.
            var idleCalls = now < attentiveUntil ? 16 : 1
            for _ in 0..<Self.burst * 4 {
                switch socket?.receive() {
                case .frame(let frame, let repaired):
                    if repaired { counts.add(.streamRepairedPGM) }
                    machine.frameReceived(frame, now: now)
                case .reset: counts.add(.pgmInReset)
                case .idle:
                    idleCalls -= 1
                    if idleCalls <= 0 { return false }
                case .limited:
                    retryAt = now + .milliseconds(1)
                    return false
                case .failed, nil: return false
                }
            }
            return true
        }

        private func receiveReports(now: Instant) {
            let slots = Self.reportSlots
            while true {
                let count = unsafe reportBytes.withUnsafeMutableBufferPointer { bytes -> Int32 in
                    unsafe reportHeads.withUnsafeMutableBufferPointer { heads -> Int32 in
                        guard let bytes = bytes.baseAddress, let heads = heads.baseAddress else { return 0 }
                        return unsafe castnet_udp_receive(
                            reportSocket, bytes, Self.reportSlot, heads, Int32(slots))
                    }
                }
                guard count > 0 else { return }
                for index in 0..<Int(count) {
                    let head = reportHeads[index]
                    let start = index * Self.reportSlot
                    let bytes = reportBytes[start..<start + min(Int(head.length), Self.reportSlot)]
                    machine.reportReceived(
                        ByteBuffer(bytes: bytes),
                        from: DatagramAddress(address: head.address, port: head.port),
                        now: now)
                }
                if Int(count) < slots { return }
            }
        }

        // MARK: Sending

        /// Sends what may leave, at most a burst; true when there may be more.
        private func sendFrames(now: Instant) -> Bool {
            retryAt = nil
            if socket?.hasPending == true, !settlePending(now: now) { return false }
            for _ in 0..<Self.burst {
                guard machine.nextFrame(into: &frame, now: now) else { return false }
                sentAt = now
                switch socket?.send(frame) {
                case .sent: continue
                case .blocked, .limited: return settlePending(now: now)
                case .failed, nil:
                    // The frame has its number and is gone: members see a hole and say so.
                    counts.add(.kernelDropped)
                }
            }
            return true
        }

        /// Repeats the packet that has its number but has not left; true when it has.
        private func settlePending(now: Instant) -> Bool {
            let status = socket?.resend() ?? .failed
            watchWritable(status == .blocked)
            if status == .limited { retryAt = now + .milliseconds(1) }
            return status == .sent
        }

        /// The send descriptor is nearly always writable: it is watched only while a packet is pending.
        private func watchWritable(_ isWanted: Bool) {
            guard isWanted != waitsForWritable else { return }
            waitsForWritable = isWanted
            if isWanted {
                _ = castnet_epoll_set(epoll, descriptors.send, key, false, true)
            } else {
                _ = castnet_epoll_remove(epoll, descriptors.send)
            }
        }

        private func sendReport(to address: DatagramAddress) {
            unsafe datagram.withUnsafeReadableBytes { bytes in
                guard let base = bytes.baseAddress else { return }
                _ = unsafe castnet_udp_send(reportSocket, base, bytes.count, address.address, address.port)
            }
        }
    }
#else
    import CastnetCore

    /// Without the trait there is nothing to drive.
    final class ChannelDriver {
        struct Turn {
            var isBusy = false
            var isOver = true
            var deadline: Instant?
        }
        var isReadable = false
        func run(now: Instant) -> Turn { Turn() }
        func membersChanged(_ members: [NodeIdentity], now: Instant) {}
        func subscriptionsChanged() {}
        func close(at deadline: Instant, _ continuation: CheckedContinuation<Void, Never>) {
            continuation.resume()
        }
    }
#endif
