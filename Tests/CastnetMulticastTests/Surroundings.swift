#if Multicast
    import CastnetMulticast
    import COpenPGM
    import Glibc
    import NIOCore
    import Synchronization
    import Testing

    /// Ports and groups that no other test of the process uses.
    enum Ports {
        private static let last = Atomic<UInt32>(UInt32.random(in: 0..<20_000))

        static func next() -> UInt16 {
            UInt16(20_000 + last.wrappingAdd(1, ordering: .relaxed).newValue % 20_000)
        }

        static func options(mtu: Int = 1500, window: Int = 4096) throws -> PGMOptions {
            let port = next()
            let loopback = try InterfaceChoice(name: "lo", listen: "127.0.0.1")
            return PGMOptions(
                interface: loopback, group: 0xEFC0_0000 | UInt32(port), port: port, mtu: mtu, window: window)
        }
    }

    extension PGMSocket {
        /// What has arrived by now.
        mutating func payloads() throws -> [ByteBuffer] {
            var found: [ByteBuffer] = []
            while let packet = try next() { found.append(packet.payload) }
            return found
        }

        /// The 64-bit numbers of one stream that have arrived by now.
        mutating func numbers(from stream: UInt64) throws -> [UInt64] {
            var found: [UInt64] = []
            while let packet = try next() {
                guard packet.tsi == stream else { continue }
                if let number = packet.payload.getInteger(at: 0, as: UInt64.self) { found.append(number) }
            }
            return found
        }

        private mutating func next() throws -> (tsi: UInt64, payload: ByteBuffer)? {
            while true {
                switch try receive() {
                case .packet(let packet): return (packet.tsi, packet.copy)
                case .reset, .empty: continue
                case .idle, .limited: return nil
                }
            }
        }
    }

    extension PGMSocket.Packet {
        /// The payload, to keep.
        var copy: ByteBuffer { unsafe ByteBuffer(bytes: payload) }
    }

    /// A plain UDP socket.
    final class Datagrams: Sendable {
        private let descriptor: Int32

        init(from address: UInt32 = 0x7F00_0001) throws {
            var port: UInt16 = 0
            descriptor = castnet_udp_open(address, 65_536, &port)
            guard descriptor >= 0 else { throw TimedOut(description: "no socket: \(descriptor)") }
        }

        deinit { castnet_descriptor_close(descriptor) }

        func send(_ payload: ByteBuffer, to address: UInt32, port: UInt16) throws {
            let result = payload.withUnsafeReadableBytes { bytes in
                withUnsafeBytes(of: UInt8(0)) { nothing in
                    castnet_udp_send(
                        descriptor, bytes.baseAddress ?? nothing.baseAddress!, bytes.count, address, port)
                }
            }
            guard result == 0 else { throw TimedOut(description: "send failed: \(result)") }
        }
    }

    enum Surroundings {
        static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

        /// Leaves EINTR in errno, as an interrupted system call would.
        static func interrupt() { errno = EINTR }

        static func boundPort(of descriptor: Int32) -> UInt16 {
            var address = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            _ = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    getsockname(descriptor, $0, &length)
                }
            }
            return UInt16(bigEndian: address.sin_port)
        }
    }
#endif
