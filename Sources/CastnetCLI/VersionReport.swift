internal import Castnet

#if canImport(Glibc)
    internal import Glibc
#endif

/// What `castnet --version` prints.
struct VersionReport: Encodable, CustomStringConvertible {
    var castnet = BuildFacts.version
    var wire = BuildFacts.wireVersion
    var libpgm = BuildFacts.libpgmVersion
    var gso = Self.kernelTakes(option: 103)  // UDP_SEGMENT
    var gro = Self.kernelTakes(option: 104)  // UDP_GRO

    var description: String {
        """
        castnet \(castnet)
        wire    \(wire)
        libpgm  \(libpgm ?? "not linked")
        gso     \(gso ? "yes" : "no")
        gro     \(gro ? "yes" : "no")
        """
    }

    enum CodingKeys: CodingKey { case castnet, wire, libpgm, gso, gro }

    func encode(to encoder: any Encoder) throws {
        var keys = encoder.container(keyedBy: CodingKeys.self)
        try keys.encode(castnet, forKey: .castnet)
        try keys.encode(wire, forKey: .wire)
        try keys.encode(libpgm, forKey: .libpgm)
        try keys.encode(gso, forKey: .gso)
        try keys.encode(gro, forKey: .gro)
    }

    /// Asks the kernel itself: older ones refuse the UDP segmentation options.
    private static func kernelTakes(option: Int32) -> Bool {
        #if os(Linux)
            let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
            guard descriptor >= 0 else { return false }
            defer { close(descriptor) }
            var value: Int32 = option == 103 ? 1448 : 1
            return setsockopt(
                descriptor, Int32(IPPROTO_UDP), option, &value, socklen_t(MemoryLayout<Int32>.size)) == 0
        #else
            return false
        #endif
    }
}
