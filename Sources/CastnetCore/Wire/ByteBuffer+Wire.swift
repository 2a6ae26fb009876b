package import NIOCore

/// Reading and writing the wire's basic types; every read checks what it reads and throws ``WireError``.
extension ByteBuffer {
    package mutating func read<Integer: FixedWidthInteger>(
        _ type: Integer.Type = Integer.self
    ) throws(WireError) -> Integer {
        guard let value = readInteger(as: type) else { throw .truncated }
        return value
    }

    package mutating func readBytes(_ count: Int) throws(WireError) -> ByteBuffer {
        guard let slice = readSlice(length: count) else { throw .truncated }
        return slice
    }

    /// Text behind an 8-bit length.
    package mutating func readShortText(max: Int = 255) throws(WireError) -> String {
        try readText(length: Int(read(UInt8.self)), max: max)
    }

    /// Text behind a 16-bit length.
    package mutating func readLongText(max: Int) throws(WireError) -> String {
        try readText(length: Int(read(UInt16.self)), max: max)
    }

    private mutating func readText(length: Int, max: Int) throws(WireError) -> String {
        if length == 0 { return "" }
        if length > max { throw .tooLong }
        let bytes = try readBytes(length)
        guard let text = try? UTF8Span(validating: bytes.readableBytesUInt8Span) else { throw .text }
        return String(copying: text)
    }

    /// Cuts a text that is too long, between two characters, so that it stays text.
    package mutating func writeShortText(_ text: String) {
        let bytes = Self.cut(text, max: 255)
        writeInteger(UInt8(bytes.utf8.count))
        if !bytes.isEmpty { writeString(bytes) }
    }

    /// Cuts a text that is too long, between two characters, so that it stays text.
    package mutating func writeLongText(_ text: String, max: Int = Int(UInt16.max)) {
        let bytes = Self.cut(text, max: Swift.min(max, Int(UInt16.max)))
        writeInteger(UInt16(bytes.utf8.count))
        if !bytes.isEmpty { writeString(bytes) }
    }

    private static func cut(_ text: String, max: Int) -> String {
        let bytes = text.utf8
        guard bytes.count > max else { return text }
        var end = bytes.index(bytes.startIndex, offsetBy: max)
        // A byte of the form 10xxxxxx continues a character.
        while end > bytes.startIndex, bytes[end] & 0xC0 == 0x80 { end = bytes.index(before: end) }
        return String(text[..<end])
    }

    package mutating func readTopic() throws(WireError) -> Topic {
        let name = try readShortText()
        guard Topic.fault(in: name, wildcards: false) == nil else { throw .name }
        return Topic(unchecked: name)
    }

    /// An empty text stands for none.
    package mutating func readOptionalText() throws(WireError) -> String? {
        let text = try readShortText()
        return text.isEmpty ? nil : text
    }

    package mutating func readNode() throws(WireError) -> NodeIdentity {
        let name = try readShortText(max: 64)
        guard NodeIdentity.isValid(name: name) else { throw .name }
        return NodeIdentity(name: name, incarnation: Incarnation(try read()))
    }

    /// An empty name stands for none.
    package mutating func readOptionalNode() throws(WireError) -> NodeIdentity? {
        let name = try readShortText(max: 64)
        let incarnation = Incarnation(try read())
        if name.isEmpty { return nil }
        guard NodeIdentity.isValid(name: name) else { throw .name }
        return NodeIdentity(name: name, incarnation: incarnation)
    }

    package mutating func writeNode(_ node: NodeIdentity) {
        writeShortText(node.name)
        writeInteger(node.incarnation.value)
    }

    package mutating func readHeaders() throws(WireError) -> Headers {
        let count = try read(UInt8.self)
        if count == 0 { return Headers() }
        if count > 64 { throw .headers }
        var entries: [Headers.Entry] = []
        for _ in 0..<count {
            entries.append(.init(name: try readShortText(), value: try readLongText(max: 4096)))
        }
        let headers = Headers(entries: entries)
        if headers.fault != nil { throw .headers }
        return headers
    }

    package mutating func writeHeaders(_ headers: Headers) {
        writeInteger(UInt8(headers.entries.count))
        for entry in headers.entries {
            writeShortText(entry.name)
            writeLongText(entry.value)
        }
    }
}

extension OutputRawSpan {
    /// Appends an integer as the wire has it. For what is written for every frame: several fields in one
    /// access to a buffer cost a tenth of as many writes.
    mutating func appendBigEndian(_ value: some FixedWidthInteger & BitwiseCopyable) {
        append(value.bigEndian, as: type(of: value))
    }
}

extension RawSpan {
    /// An integer as the wire has it; the caller has checked the length.
    package func bigEndian<Integer: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Integer.Type
    ) -> Integer {
        Integer(bigEndian: unsafeLoadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension NodeIdentity {
    /// True for 1–64 bytes of printable ASCII without space.
    package static func isValid(name: String) -> Bool {
        (1...64).contains(name.utf8.count) && name.utf8.allSatisfy { (0x21...0x7E).contains($0) }
    }
}
