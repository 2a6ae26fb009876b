import Foundation
import Glibc

/// A condition that did not come true in time.
struct TimedOut: Error, CustomStringConvertible {
    var description: String
}

enum Wait {
    /// Looks every millisecond until `condition` is true.
    static func until(_ what: String, seconds: Int = 20, _ condition: () throws -> Bool) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while try !condition() {
            guard ContinuousClock.now < end else { throw TimedOut(description: "never: \(what)") }
            poll(nil, 0, 1)
        }
    }

    /// The same on a thread of its own; false: it never came true.
    static func eventually(_ seconds: Int = 20, _ condition: @escaping @Sendable () -> Bool) async -> Bool {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                let came: Void? = try? until("", seconds: seconds, condition)
                continuation.resume(returning: came != nil)
            }
        }
    }
}
