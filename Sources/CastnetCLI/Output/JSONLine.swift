internal import Foundation
internal import Synchronization

/// One JSON object a line on standard output: keys in the order they were encoded, slashes left alone,
/// numbers that JSON cannot hold (NaN, infinities) as null.
enum JSONLine {
    /// Keeps lines of concurrent tasks whole.
    private static let gate = Mutex(())

    /// Prints `value` as one line, at once.
    static func print(_ value: some Encodable) throws {
        write(try text(value))
    }

    /// `value` as one line of JSON without the line break.
    static func text(_ value: some Encodable) throws -> String {
        let encoder = LineEncoder()
        try value.encode(to: encoder)
        var text = ""
        encoder.tree.write(to: &text)
        return text
    }

    /// Writes one line of text on standard output, at once and whole.
    static func write(_ line: String) {
        gate.withLock { _ in
            FileHandle.standardOutput.write(Data((line + "\n").utf8))
        }
    }
}

/// Messages for people, on standard error, where `--json` allows them too.
enum Diagnostics {
    private static let gate = Mutex(())

    /// Writes one line of text on standard error, at once and whole.
    static func print(_ line: String) {
        gate.withLock { _ in
            FileHandle.standardError.write(Data((line + "\n").utf8))
        }
    }
}
