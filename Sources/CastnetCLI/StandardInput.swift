internal import Foundation

/// Standard input, read on a thread of its own: the read blocks.
enum StandardInput {
    /// The lines as they come; a thousand may wait, then older ones go.
    static func lines() -> AsyncStream<String> {
        AsyncStream(bufferingPolicy: .bufferingOldest(1000)) { continuation in
            Thread {
                while let line = readLine() { continuation.yield(line) }
                continuation.finish()
            }.start()
        }
    }

    /// Everything up to its end.
    static func all() async -> Data {
        await withCheckedContinuation { continuation in
            Thread { continuation.resume(returning: FileHandle.standardInput.readDataToEndOfFile()) }.start()
        }
    }
}
