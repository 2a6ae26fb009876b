import Foundation

/// How much longer than on an idle machine a test may wait for what has a time limit: 1, unless
/// `CASTNET_TEST_PATIENCE` names another whole number (sanitizers run everything ten times slower).
package enum Patience {
    package static let factor: Int = {
        let text = ProcessInfo.processInfo.environment["CASTNET_TEST_PATIENCE"]
        return text.flatMap(Int.init).map { min(max($0, 1), 100) } ?? 1
    }()
}
