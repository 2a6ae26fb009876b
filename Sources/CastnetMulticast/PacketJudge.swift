#if Multicast
    package import CastnetCore
    internal import COpenPGM

    /// A packet that goes on later, judged already.
    package enum ReleasedPacket: Sendable {
        case incoming([UInt8], source: UInt32)
        case outgoing([UInt8], DatagramAddress)
    }

    /// What becomes of each packet of one socket: admission, and the faults of its channel.
    struct PacketJudge: ~Copyable {
        private enum Held {
            case incoming([UInt8], Admission.Arrival)
            case outgoing([UInt8], DatagramAddress, steered: UInt16?)
        }

        /// Packets held back by faults; more are dropped.
        private static let heldMax = 1024

        private let settings: SeamGate.Settings
        var now: Instant
        var admission: Admission
        private var faults: PacketFaults?
        private var held: [(at: Instant, packet: Held)] = []

        init(_ settings: SeamGate.Settings, now: Instant) {
            self.settings = settings
            self.now = now
            admission = Admission(settings.admission)
            faults = settings.faults.map(PacketFaults.init)
        }

        mutating func received(
            _ packet: Span<UInt8>, _ arrival: Admission.Arrival
        ) -> (castnet_seam_verdict, SyntheticSPM?) {
            if faults != nil, packet.count >= 16 {
                switch faults?.fate(type: packet[4], direction: .incoming) {
                case .drop:
                    admission.countFault()
                    return (.reject, nil)
                case .hold(let pause):
                    hold(.incoming(Array(packet), arrival), pause)
                    return (.reject, nil)
                case .duplicate: hold(.incoming(Array(packet), arrival), .zero)
                case .pass, nil: break
                }
            }
            return switch admission.received(packet, arrival, now: now) {
            case .admit: (.admit, nil)
            case .admitNext: (.admitNext, nil)
            case .admitAfter(let spm): (.admitAfterSPM, spm)
            case .only(let spm): (.onlySPM, spm)
            case .reject: (.reject, nil)
            }
        }

        mutating func sending(_ packet: Span<UInt8>, _ address: DatagramAddress) -> (Int32, UInt16?) {
            var steered: UInt16?
            switch admission.sending(packet, now: now) {
            case .swallow: return (0, nil)
            case .steer(let port): steered = port
            case .send: break
            }
            guard faults != nil, packet.count >= 16 else { return (1, steered) }
            switch faults?.fate(type: packet[4], direction: .outgoing) {
            case .drop:
                admission.countFault()
                return (0, nil)
            case .duplicate: return (2, steered)
            case .hold(let pause):
                hold(.outgoing(Array(packet), address, steered: steered), pause)
                return (0, nil)
            case .pass, nil: return (1, steered)
            }
        }

        private mutating func hold(_ packet: Held, _ pause: Duration) {
            guard held.count < Self.heldMax else { return admission.countFault() }
            held.append((now + pause, packet))
        }

        /// When the first held packet is due.
        var heldUntil: Instant? { held.lazy.map(\.at).min() }

        /// The packets that are due, in the order in which they came.
        mutating func release() -> [ReleasedPacket] {
            var released: [ReleasedPacket] = []
            let due = held.filter { $0.at <= now }
            held.removeAll { $0.at <= now }
            for (_, packet) in due {
                switch packet {
                case .incoming(let bytes, let arrival): judge(bytes, arrival, into: &released)
                case .outgoing(let bytes, let address, let steered):
                    released.append(.outgoing(bytes, address))
                    guard let steered, steered != address.port else { continue }
                    released.append(
                        .outgoing(bytes, DatagramAddress(address: address.address, port: steered)))
                }
            }
            return released
        }

        private mutating func judge(
            _ bytes: [UInt8], _ arrival: Admission.Arrival, into released: inout [ReleasedPacket]
        ) {
            let port = settings.admission.dataPort
            switch admission.received(bytes.span, arrival, now: now) {
            case .reject: return
            case .admit, .admitNext: released.append(.incoming(bytes, source: arrival.source))
            case .admitAfter(let spm):
                released.append(.incoming(spm.encoded(dataPort: port), source: arrival.source))
                released.append(.incoming(bytes, source: arrival.source))
            case .only(let spm):
                released.append(.incoming(spm.encoded(dataPort: port), source: arrival.source))
            }
        }
    }

    extension Array where Element == UInt8 {
        fileprivate init(_ span: Span<UInt8>) {
            self.init()
            reserveCapacity(span.count)
            for index in span.indices { append(span[index]) }
        }
    }
#endif
