internal import Glibc
internal import Synchronization

/// What a lab is made of.
package struct LabOptions: Sendable {
    /// Names of the hosts, in address order: the first gets 10.77.0.11.
    package var hosts: [String]
    /// Begins every namespace name, so that several labs live side by side.
    package var prefix: String
    /// MTU of every link.
    package var mtu: Int
    /// False switches every segmentation offload off, so that each packet of the wire is one buffer: needed
    /// where faults shall hit single packets, because with offload one dropped buffer is up to 44 of them.
    package var offload: Bool

    package static let hostsMax = 200
    package static let mtuRange = 576...65_000

    package init(
        hosts: [String], prefix: String = LabOptions.freshPrefix(), mtu: Int = 1500, offload: Bool = true
    ) {
        self.hosts = hosts
        self.prefix = prefix
        self.mtu = mtu
        self.offload = offload
    }

    /// `count` hosts named h1, h2, …
    package init(
        hostCount count: Int, prefix: String = LabOptions.freshPrefix(), mtu: Int = 1500, offload: Bool = true
    ) {
        self.init(hosts: Self.hostNames(count), prefix: prefix, mtu: mtu, offload: offload)
    }

    /// h1, h2, … as the command line makes them.
    package static func hostNames(_ count: Int) -> [String] { (0..<max(count, 0)).map { "h\($0 + 1)" } }

    /// A prefix no other lab of this machine uses: the process and a count.
    package static func freshPrefix() -> String {
        "cast\(getpid())x\(labsMade.wrappingAdd(1, ordering: .relaxed).newValue)"
    }

    private static let labsMade = Atomic<Int>(0)

    func validate() throws {
        guard hosts.count <= Self.hostsMax else {
            throw LabError.invalid("\(hosts.count) hosts; a lab has at most \(Self.hostsMax)")
        }
        guard Self.mtuRange.contains(mtu) else {
            throw LabError.invalid("MTU \(mtu); allowed are \(Self.mtuRange)")
        }
        for name in hosts + [prefix] where !Self.isName(name) {
            throw LabError.invalid("name `\(name)`; allowed are 1 to 24 of a-z, 0-9 and -, a letter first")
        }
        guard Set(hosts).count == hosts.count, !hosts.contains(LabOptions.bridgeName) else {
            throw LabError.invalid("host names must differ, and from `\(LabOptions.bridgeName)`")
        }
    }

    /// The namespace of the bridge is named like a host's.
    static let bridgeName = "bridge"

    private static func isName(_ text: String) -> Bool {
        let bytes = text.utf8
        guard (1...24).contains(bytes.count), let first = text.first, first.isASCII, first.isLowercase else {
            return false
        }
        return bytes.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d }
    }
}
