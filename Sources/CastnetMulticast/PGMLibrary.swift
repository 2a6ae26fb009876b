internal import COpenPGM

/// The libpgm that this process has loaded.
package enum PGMLibrary {
    /// Its version; nil in a build without multicast.
    package static var version: String? {
        #if Multicast
            var parts: [UInt32] = [0, 0, 0]
            unsafe parts.withUnsafeMutableBufferPointer { buffer in
                guard let base = buffer.baseAddress else { return }
                unsafe castnet_pgm_version(base)
            }
            return parts.map(String.init).joined(separator: ".")
        #else
            return nil
        #endif
    }
}
