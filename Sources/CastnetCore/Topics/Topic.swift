/// A dotted name that messages are sent to: 1–8 segments of `[A-Za-z0-9_-]{1,63}` joined by dots,
/// at most 255 bytes, case-sensitive.
public struct Topic: Hashable, Sendable, CustomStringConvertible {
    /// The dotted name.
    public let name: String

    /// Checks `name` against the rules above; throws ``CastnetError`` with code `invalidTopic`.
    public init(_ name: String) throws {
        if let fault = Topic.fault(in: name, wildcards: false) {
            throw CastnetError(.invalidTopic, "topic \(quoted(name)): \(fault)")
        }
        self.name = name
    }

    /// A topic whose name is known to be valid (decoded from a checked source, or a literal in tests).
    package init(unchecked name: String) { self.name = name }

    /// The dotted name.
    public var description: String { name }

    /// What is wrong with `name`, or nil when it is a valid topic (or pattern, with `wildcards`).
    package static func fault(in name: String, wildcards: Bool) -> String? {
        if isPlain(name) { return nil }
        let bytes = name.utf8
        if bytes.isEmpty { return "is empty; a topic has 1 to 8 segments joined by dots" }
        if bytes.count > 255 { return "has \(bytes.count) bytes; at most 255 are allowed" }
        let segments = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        if segments.count > 8 { return "has \(segments.count) segments; at most 8 are allowed" }
        for segment in segments {
            if segment.isEmpty { return "has an empty segment" }
            let text = String(decoding: segment, as: UTF8.self)
            if wildcards, text == "*" || text == "**" { continue }
            if segment.count > 63 { return "has a segment of \(segment.count) bytes; at most 63 are allowed" }
            if let byte = segment.first(where: { !isAllowed($0) }) {
                return "has \(described(byte)) in segment \(quoted(text)); allowed are A-Z a-z 0-9 _ -"
            }
        }
        return nil
    }

    /// True for a valid topic: found in one pass, as every message that arrives names one.
    private static func isPlain(_ name: String) -> Bool {
        var (length, segments, total) = (0, 1, 0)
        for byte in name.utf8 {
            total += 1
            if byte == UInt8(ascii: ".") {
                if length == 0 { return false }
                (length, segments) = (0, segments + 1)
            } else {
                length += 1
                if length > 63 || !isAllowed(byte) { return false }
            }
        }
        return length > 0 && segments <= 8 && total <= 255
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    private static func described(_ byte: UInt8) -> String {
        (0x21...0x7E).contains(byte) ? "“\(Character(UnicodeScalar(byte)))”" : "byte \(byte)"
    }
}

/// `text` in quotation marks, cut so that hostile or huge input cannot flood a log or an error.
package func quoted(_ text: String) -> String {
    text.utf8.count <= 80 ? "“\(text)”" : "“\(text.prefix(64))…” (\(text.utf8.count) bytes)"
}
