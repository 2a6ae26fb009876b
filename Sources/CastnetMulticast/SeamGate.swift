#if Multicast
    package import CastnetCore
    internal import COpenPGM

    /// Judges the packets of one socket for the seam: C calls it, on the socket's thread, inside libpgm's
    /// calls. Its socket retains it.
    package final class SeamGate {
        package struct Settings: Sendable {
            package var admission: Admission.Settings
            package var faults: FaultSettings?
            /// Neither segmented sends nor coalesced receives.
            package var isPlain = false
            /// Added to the numbers of the own stream on the wire: a test may start next to their end.
            package var shift: UInt32 = 0

            package init(_ options: PGMOptions, faults: FaultSettings? = nil) {
                admission = Admission.Settings(
                    tsi: 0, address: options.interface.address, group: options.group, dataPort: options.port,
                    payloadMax: options.mtu - PGMOptions.headerLength, window: UInt32(options.window),
                    magic: [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: FrameWire.magic >> $0) })
                admission.peerExpiry = options.timers.peerExpiry
                self.faults = faults
                shift = faults?.shift ?? 0
            }
        }

        package let settings: Settings
        /// A value, so that a packet costs one access to this memory. Unchecked: only the socket's thread has
        /// it, for every packet.
        @exclusivity(unchecked) private var judge: PacketJudge

        package init(_ settings: Settings, now: Instant) {
            self.settings = settings
            unsafe judge = PacketJudge(settings, now: now)
        }

        /// The time of the turn: the caller sets it.
        package var now: Instant {
            get { unsafe judge.now }
            set { unsafe judge.now = newValue }
        }
        package var counters: CounterSet { unsafe judge.admission.counters }
        /// The socket is open, and sends this stream.
        package func opened(tsi: UInt64) { unsafe judge.admission.opened(tsi: tsi, now: judge.now) }
        /// libpgm misses nothing of any stream.
        var isWhole: Bool { unsafe judge.admission.isWhole }
        /// libpgm has delivered this packet.
        func delivered(tsi: UInt64, sequence: UInt32) {
            unsafe judge.admission.delivered(tsi, sequence, now: judge.now)
        }
        /// libpgm did not deliver what it could have.
        func doubt() { unsafe judge.admission.doubt() }
        /// When the first packet that a fault holds back is due.
        package var heldUntil: Instant? { unsafe judge.heldUntil }
        /// The packets that are due, in the order in which they came.
        package func release() -> [ReleasedPacket] { unsafe judge.release() }

        var hooks: castnet_seam_hooks {
            unsafe castnet_seam_hooks(
                context: Unmanaged.passUnretained(self).toOpaque(),
                received: { context, bytes, length, source, port, destination, isOnSend, spm in
                    guard let context = unsafe context else { return .reject }
                    let packet = unsafe UnsafeBufferPointer(start: bytes, count: length).span
                    let arrival = Admission.Arrival(
                        source: source, port: port, destination: destination, isOnSend: isOnSend)
                    return unsafe SeamGate.borrow(context) { gate in
                        let (verdict, made) = unsafe gate.judge.received(packet, arrival)
                        guard let made else { return verdict }
                        let bytes = made.encoded(dataPort: gate.settings.admission.dataPort)
                        for (index, byte) in bytes.enumerated() { unsafe spm[index] = byte }
                        return verdict
                    }
                },
                sending: { context, bytes, length, destination, port, steered in
                    guard let context = unsafe context else { return 1 }
                    let packet = unsafe UnsafeBufferPointer(start: bytes, count: length).span
                    let address = DatagramAddress(address: destination, port: port)
                    let (copies, port) = unsafe SeamGate.borrow(context) { gate in
                        unsafe gate.judge.sending(packet, address)
                    }
                    unsafe steered.pointee = port ?? 0
                    return copies
                },
                plain: settings.isPlain, shift: settings.shift)
        }

        /// Nobody counts a reference for a packet: the socket holds one.
        private static func borrow<Result>(
            _ context: UnsafeMutableRawPointer, _ body: (SeamGate) -> Result
        ) -> Result {
            unsafe Unmanaged<SeamGate>.fromOpaque(context)._withUnsafeGuaranteedRef(body)
        }
    }
#endif
