internal import NIOCore

/// What Redis answered, copied out of the C library's memory.
enum RedisReply: Hashable, Sendable {
    case bytes(ByteBuffer)
    case integer(Int64)
    case null
    case error(String)
    case list([RedisReply])

    /// The bytes as text; nil where they are none.
    var text: String? {
        guard case .bytes(let bytes) = self else { return nil }
        return String(validating: bytes.readableBytesView, as: UTF8.self)
    }

    var list: [RedisReply]? {
        guard case .list(let replies) = self else { return nil }
        return replies
    }
}

/// Why an exchange with Redis failed. Never holds a password.
struct RedisError: Error, Hashable, Sendable, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
