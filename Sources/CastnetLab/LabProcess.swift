internal import Glibc
internal import Subprocess
internal import Synchronization
internal import SystemPackage

/// A program that runs beside the test or demo that started it, with its output collected line by line.
///
/// Its standard input is at its end from the start. Lines are kept up to ``linesMax`` and ``bytesMax`` for
/// each stream; then the oldest go, and ``linesDropped`` counts them. Safe to use from any task. Stop it with
/// ``stop(grace:)``; one forgotten is killed when its last reference goes.
package final class LabProcess: Sendable {
    /// The program's own process: `ip netns exec` turns into it.
    package let pid: Int32
    /// Host and command line, for messages.
    package let title: String

    /// Lines kept of each stream.
    package static let linesMax = 200_000
    /// Bytes kept of each stream.
    package static let bytesMax = 64 << 20

    private let record: ProcessRecord

    private init(pid: Int32, title: String, record: ProcessRecord) {
        self.pid = pid
        self.title = title
        self.record = record
    }

    deinit { signal(SIGKILL) }

    /// Starts a program on this machine itself; ``LabHost/spawn(_:_:environment:)`` starts one on a host.
    package static func spawn(
        _ tool: String, _ arguments: [String], environment: [String: String] = [:], title: String? = nil
    ) async throws -> LabProcess {
        let title = title ?? ([tool] + arguments).joined(separator: " ")
        guard let path = Tool.path(of: tool) else { throw LabError.toolMissing(tool) }
        let record = ProcessRecord()
        let pid = try await withCheckedThrowingContinuation {
            (started: CheckedContinuation<Int32, any Error>) in
            Task {
                var hasStarted = false
                do {
                    let result = try await Subprocess.run(
                        .path(FilePath(path)), arguments: Arguments(arguments),
                        environment: .inheriting(environment), input: .none, output: .sequence,
                        error: .sequence
                    ) { execution in
                        hasStarted = true
                        started.resume(returning: execution.processIdentifier.value)
                        async let output: Void = record.collect(execution.standardOutput, .output)
                        async let errors: Void = record.collect(execution.standardError, .errors)
                        _ = await (output, errors)
                    }
                    record.end(LabExit(result.terminationStatus))
                } catch {
                    if !hasStarted { started.resume(throwing: error) }
                    record.end(.killed(signal: SIGKILL))
                }
            }
        }
        return LabProcess(pid: pid, title: title, record: record)
    }

    // MARK: Output

    /// Standard output from the first line on, as it comes; ends with the program.
    package var lines: Lines { Lines(record: record, stream: .output) }

    /// Standard output so far.
    package var output: [String] { record.lines(.output) }
    /// Standard error so far.
    package var errors: [String] { record.lines(.errors) }
    /// Lines that were forgotten because a stream passed its bounds.
    package var linesDropped: Int { record.linesDropped }

    /// The first line of standard output, from the start, that `matches`; waits for it.
    ///
    /// The error says what was printed instead.
    package func line(
        upTo limit: Duration, where matches: @escaping @Sendable (String) -> Bool = { _ in true }
    ) async throws -> String {
        let deadline = ContinuousClock.now + limit
        var position = 0
        while true {
            switch try await record.next(.output, from: &position, until: deadline) {
            case .line(let line): if matches(line) { return line }
            case .ended: throw LabError.notFound("`\(title)` ended without the line awaited\n\(report)")
            case .timedOut:
                throw LabError.timedOut("`\(title)` did not print the line awaited in \(limit)\n\(report)")
            }
        }
    }

    /// The end of both streams, for messages of failed tests.
    package var report: String {
        let streams = [("stdout", output), ("stderr", errors)]
        return streams.flatMap { name, lines in lines.suffix(40).map { "  \(name): \($0)" } }
            .joined(separator: "\n")
    }

    // MARK: Ending

    /// How it ended, or nil while it runs.
    package var exit: LabExit? { record.exit }

    /// Sends a signal; nothing happens once the program has ended.
    package func signal(_ number: Int32) {
        if record.exit == nil { kill(pid, number) }
    }

    /// Waits for the end.
    @discardableResult
    package func wait(upTo limit: Duration) async throws -> LabExit {
        if let exit = try await record.waitForExit(until: .now + limit) { return exit }
        throw LabError.timedOut("`\(title)` still runs after \(limit)\n\(report)")
    }

    /// Asks it to end (SIGTERM), and kills it if it has not within `grace`.
    @discardableResult
    package func stop(grace: Duration = .seconds(5)) async throws -> LabExit {
        signal(SIGTERM)
        if let exit = try await record.waitForExit(until: .now + grace) { return exit }
        signal(SIGKILL)
        return try await wait(upTo: .seconds(10))
    }

    /// Lines of one stream as they come.
    package struct Lines: AsyncSequence {
        package typealias Element = String
        package typealias Failure = Never

        fileprivate let record: ProcessRecord
        fileprivate let stream: ProcessRecord.Stream

        package func makeAsyncIterator() -> Iterator { Iterator(lines: self) }

        package struct Iterator: AsyncIteratorProtocol {
            fileprivate let lines: Lines
            fileprivate var position = 0

            /// The next line; nil at the end of the program's output or when the task is cancelled.
            package mutating func next() async -> String? {
                let step = try? await lines.record.next(lines.stream, from: &position, until: nil)
                if case .line(let line) = step { return line }
                return nil
            }
        }
    }
}
