/// A JSON value that grows while it is encoded; keys keep the order in which they came.
final class JSONTree {
    enum Content {
        case null
        case bool(Bool)
        case number(String)
        case string(String)
        case array([JSONTree])
        case object([(key: String, value: JSONTree)])
    }
    var content: Content

    init(_ content: Content = .null) { self.content = content }

    func write(to text: inout String) {
        switch content {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .number(let value): text += value
        case .string(let value): Self.write(value, to: &text)
        case .array(let items):
            text += "["
            for (index, item) in items.enumerated() {
                if index > 0 { text += "," }
                item.write(to: &text)
            }
            text += "]"
        case .object(let pairs):
            text += "{"
            for (index, pair) in pairs.enumerated() {
                if index > 0 { text += "," }
                Self.write(pair.key, to: &text)
                text += ":"
                pair.value.write(to: &text)
            }
            text += "}"
        }
    }

    private static func write(_ string: String, to text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case "\u{0}"..<"\u{20}", "\u{7F}", "\u{2028}", "\u{2029}":
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }

    func append(_ item: JSONTree) {
        if case .array(var items) = content {
            content = .null  // so that the array below is the only owner and grows in place
            items.append(item)
            content = .array(items)
        }
    }

    func set(_ key: String, _ value: JSONTree) {
        if case .object(var pairs) = content {
            content = .null
            if let index = pairs.firstIndex(where: { $0.key == key }) {
                pairs[index].value = value
            } else {
                pairs.append((key, value))
            }
            content = .object(pairs)
        }
    }

    var count: Int {
        if case .array(let items) = content { items.count } else { 0 }
    }
}

/// Encodes into a ``JSONTree``.
struct LineEncoder: Encoder {
    let tree: JSONTree
    let codingPath: [any CodingKey]
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    init(tree: JSONTree = JSONTree(), codingPath: [any CodingKey] = []) {
        self.tree = tree
        self.codingPath = codingPath
    }

    func container<Key: CodingKey>(keyedBy type: Key.Type) -> KeyedEncodingContainer<Key> {
        if case .object = tree.content {} else { tree.content = .object([]) }
        return KeyedEncodingContainer(ObjectContainer(tree: tree, codingPath: codingPath))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if case .array = tree.content {} else { tree.content = .array([]) }
        return ArrayContainer(tree: tree, codingPath: codingPath)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer {
        ScalarContainer(tree: tree, codingPath: codingPath)
    }

    static func encoded(_ value: some Encodable, _ path: [any CodingKey]) throws -> JSONTree {
        switch value {
        case let value as Bool: return JSONTree(.bool(value))
        case let value as String: return JSONTree(.string(value))
        case let value as Double: return number(value)
        case let value as Float: return number(Double(value))
        case let value as any BinaryInteger: return JSONTree(.number("\(value)"))
        default:
            let encoder = LineEncoder(codingPath: path)
            try value.encode(to: encoder)
            return encoder.tree
        }
    }

    private static func number(_ value: Double) -> JSONTree {
        guard value.isFinite else { return JSONTree() }
        let whole = value.rounded() == value && value.magnitude < 1e15
        return JSONTree(.number(whole ? "\(Int64(value))" : "\(value)"))
    }
}

private struct ObjectContainer<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let tree: JSONTree
    let codingPath: [any CodingKey]

    mutating func encodeNil(forKey key: Key) throws { tree.set(key.stringValue, JSONTree()) }

    mutating func encode(_ value: some Encodable, forKey key: Key) throws {
        tree.set(key.stringValue, try LineEncoder.encoded(value, codingPath + [key]))
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy keyType: Nested.Type, forKey key: Key
    ) -> KeyedEncodingContainer<Nested> {
        child(key).container(keyedBy: keyType)
    }

    mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
        child(key).unkeyedContainer()
    }

    mutating func superEncoder() -> any Encoder { child(SuperKey()) }

    mutating func superEncoder(forKey key: Key) -> any Encoder { child(key) }

    private func child(_ key: any CodingKey) -> LineEncoder {
        let child = JSONTree()
        tree.set(key.stringValue, child)
        return LineEncoder(tree: child, codingPath: codingPath + [key])
    }
}

private struct SuperKey: CodingKey {
    var stringValue: String { "super" }
    var intValue: Int? { nil }
    init() {}
    init?(stringValue: String) { nil }
    init?(intValue: Int) { nil }
}

private struct ArrayContainer: UnkeyedEncodingContainer {
    let tree: JSONTree
    let codingPath: [any CodingKey]
    var count: Int { tree.count }

    mutating func encodeNil() throws { tree.append(JSONTree()) }

    mutating func encode(_ value: some Encodable) throws {
        tree.append(try LineEncoder.encoded(value, codingPath))
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy keyType: Nested.Type
    ) -> KeyedEncodingContainer<Nested> {
        child().container(keyedBy: keyType)
    }

    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer { child().unkeyedContainer() }

    mutating func superEncoder() -> any Encoder { child() }

    private func child() -> LineEncoder {
        let child = JSONTree()
        tree.append(child)
        return LineEncoder(tree: child, codingPath: codingPath)
    }
}

private struct ScalarContainer: SingleValueEncodingContainer {
    let tree: JSONTree
    let codingPath: [any CodingKey]

    mutating func encodeNil() throws { tree.content = .null }

    mutating func encode(_ value: some Encodable) throws {
        tree.content = try LineEncoder.encoded(value, codingPath).content
    }
}
