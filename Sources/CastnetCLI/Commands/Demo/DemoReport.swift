// The properties are JSON keys, which are a contract.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

internal import Foundation

/// A step's verdict as a JSON line.
struct DemoStep: Encodable {
    var event = "step"
    var step: String
    var rule: String
    var carrier: String
    var counts: [String: Int]
    var wire_bytes: Int
    var ok: Bool
    var why: String
}

/// The last line of the demo.
struct DemoSummary: Encodable {
    var event = "summary"
    var steps: Int
    var failed: Int
    var seconds: Double
}

/// What a `serve` or `send` said last: its summary line.
struct DemoReport {
    private let fields: [String: Any]

    init(_ line: String) {
        fields = (try? JSONSerialization.jsonObject(with: Data(line.utf8))) as? [String: Any] ?? [:]
    }

    func number(_ key: String) -> Int { (fields[key] as? NSNumber)?.intValue ?? -1 }

    /// Messages by carrier.
    var carriers: [String: Int] {
        (fields["by_carrier"] as? [String: NSNumber] ?? [:]).mapValues(\.intValue)
    }
}

/// One message as a line of `send --list` or `serve --json` tells of it.
struct DemoLine: Decodable {
    var event: String
    var id: String
    var sha256: String

    static func sent(_ line: String) -> DemoLine? { decode(line, "sent") }
    static func message(_ line: String) -> DemoLine? { decode(line, "message") }

    private static func decode(_ line: String, _ event: String) -> DemoLine? {
        guard line.hasPrefix(#"{"event":"\#(event)""#) else { return nil }
        return try? JSONDecoder().decode(DemoLine.self, from: Data(line.utf8))
    }
}
