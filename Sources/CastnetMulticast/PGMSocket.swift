#if Multicast
    package import CastnetCore
    internal import COpenPGM
    package import NIOCore

    /// One PGM bus socket: sends its own stream, receives everybody else's.
    ///
    /// Confined to the thread that opened it, which must keep calling ``receive()``: repairs and timers
    /// run only inside it. Closed when it goes out of scope, or with a goodbye by ``close(flush:)``; its
    /// descriptors must have left every epoll set before.
    @safe
    package struct PGMSocket: ~Copyable {
        private let handle: OpaquePointer
        private let gate: SeamGate?
        /// What libpgm delivered in one call, and how much of that was taken.
        private let packets: UnsafeMutablePointer<castnet_pgm_packet>
        private var run: castnet_pgm_run
        private var taken: UInt32 = 0
        private var saysGoodbye = false

        package enum Sent: Hashable, Sendable {
            case done
            /// Pending until the send descriptor is writable; then ``resend()``.
            case wouldBlock
            /// Pending for a moment; then ``resend()``.
            case limited
        }

        package enum Received {
            case packet(Packet)
            /// Packets of the stream are gone for good; it goes on behind them.
            case reset(tsi: UInt64)
            /// Nothing now.
            case idle
            /// Something of PGM's own could not leave: call again in a moment.
            case limited
            /// An empty datagram, which says nothing (libpgm calls it end of file).
            case empty
        }

        /// A payload of the stream that `tsi` names.
        @safe
        package struct Packet {
            package var tsi: UInt64
            package var isRepaired: Bool
            /// Borrowed from libpgm's window until the next call of ``receive()``.
            package var payload: UnsafeRawBufferPointer
        }

        /// The descriptors to wait for.
        package struct Descriptors: Hashable, Sendable {
            package var receive: Int32
            package var pending: Int32
            package var repair: Int32
            /// Only while a send is blocked: it is nearly always writable.
            package var send: Int32
        }

        /// Opens a socket with a fresh random source identifier, joins the group and says hello. Every packet
        /// goes through `gate`, unless there is none or the seam is not to be had: see ``seamProblem``.
        package init(_ options: PGMOptions, gate: SeamGate? = nil) throws(PGMError) {
            try options.validate()
            var raw = options.raw
            var error = castnet_pgm_error()
            let opened: OpaquePointer?
            if let gate {
                var hooks = unsafe gate.hooks
                unsafe opened = unsafe castnet_pgm_open(&raw, &hooks, &error)
            } else {
                unsafe opened = unsafe castnet_pgm_open(&raw, nil, &error)
            }
            guard let handle = unsafe opened else {
                throw PGMError(error, while: "opening a PGM socket on \(options.interface.name)")
            }
            unsafe self.handle = unsafe handle
            self.gate = gate
            unsafe packets = .allocate(capacity: Int(CASTNET_PGM_RUN_MAX))
            unsafe packets.initialize(
                repeating: castnet_pgm_packet(), count: Int(CASTNET_PGM_RUN_MAX))
            unsafe run = castnet_pgm_run(packets: packets, count: 0, lacks: false)
            gate?.opened(tsi: unsafe castnet_pgm_tsi(handle))
        }

        deinit {
            unsafe castnet_pgm_close(handle, saysGoodbye)
            unsafe packets.deallocate()
        }

        /// Closes; `flush` sends three goodbyes (which receivers of this library ignore). It does not wait
        /// for repairs: keep calling ``receive()`` for as long as somebody may still ask.
        package consuming func close(flush: Bool) {
            saysGoodbye = flush
        }

        /// The largest payload of one packet.
        package var payloadMax: Int { Int(unsafe castnet_pgm_payload_max(handle)) }
        /// Source identifier and source port of the stream this socket sends.
        package var tsi: UInt64 { unsafe castnet_pgm_tsi(handle) }
        /// The receive buffer as the kernel accounts it.
        package var receiveBufferBytes: Int { Int(unsafe castnet_pgm_receive_buffer(handle)) }
        /// Why libpgm talks to the kernel itself, packet by packet and unjudged; nil: it does not.
        package var seamProblem: String? {
            unsafe castnet_pgm_has_seam(handle) ? nil : String(cString: castnet_pgm_seam_problem(handle))
        }
        package var seamFacts: SeamFacts { SeamFacts(unsafe castnet_pgm_seam_facts(handle)) }
        /// True while packets lie here or in the seam: call ``receive()`` before any
        /// sleep.
        package var holdsPackets: Bool {
            unsafe taken < run.count || castnet_pgm_holds_packets(handle)
        }
        package var hasPending: Bool { unsafe castnet_pgm_has_pending(handle) }
        package var descriptors: Descriptors {
            let all = unsafe castnet_pgm_descriptors_of(handle)
            return Descriptors(
                receive: all.receive, pending: all.pending, repair: all.repair, send: all.send)
        }

        /// Sends a copy of the readable bytes as one packet. Unless it answers `done` the packet is pending:
        /// it has its number already, and must leave before any other.
        package mutating func send(_ payload: ByteBuffer) throws(PGMError) -> Sent {
            guard !hasPending else { throw .busy }
            let length = payload.readableBytes
            guard length > 0, length <= payloadMax else { throw .payload(length: length, max: payloadMax) }
            let status = unsafe payload.withUnsafeReadableBytes { bytes in
                guard let base = bytes.baseAddress else { return castnet_pgm_status.failed }
                return unsafe castnet_pgm_send(handle, base, bytes.count)
            }
            return try Self.sent(status)
        }

        /// Sends the pending packet again; `done` when there is none.
        package mutating func resend() throws(PGMError) -> Sent {
            try Self.sent(unsafe castnet_pgm_resend(handle))
        }

        /// Lets the collected packets go; `wouldBlock` when some wait for the send descriptor.
        package mutating func flush() throws(PGMError) -> Sent {
            try Self.sent(unsafe castnet_pgm_flush(handle))
        }

        /// The send descriptor is readable: the next ``receive()`` looks there too.
        package mutating func noteSendReadable() { unsafe castnet_pgm_note_send_readable(handle) }

        /// Collects a packet that was judged before; it leaves with the next flush. False: no room.
        package mutating func emit(_ packet: [UInt8], to address: DatagramAddress) -> Bool {
            unsafe packet.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return false }
                return unsafe castnet_pgm_emit(handle, base, bytes.count, address.address, address.port)
            }
        }

        /// Hands libpgm a packet as if it had come from `source` for `destination`; false: no room.
        package mutating func inject(_ packet: [UInt8], from source: UInt32, to destination: UInt32) -> Bool {
            unsafe packet.withUnsafeBytes { bytes in
                guard let base = bytes.baseAddress else { return false }
                return unsafe castnet_pgm_inject(handle, base, bytes.count, source, destination)
            }
        }

        private static func sent(_ status: castnet_pgm_status) throws(PGMError) -> Sent {
            switch status {
            case .done: .done
            case .wouldBlock: .wouldBlock
            case .limited: .limited
            case .reset, .idle, .empty, .failed:
                throw .failed(operation: "send", code: 0, text: "libpgm refused the packet")
            }
        }

        /// Takes one packet, if there is one. Whenever libpgm is asked for more it serves timers and repairs,
        /// too, of which at most one leaves.
        package mutating func receive() throws(PGMError) -> Received {
            if unsafe taken == run.count, let other = try take() { return other }
            let packet = unsafe packets[Int(taken)]
            taken += 1
            return unsafe .packet(
                Packet(
                    tsi: packet.tsi, isRepaired: packet.repaired,
                    payload: UnsafeRawBufferPointer(start: packet.bytes, count: Int(packet.length))))
        }

        /// Asks libpgm; nil: there is at least one packet in `run`.
        private mutating func take() throws(PGMError) -> Received? {
            var error = castnet_pgm_error()
            taken = 0
            let status = unsafe castnet_pgm_receive(handle, gate?.isWhole ?? false, &run, &error)
            if unsafe run.lacks { gate?.doubt() }
            switch status {
            case .done:
                if let gate, !gate.isWhole {
                    for index in unsafe 0..<Int(run.count) {
                        unsafe gate.delivered(tsi: packets[index].tsi, sequence: packets[index].sequence)
                    }
                }
                return unsafe run.count > 0 ? nil : .idle
            case .reset: return unsafe .reset(tsi: packets[0].tsi)
            case .idle: return .idle
            case .wouldBlock, .limited: return .limited
            case .empty: return .empty
            case .failed: throw PGMError(error, while: "receive")
            }
        }

        /// After how long ``receive()`` must be called even if nothing arrives; at least 1 ms.
        package var timeRemaining: Duration { .microseconds(unsafe castnet_pgm_time_remaining(handle)) }
    }

    extension PGMError {
        init(_ error: castnet_pgm_error, while operation: String) {
            self = unsafe .failed(
                operation: operation, code: Int(error.code), text: text(ofTuple: error.text))
        }
    }

    extension PGMOptions {
        var raw: castnet_pgm_options {
            var raw = castnet_pgm_options()
            raw.group = group
            raw.interface_address = interface.address
            raw.interface_index = interface.index
            raw.port = port
            raw.data_port = port
            raw.send_port = sendPort ?? 0
            raw.mtu = UInt16(clamping: mtu)
            raw.hops = UInt8(clamping: hops)
            raw.loop = loop
            raw.type_of_service = dscp.map { Int32($0 << 2) } ?? -1
            raw.window = UInt32(clamping: window)
            raw.receive_buffer = Int32(clamping: receiveBuffer)
            raw.send_buffer = Int32(clamping: sendBuffer)
            raw.ambient_spm = timers.ambient.wholeMicroseconds
            raw.peer_expiry = timers.peerExpiry.wholeMicroseconds
            raw.spmr_expiry = timers.spmRequest.wholeMicroseconds
            raw.nak_backoff = timers.nakBackoff.wholeMicroseconds
            raw.nak_repeat = timers.nakRepeat.wholeMicroseconds
            raw.nak_rdata = timers.nakData.wholeMicroseconds
            raw.nak_ncf_retries = Int32(clamping: timers.confirmationRetries)
            raw.nak_data_retries = Int32(clamping: timers.dataRetries)
            raw.heartbeat_count = Int32(clamping: timers.heartbeats.count)
            unsafe withUnsafeMutableBytes(of: &raw.heartbeat_spm) { bytes in
                let values = unsafe bytes.assumingMemoryBound(to: Int32.self)
                for (index, interval) in timers.heartbeats.prefix(values.count).enumerated() {
                    unsafe values[index] = interval.wholeMicroseconds
                }
            }
            return raw
        }
    }

    extension Duration {
        fileprivate var wholeMicroseconds: Int32 { Int32(clamping: nanoseconds / 1000) }
    }

    /// libpgm's log lines, which it may write from any thread; a bounded ring holds them until they are
    /// taken.
    package enum PGMLog {
        /// The oldest waiting line with its level, 0 (debug) to 6 (fatal).
        package static func take() -> (level: Int, text: String)? {
            var level: Int32 = 0
            var bytes = [CChar](repeating: 0, count: 256)
            guard unsafe castnet_pgm_log_take(&bytes, 256, &level) else { return nil }
            return (
                Int(level),
                String(decoding: bytes.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            )
        }

        /// Lines dropped because the ring was full.
        package static var droppedCount: UInt64 { castnet_pgm_log_dropped() }
    }
#endif
