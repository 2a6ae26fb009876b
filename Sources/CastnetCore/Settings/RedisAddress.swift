/// Where a Redis store is and how a node makes itself known there: `redis://user:password@host:port/number`.
///
/// Its description, and every reason why a text is none, leaves user and password out: both go to logs.
package struct RedisAddress: Hashable, Sendable, CustomStringConvertible {
    package var host: String
    package var port: UInt16 = 6379
    package var user: String?
    package var password: String?
    /// The numbered database, as `SELECT` takes it.
    package var database = 0

    package static let scheme = "redis://"
    /// What there is no support for: Debian's hiredis is built without TLS.
    package static let encryptedScheme = "rediss://"
    package static let databaseMax = 9999

    /// Why a text is no address of a store, in words that follow the quoted text.
    package struct Fault: Error, Hashable, Sendable {
        package var reason: String
    }

    /// Parses a URL. User and password may be percent-encoded, and must be where they hold `/`, `@` or `%`.
    package init(_ text: String) throws(Fault) {
        guard !text.hasPrefix(Self.encryptedScheme) else {
            throw Fault(reason: "asks for TLS, which this version has not; leave it to a tunnel on this host")
        }
        guard text.hasPrefix(Self.scheme) else { throw Fault(reason: "does not begin with redis://") }
        let rest = text.dropFirst(Self.scheme.count)
        guard !rest.contains(where: { "?#".contains($0) }) else {
            throw Fault(reason: "has a query or fragment")
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash]
        var place = authority
        if let at = authority.lastIndex(of: "@") {
            (user, password) = try Self.credentials(authority[..<at])
            place = authority[authority.index(after: at)...]
        }
        (host, port) = try Self.hostAndPort(place)
        let path = rest[slash...].dropFirst()
        guard !path.isEmpty else { return }
        guard path.allSatisfy({ ("0"..."9").contains($0) }), let number = Int(path),
            number <= Self.databaseMax
        else { throw Fault(reason: "names no database number from 0 to \(Self.databaseMax)") }
        database = number
    }

    private static func credentials(_ text: Substring) throws(Fault) -> (user: String?, password: String?) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let decoded = parts.map { decode($0) }
        guard !decoded.contains(nil) else { throw Fault(reason: "has a wrong percent-encoding") }
        let user = decoded[0].flatMap { $0.isEmpty ? nil : $0 }
        guard decoded.count > 1 else {
            throw Fault(reason: "has a user without a password: user:password@ or :password@")
        }
        let password = decoded[1].flatMap { $0.isEmpty ? nil : $0 }
        guard password != nil else { throw Fault(reason: "has an empty password") }
        return (user, password)
    }

    private static func hostAndPort(_ text: Substring) throws(Fault) -> (host: String, port: UInt16) {
        let isPlain = !text.isEmpty && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
        guard isPlain else { throw Fault(reason: "names no host") }
        let hasPort = text.hasPrefix("[") ? !text.hasSuffix("]") : text.contains(":")
        guard let place = HostPort(hasPort ? String(text) : "\(text):6379"), place.port > 0 else {
            throw Fault(reason: "has no host:port or [IPv6]:port in it")
        }
        return (place.host, place.port)
    }

    /// Nil where an escape is not two hexadecimal digits or the bytes are no UTF-8.
    private static func decode(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = rest.prefix(2)
            guard digits.count == 2, let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16),
                !digits.contains(UInt8(ascii: "+"))
            else { return nil }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    package var description: String { "\(HostPort(host: host, port: port))/\(database)" }
}
