/// A JSON object whose keys are known only at run time, in the order given.
struct OrderedObject<Value: Encodable>: Encodable {
    var pairs: [(key: String, value: Value)]

    init(_ pairs: [(String, Value)]) { self.pairs = pairs.map { (key: $0.0, value: $0.1) } }

    private struct Key: CodingKey {
        var stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    func encode(to encoder: any Encoder) throws {
        var keys = encoder.container(keyedBy: Key.self)
        for pair in pairs { try keys.encode(pair.value, forKey: Key(stringValue: pair.key)) }
    }
}
