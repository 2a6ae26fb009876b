#if Multicast
    import CastnetCore
    import COpenPGM
    import NIOCore

    /// Why a PGM call failed.
    struct PGMError: Error, CustomStringConvertible {
        var code: Int32
        var text: String
        var description: String { code == 0 ? text : "\(text) (errno \(code))" }

        init(_ raw: castnet_pgm_error) {
            code = raw.code
            text = unsafe withUnsafeBytes(of: raw.text) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
        }

        init(_ text: String) {
            code = 0
            self.text = text
        }
    }

    /// One PGM bus socket. It belongs to the thread that made it.
    @safe
    struct PGMSocket: ~Copyable {
        enum SendStatus { case sent, blocked, limited, failed }
        enum ReceiveStatus { case frame(ByteBuffer, repaired: Bool), reset, idle, limited, failed(PGMError) }

        private let handle: OpaquePointer

        /// Opens a socket with a fresh random source identifier.
        ///
        /// libpgm aborts the process on values it does not like, so they are checked here first.
        init(_ settings: ChannelSettings, interface: InterfaceChoice, plan: ChannelPlan) throws(PGMError) {
            guard plan.window > 0, plan.window & (plan.window - 1) == 0, plan.window <= 1 << 20 else {
                throw PGMError("a window of \(plan.window) packets is no power of two up to 1048576")
            }
            guard (576...65_535).contains(plan.mtu) else {
                throw PGMError("an MTU of \(plan.mtu) is out of range")
            }
            guard let group = DatagramAddress.address(settings.group), group >> 28 == 14 else {
                throw PGMError("\(settings.group) is no IPv4 multicast group")
            }
            var error = castnet_pgm_error()
            guard unsafe castnet_pgm_start(&error) else { throw PGMError(error) }
            var options = castnet_pgm_options()
            options.group = group
            options.interface_address = interface.address
            options.interface_index = interface.index
            options.port = settings.port
            options.data_port = settings.port
            options.mtu = UInt16(plan.mtu)
            options.hops = UInt8(clamping: settings.hops)
            options.loop = settings.loop
            options.type_of_service = settings.dscp.map { Int32(clamping: $0 << 2) } ?? -1
            options.window = UInt32(plan.window)
            options.receive_buffer = Int32(clamping: settings.receiveBuffer)
            options.send_buffer = 1 << 20
            Self.setTimers(&options)
            guard let handle = unsafe castnet_pgm_open(&options, &error) else { throw PGMError(error) }
            unsafe self.handle = handle
        }

        /// The times of the field guide for control fanout, in microseconds.
        private static func setTimers(_ options: inout castnet_pgm_options) {
            options.ambient_spm = 2_000_000
            options.heartbeat_spm = (20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 0, 0)
            options.heartbeat_count = 6
            options.peer_expiry = 30_000_000
            options.spmr_expiry = 20_000
            options.nak_backoff = 5_000
            options.nak_repeat = 50_000
            options.nak_rdata = 50_000
            options.nak_ncf_retries = 20
            options.nak_data_retries = 20
        }

        deinit { unsafe castnet_pgm_close(handle, true) }

        /// The largest payload of one packet.
        var payloadMax: Int { unsafe Int(castnet_pgm_payload_max(handle)) }
        /// The receive buffer as the kernel accounts it.
        var receiveBuffer: Int { unsafe Int(castnet_pgm_receive_buffer(handle)) }
        var descriptors: castnet_pgm_descriptors { unsafe castnet_pgm_descriptors_of(handle) }
        /// The stream's transport session: 48 random bits and the source port.
        var tsi: UInt64 { unsafe castnet_pgm_tsi(handle) }
        /// True while a packet waits to be sent again.
        var hasPending: Bool { unsafe castnet_pgm_has_pending(handle) }
        /// Until receive must be called even if nothing arrives: at least 1 ms.
        var timeRemaining: Duration { unsafe .microseconds(castnet_pgm_time_remaining(handle)) }

        /// Sends a copy of `frame` as one packet. After `blocked` or `limited` only `resend` may follow.
        mutating func send(_ frame: ByteBuffer) -> SendStatus {
            let status = unsafe frame.withUnsafeReadableBytes { bytes -> castnet_pgm_status in
                guard let base = bytes.baseAddress else { return CASTNET_PGM_FAILED }
                return unsafe castnet_pgm_send(handle, base, bytes.count)
            }
            return Self.sendStatus(status)
        }

        mutating func resend() -> SendStatus { unsafe Self.sendStatus(castnet_pgm_resend(handle)) }

        private static func sendStatus(_ status: castnet_pgm_status) -> SendStatus {
            switch status {
            case CASTNET_PGM_DONE: .sent
            case CASTNET_PGM_WOULD_BLOCK: .blocked
            case CASTNET_PGM_LIMITED: .limited
            default: .failed
            }
        }

        /// Serves timers, repairs and peers, and takes one packet if there is one.
        mutating func receive() -> ReceiveStatus {
            var packet = unsafe castnet_pgm_packet()
            var error = castnet_pgm_error()
            switch unsafe castnet_pgm_receive(handle, &packet, &error) {
            case CASTNET_PGM_DONE:
                guard let bytes = unsafe packet.bytes else { return .idle }
                // The bytes are libpgm's until the next call: copy them out.
                let view = unsafe UnsafeRawBufferPointer(start: bytes, count: Int(unsafe packet.length))
                var frame = ByteBufferAllocator().buffer(capacity: view.count)
                unsafe frame.writeBytes(view)
                return unsafe .frame(frame, repaired: packet.repaired)
            case CASTNET_PGM_RESET: return .reset
            case CASTNET_PGM_LIMITED: return .limited
            case CASTNET_PGM_FAILED: return .failed(PGMError(error))
            default: return .idle
            }
        }
    }
#endif
