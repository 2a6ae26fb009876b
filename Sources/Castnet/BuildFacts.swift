internal import CastnetMulticast

/// What this build of Castnet is: one place for the versions every tool prints.
public enum BuildFacts {
    /// The library's version.
    public static let version = "0.1.0"
    /// The version of the wire format this build speaks.
    public static let wireVersion = 1
    /// True when the package was built with the `Multicast` trait.
    public static var hasMulticast: Bool {
        #if Multicast
            true
        #else
            false
        #endif
    }
    /// True when the package was built with the `Redis` trait.
    public static var hasRedis: Bool {
        #if Redis
            true
        #else
            false
        #endif
    }
    /// libpgm's version; nil in a build without multicast.
    public static var libpgmVersion: String? { PGMLibrary.version }
}
