import COpenPGM
package import CastnetCore

/// The network interface a channel uses.
package struct InterfaceChoice: Hashable, Sendable {
    package var name: String
    package var index: UInt32
    /// Its first IPv4 address, in host byte order.
    package var address: UInt32
    /// The MTU a channel uses here by itself.
    package var mtu: Int
    /// The MTU of the interface: nothing larger leaves it whole.
    package var linkMTU: Int
    package var isLoopback: Bool

    /// The loopback interface would take 64 KiB packets; a cluster on one host should behave like any other.
    private static let loopbackMTU = 1500
    private static let mtuMax = 9000

    /// The interface called `name`; else the one that has the address `listen`; else the first that is up and
    /// can do multicast; else loopback. Throws `multicastUnavailable` where there is none.
    package init(name: String?, listen: String) throws {
        try self.init(name: name, listen: listen, among: Self.all())
    }

    package init(name: String?, listen: String, among all: [InterfaceChoice]) throws {
        if let name {
            guard let found = all.first(where: { $0.name == name }) else {
                let known = Set(all.map(\.name)).sorted().joined(separator: ", ")
                throw CastnetError(
                    .multicastUnavailable,
                    "node.interface: no interface \(quoted(name)) with an IPv4 address; there are: \(known)")
            }
            self = found
            return
        }
        let listening = all.first { DatagramAddress(address: $0.address, port: 0).host == listen }
        guard let found = listening ?? all.first(where: { !$0.isLoopback }) ?? all.first else {
            throw CastnetError(.multicastUnavailable, "no interface is up with an IPv4 address")
        }
        self = found
    }

    package init(name: String, index: UInt32, address: UInt32, linkMTU: Int, isLoopback: Bool) {
        self.name = name
        self.index = index
        self.address = address
        self.linkMTU = linkMTU
        self.isLoopback = isLoopback
        mtu = isLoopback ? Self.loopbackMTU : min(linkMTU, Self.mtuMax)
    }

    private init(_ raw: castnet_interface) {
        self.init(
            name: text(ofTuple: raw.name), index: raw.index, address: raw.address, linkMTU: Int(raw.mtu),
            isLoopback: raw.loopback)
    }

    /// Every interface that is up, has an IPv4 address and takes multicast.
    private static func all() -> [InterfaceChoice] {
        var raw = [castnet_interface](repeating: castnet_interface(), count: 64)
        let count = unsafe raw.withUnsafeMutableBufferPointer { buffer -> Int32 in
            guard let base = buffer.baseAddress else { return 0 }
            return unsafe castnet_interfaces(base, Int32(buffer.count))
        }
        return raw.prefix(Int(max(0, count))).filter { $0.up && ($0.multicast || $0.loopback) }.map(Self.init)
    }
}

extension DatagramAddress {
    /// The address without the port, in dotted form.
    package var host: String {
        "\(address >> 24).\(address >> 16 & 255).\(address >> 8 & 255).\(address & 255)"
    }

    /// The dotted address as a number; nil when it is none.
    package static func address(_ text: String) -> UInt32? {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        guard parts.count == 4 else { return nil }
        return parts.reduce(0 as UInt32?) { value, part in
            guard let value, let part else { return nil }
            return value << 8 | UInt32(part)
        }
    }
}
