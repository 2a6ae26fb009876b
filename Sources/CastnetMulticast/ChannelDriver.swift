#if Multicast
    internal import CastnetCore
    internal import COpenPGM
    internal import NIOCore

    /// One channel on the engine thread: its PGM socket, its report socket and its machine, and nothing that
    /// decides anything about the protocol. Whoever opens it calls ``finish()`` in the end.
    struct ChannelDriver: ~Copyable {
        /// Why the channel must be served before its deadline.
        struct Due: OptionSet {
            let rawValue: UInt8
            static let receive = Due(rawValue: 1)
            static let reports = Due(rawValue: 2)
            static let writable = Due(rawValue: 4)
            static let outbox = Due(rawValue: 8)
            static let more = Due(rawValue: 16)
        }

        /// Buffers that all channels of a thread share.
        struct Scratch {
            static let slots = 32
            static let slotLength = 2048
            var frame = ByteBuffer()
            var datagrams = [UInt8](repeating: 0, count: slots * slotLength)
            var sources = [castnet_datagram](repeating: castnet_datagram(), count: slots)
        }

        /// Packets taken in one turn, so that no channel starves another.
        private static let receiveTurn = 512
        private static let reportTurn = 64
        /// Receive calls a turn while somebody may ask for repairs: each sends at most one.
        private static let repairBurst = 32
        /// How long after something arrived, and how often, a sender looks for repairs to send: libpgm does
        /// not signal that it has queued some.
        private static let repairWatch = Duration.milliseconds(100)
        private static let repairTick = Duration.milliseconds(1)
        /// How long after its last data frame a sender may be asked for it.
        private static let repairMemory = Duration.seconds(10)
        /// A closing sender stays at least this long after its last frame: three rounds of head, back-off and
        /// repeated NAK.
        private static let quietBeforeClose = Duration.milliseconds(250)
        private static let failuresMax = 100
        /// Between two looks at all counters.
        private static let countingPause = Duration.milliseconds(5)

        /// Why libpgm's packets go to the kernel one by one and unjudged; nil: they go through the seam.
        private(set) var seamProblem: String?
        /// Why the channel broke; nil: it did not.
        private(set) var failure: CastnetError?
        var due: Due = []
        private(set) var deadline: Instant?
        private(set) var isFinished = false

        private let key: UInt64
        private let epoll: Int32
        private let sink: any ChannelSink
        private let mailbox: ChannelMailbox
        /// Judges every packet for the seam.
        private var gate: SeamGate
        private let name: String
        private let faults: FaultSettings?
        private var options: PGMOptions
        private var machine: ChannelMachine
        private var socket: PGMSocket?
        private var descriptors: PGMSocket.Descriptors
        private var reportDescriptor: Int32
        private var drops: KernelDrops

        private var own = CounterSet()
        private var pgmDeadline: Instant
        private var machineDeadline: Instant?
        private var timerAt: Instant
        /// A blocked packet is tried again then; nil: nothing is blocked, or the descriptor tells.
        private var retryAt: Instant?
        private var waitsForWritable = false
        private var readableAt: Instant?
        private var lastFrameAt: Instant?
        private var countedAt: Instant
        private var rest: ReceiveRest
        private var isCounted = true
        private var backlog = 0
        private var failuresInARow = 0
        private var closing: (until: Instant, done: [@Sendable () -> Void])?

        /// Opens both sockets and registers them.
        static func open(
            key: UInt64, opening: ChannelOpening, epoll: Int32, now: Instant
        ) throws -> ChannelDriver {
            let gate = SeamGate(SeamGate.Settings(opening.options, faults: opening.settings.faults), now: now)
            let opened = try open(opening.options, gate, of: opening.settings.name)
            let report = try openReports(opening.options.interface, of: opening.settings.name)
            var driver = ChannelDriver(
                key: key, opening: opening, epoll: epoll, gate: gate, socket: opened, report: report, now: now
            )
            do { try driver.register() } catch {
                driver.unregister()
                throw error
            }
            return driver
        }

        private static func open(
            _ options: PGMOptions, _ gate: SeamGate, of name: String
        ) throws -> PGMSocket {
            do { return try PGMSocket(options, gate: gate) } catch {
                throw CastnetError(.multicastUnavailable, "channel \(name): \(error)", underlying: error)
            }
        }

        private static func openReports(
            _ interface: InterfaceChoice, of name: String
        ) throws -> (descriptor: Int32, address: DatagramAddress) {
            var port: UInt16 = 0
            let report = unsafe castnet_udp_open(interface.address, 1 << 20, &port)
            guard report >= 0 else {
                throw CastnetError(
                    .multicastUnavailable,
                    "channel \(name): no socket for reports on \(interface.name): \(errorText(-report))")
            }
            return (report, DatagramAddress(address: interface.address, port: port))
        }

        /// Goes on with other sockets, on an interface that took the place of the one before: the streams
        /// and their numbers stay. Where no sockets can be had nothing has changed; it may be tried again.
        mutating func move(to interface: InterfaceChoice, now: Instant) throws {
            var moved = options
            moved.interface = interface
            let gate = SeamGate(SeamGate.Settings(moved, faults: faults), now: now)
            let opened = try Self.open(moved, gate, of: name)
            let report = try Self.openReports(interface, of: name)
            retireCounters()
            unregister()
            options = moved
            self.gate = gate
            seamProblem = opened.seamProblem
            descriptors = opened.descriptors
            socket = consume opened
            reportDescriptor = report.descriptor
            drops = KernelDrops(
                descriptor: descriptors.receive, hearsOwn: moved.loop || interface.isLoopback, now: now)
            (retryAt, waitsForWritable, failuresInARow, pgmDeadline) = (nil, false, 0, now)
            machine.moved(reportAddress: report.address, now: now)
            try register()
            due = [.receive, .outbox]
        }

        private init(
            key: UInt64, opening: ChannelOpening, epoll: Int32, gate: SeamGate, socket: consuming PGMSocket,
            report: (descriptor: Int32, address: DatagramAddress), now: Instant
        ) {
            self.key = key
            self.epoll = epoll
            self.gate = gate
            name = opening.settings.name
            faults = opening.settings.faults
            options = opening.options
            sink = opening.sink
            mailbox = opening.mailbox
            descriptors = socket.descriptors
            seamProblem = socket.seamProblem
            reportDescriptor = report.descriptor
            machine = ChannelMachine(
                settings: opening.settings, limits: opening.limits, identity: opening.identity,
                streamID: opening.facts.streamID, reportAddress: report.address,
                frameSizeMax: socket.payloadMax, receiveBufferBytes: socket.receiveBufferBytes,
                configurationDigest: opening.facts.digest, seed: opening.seed, now: now)
            if opening.listens { machine.listens(replays: false, now: now) }
            drops = KernelDrops(
                descriptor: descriptors.receive,
                hearsOwn: opening.options.loop || opening.options.interface.isLoopback, now: now)
            pgmDeadline = now
            timerAt = now
            deadline = now
            countedAt = now
            rest = ReceiveRest(now: now)
            self.socket = consume socket
        }

        // MARK: Descriptors

        private func tag(_ role: Due) -> UInt64 { key << 3 | UInt64(role.rawValue) }

        private mutating func register() throws {
            let waits: [(Int32, Due)] = [
                (descriptors.receive, .receive), (descriptors.pending, .receive),
                (descriptors.repair, .receive),
                (reportDescriptor, .reports),
                // NAKs come to where the data comes from.
                (descriptors.send, .writable),
            ]
            for (descriptor, role) in waits {
                let result = castnet_epoll_set(epoll, descriptor, tag(role), true, false)
                guard result == 0 else {
                    throw CastnetError(.multicastUnavailable, "epoll: \(errorText(-result))")
                }
            }
        }

        private var isRegistered: Bool { socket != nil }

        /// The descriptors leave the epoll set before libpgm closes them.
        private mutating func unregister() {
            guard isRegistered else { return }
            for descriptor in [
                descriptors.receive, descriptors.pending, descriptors.repair, descriptors.send,
                reportDescriptor,
            ] {
                _ = castnet_epoll_remove(epoll, descriptor)
            }
            castnet_descriptor_close(reportDescriptor)
            socket.take()?.close(flush: true)
        }

        mutating func noteReady(role: UInt64, now: Instant) {
            let role = Due(rawValue: UInt8(truncatingIfNeeded: role))
            due.insert(role)
            if role == .writable {
                socket?.noteSendReadable()
                due.insert(.receive)
            }
            if role == .receive || role == .writable { readableAt = now }
        }

        /// Packets are left alone until then: more will have come. Nil: no rest.
        var restsUntil: Instant? { rest.until }

        // MARK: A turn

        func isDue(_ now: Instant) -> Bool { !due.isEmpty || deadline.map { $0 <= now } ?? false }

        /// Takes what has come, sends what may leave, hands over what was made of it.
        mutating func service(_ now: Instant, _ scratch: inout Scratch) {
            let due = due
            self.due = []
            gate.now = now
            do {
                releaseHeld(now)
                try receive(due, now)
                if due.contains(.reports) { receiveReports(now, &scratch) }
                submit(now)
                passTime(now)
                machine.serveRepairs(now: now)
                try send(now, &scratch.frame)
                try flush(now)
                sendReports(now, &scratch.frame)
            } catch {
                fail(error)
            }
            drops.refresh(sent: messagesSent(), now: now)
            handOver(now)
            plan(now)
        }

        /// True while members may ask for frames sent lately.
        private func watchesForRepairs(_ now: Instant) -> Bool {
            guard let readableAt, let lastFrameAt else { return false }
            return now < readableAt + Self.repairWatch && now < lastFrameAt + Self.repairMemory
        }

        private mutating func receive(_ due: Due, _ now: Instant) throws(PGMError) {
            let watches = watchesForRepairs(now)
            guard due.contains(.receive) || due.contains(.more) || watches || pgmDeadline <= now else {
                return
            }
            var idleCalls = watches ? Self.repairBurst : 1
            var packets = 0
            while packets < Self.receiveTurn {
                switch try receiveOne() {
                case .packet(let packet):
                    packets += 1
                    if packet.isRepaired { own.add(.streamRepairedPGM) }
                    unsafe machine.frameReceived(
                        RawSpan(_unsafeBytes: packet.payload), isRepaired: packet.isRepaired, now: now)
                case .reset:
                    packets += 1
                    own.add(.pgmInReset)
                case .empty: packets += 1
                case .limited: idleCalls = 0
                case .idle, nil: idleCalls -= 1
                }
                if idleCalls <= 0 { break }
            }
            rest.took(packets, now: now)
            if packets == Self.receiveTurn || socket?.holdsPackets == true { self.due.insert(.more) }
        }

        /// One call of receive. A failure is not the end of the channel unless it repeats: an interface that
        /// goes down and comes back gives one.
        private mutating func receiveOne() throws(PGMError) -> PGMSocket.Received? {
            do throws(PGMError) {
                let received = try socket?.receive()
                failuresInARow = 0
                return received
            } catch {
                failuresInARow += 1
                if failuresInARow >= Self.failuresMax { throw error }
                return nil
            }
        }

        private mutating func receiveReports(_ now: Instant, _ scratch: inout Scratch) {
            let count = unsafe scratch.datagrams.withUnsafeMutableBufferPointer { bytes in
                unsafe scratch.sources.withUnsafeMutableBufferPointer { sources in
                    guard let bytes = bytes.baseAddress, let sources = sources.baseAddress else {
                        return Int32(0)
                    }
                    return unsafe castnet_udp_receive(
                        reportDescriptor, bytes, Scratch.slotLength, sources, Int32(Scratch.slots))
                }
            }
            guard count > 0 else { return }
            for index in 0..<Int(count) {
                let source = scratch.sources[index]
                let start = index * Scratch.slotLength
                let length = source.truncated ? 0 : min(Int(source.length), Scratch.slotLength)
                machine.reportReceived(
                    ByteBuffer(bytes: scratch.datagrams[start..<start + length]),
                    from: DatagramAddress(address: source.address, port: source.port), now: now)
            }
            if Int(count) == Scratch.slots { due.insert(.reports) }
        }

        private mutating func submit(_ now: Instant) {
            let casts = mailbox.take()
            if !casts.isEmpty { machine.submit(casts, now: now) }
        }

        private mutating func passTime(_ now: Instant) {
            let waiting = sink.backlogBytes()
            if waiting != backlog {
                backlog = waiting
                machine.backlogChanged(bytes: waiting, now: now)
            }
            if now >= timerAt || machineDeadline.map({ $0 <= now }) ?? false {
                timerAt = now + .milliseconds(50)
                machine.timerFired(now: now)
            }
        }

        /// Frames sent in one turn: as many full ones as two segmented sends take, so that none leaves half
        /// empty, and no channel starves another.
        private var sendTurn: Int { max(2, 2 * (Int(CASTNET_SEGMENTED_BYTES_MAX) / (options.mtu - 28))) }

        private mutating func send(_ now: Instant, _ frame: inout ByteBuffer) throws(PGMError) {
            guard try resend(now) else { return }
            for _ in 0..<sendTurn {
                frame.clear()
                guard machine.nextFrame(into: &frame, now: now) else { return }
                lastFrameAt = now
                guard let sent = try socket?.send(frame), note(sent, now) else { return }
            }
            due.insert(.more)
        }

        /// Sends a blocked packet again; true when nothing is blocked.
        private mutating func resend(_ now: Instant) throws(PGMError) -> Bool {
            guard socket?.hasPending == true else { return true }
            guard let sent = try socket?.resend() else { return false }
            return note(sent, now)
        }

        /// Arranges for a blocked packet to be tried again; true when the packet has left.
        private mutating func note(_ sent: PGMSocket.Sent, _ now: Instant) -> Bool {
            retryAt = sent == .limited ? now + .milliseconds(1) : nil
            let mustWait = sent == .wouldBlock
            if mustWait != waitsForWritable {
                waitsForWritable = mustWait
                _ = castnet_epoll_set(epoll, descriptors.send, tag(.writable), true, mustWait)
            }
            return sent == .done
        }

        /// What this turn made leaves before the next sleep.
        private mutating func flush(_ now: Instant) throws(PGMError) {
            guard let sent = try socket?.flush(), socket?.hasPending != true else { return }
            _ = note(sent, now)
        }

        private mutating func sendReports(_ now: Instant, _ datagram: inout ByteBuffer) {
            for _ in 0..<Self.reportTurn {
                datagram.clear()
                guard let address = machine.nextReport(into: &datagram, now: now) else { return }
                // A report that does not leave is made up for by the next one.
                unsafe datagram.withUnsafeReadableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    _ = unsafe castnet_udp_send(
                        reportDescriptor, base, bytes.count, address.address, address.port)
                }
            }
            due.insert(.more)
        }

        private mutating func handOver(_ now: Instant) {
            let records = machine.takeDeliveries()
            if !records.isEmpty { sink.delivered(records) }
            let events = machine.takeEvents()
            if !events.isEmpty { sink.happened(events) }
            let hasSpace = mailbox.settle(cuttingBytes: machine.queuedBytes)
            if now >= countedAt + Self.countingPause {
                countedAt = now
                isCounted = true
                mailbox.publish(collectCounters())
            } else {
                isCounted = false
            }
            if hasSpace { sink.spaceAvailable() }
        }

        /// When the next turn is due by itself.
        private mutating func plan(_ now: Instant) {
            if let remaining = socket?.timeRemaining { pgmDeadline = now + remaining }
            machineDeadline = machine.nextDeadline(now: now)
            // A deadline in the past would spin: whatever the machine wants, it gets it within 50 µs.
            var next = earliest(pgmDeadline, machineDeadline.map { max($0, now + .microseconds(50)) })
            if watchesForRepairs(now) { next = earliest(next, now + Self.repairTick) }
            next = earliest(next, earliest(retryAt, gate.heldUntil))
            if !isCounted { next = earliest(next, countedAt + Self.countingPause) }
            if let closing {
                next = earliest(next, closing.until)
                if isSettled {
                    let quietAt = lastFrameAt.map { $0 + Self.quietBeforeClose } ?? now
                    next = earliest(next, quietAt)
                    if now >= quietAt { isFinished = true }
                }
                if now >= closing.until { isFinished = true }
            }
            deadline = due.contains(.more) ? now : next
        }

        private mutating func fail(_ error: any Error) {
            guard !isFinished else { return }
            isFinished = true
            mailbox.close()
            let failure = CastnetError(
                .multicastUnavailable, "channel \(name) broke and is closed: \(error)", underlying: error)
            self.failure = failure
            sink.failed(failure)
        }

        // MARK: Commands

        mutating func membersChanged(_ members: [NodeIdentity], frameSizeMax: Int?, now: Instant) {
            machine.membersChanged(members, frameSizeMax: frameSizeMax, now: now)
            due.insert(.outbox)
        }

        mutating func subscriptionsChanged(epoch: UInt64) { machine.subscriptionsChanged(epoch: epoch) }

        mutating func listens(replays: Bool, now: Instant) {
            machine.listens(replays: replays, now: now)
            due.insert(.outbox)
        }

        mutating func ended(_ mark: FrameMark, isHandled: Bool, now: Instant) {
            machine.ended(mark, isHandled: isHandled, now: now)
            due.insert(.outbox)
        }

        mutating func repairReceived(_ packet: RepairPacket, from peer: NodeIdentity, now: Instant) {
            machine.repairReceived(packet, from: peer, now: now)
            due.insert(.outbox)
        }

        mutating func repairFailed(_ stream: UInt64, now: Instant) {
            machine.repairFailed(stream, now: now)
            due.insert(.outbox)
        }

        mutating func repairWritten(_ bytes: Int, to member: NodeIdentity, now: Instant) {
            machine.repairWritten(bytes, to: member, now: now)
            due.insert(.outbox)
        }

        private mutating func collectCounters() -> CounterSet {
            var all = machine.counters
            all.merge(own)
            all.merge(socketCounters())
            if seamProblem != nil { all.set(.seamAbsent, 1) }
            return all
        }

        /// What the sockets of now have counted.
        private mutating func socketCounters() -> CounterSet {
            var counters = gate.counters
            if let facts = socket?.seamFacts {
                counters.set(.seamBatches, facts.batchesIn &+ facts.batchesOut)
                counters.set(.seamFailed, facts.failed)
                counters.set(.seamSegmentsRefused, facts.segmentsRefused)
            }
            counters.set(.kernelDropped, drops.count)
            return counters
        }

        /// What these sockets counted stays counted.
        private mutating func retireCounters() { own.merge(socketCounters()) }

        /// Messages to the group; without the seam only the data frames are known.
        private mutating func messagesSent() -> UInt64 {
            seamProblem == nil ? socket?.seamFacts.groupMessagesOut ?? 0 : machine.counters[.pgmOutData]
        }

        /// Packets that a configured fault held back go on.
        private mutating func releaseHeld(_ now: Instant) {
            guard gate.heldUntil.map({ $0 <= now }) ?? false else { return }
            for held in gate.release() {
                switch held {
                case .incoming(let packet, let source):
                    _ = socket?.inject(packet, from: source, to: gate.settings.admission.group)
                case .outgoing(let packet, let address): _ = socket?.emit(packet, to: address)
                }
            }
            due.insert(.receive)
        }

        // MARK: The end

        private var isSettled: Bool {
            mutating get { machine.isSettled && socket?.hasPending != true && mailbox.isEmpty }
        }

        /// Finishes when everything sent is acknowledged, or at `until`; others hear now that they need not
        /// wait for this node.
        mutating func beginClose(at now: Instant, until: Instant, then done: @escaping @Sendable () -> Void) {
            machine.leave(now: now)
            closing = (min(until, closing?.until ?? until), (closing?.done ?? []) + [done])
            due.insert(.outbox)
        }

        /// Closes the sockets and tells those that wait for it.
        mutating func finish() {
            mailbox.publish(collectCounters())
            mailbox.close()
            unregister()
            for done in closing?.done ?? [] { done() }
        }
    }
#endif
