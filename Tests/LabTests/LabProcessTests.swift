import CastnetLab
import Foundation
import Testing

@Suite("Programs of a lab", .timeLimit(.minutes(1)))
struct LabProcessTests {
    @Test("lines come as they are printed, in both streams, to the last one")
    func lines() async throws {
        let process = try await LabProcess.spawn(
            "bash", ["-c", "for i in {1..2000}; do echo $i; done; echo oops >&2; printf unfinished; exit 3"])
        var seen: [String] = []
        for await line in process.lines { seen.append(line) }
        #expect(seen == (1...2000).map { "\($0)" } + ["unfinished"])
        #expect(try await process.wait(upTo: .seconds(10)) == .exited(3))
        #expect(process.errors == ["oops"])
        #expect(process.linesDropped == 0)
    }

    @Test("waiting for a line ends with the line, the program's end or the limit")
    func awaitedLine() async throws {
        let process = try await LabProcess.spawn("bash", ["-c", "echo one; echo two; sleep 1000 & wait"])
        #expect(try await process.line(upTo: .seconds(10)) { $0.hasPrefix("t") } == "two")
        await #expect(throws: LabError.self) {
            try await process.line(upTo: .milliseconds(50)) { $0 == "three" }
        }
        await #expect(throws: LabError.self) { try await process.wait(upTo: .milliseconds(50)) }
        #expect(process.exit == nil)
        process.signal(SIGKILL)
        #expect(try await process.wait(upTo: .seconds(10)) == .killed(signal: SIGKILL))
    }

    @Test("stop asks first and kills a program that does not listen")
    func stop() async throws {
        let polite = try await LabProcess.spawn("sleep", ["1000"])
        #expect(try await polite.stop() == .killed(signal: SIGTERM))
        let deaf = try await LabProcess.spawn(
            "bash", ["-c", "trap '' TERM; echo up; while :; do read -t 9; done"])
        _ = try await deaf.line(upTo: .seconds(10))
        #expect(try await deaf.stop(grace: .milliseconds(50)) == .killed(signal: SIGKILL))
    }

    @Test("a cancelled wait returns")
    func cancelled() async throws {
        let process = try await LabProcess.spawn("sleep", ["1000"])
        let reader = Task {
            var count = 0
            for await _ in process.lines { count += 1 }
            return count
        }
        let waiter = Task { try await process.wait(upTo: .seconds(600)) }
        reader.cancel()
        waiter.cancel()
        #expect(await reader.value == 0)
        await #expect(throws: CancellationError.self) { try await waiter.value }
        try await process.stop()
    }

    @Test("what cannot be started says so")
    func missing() async throws {
        await #expect(throws: LabError.self) { try await LabProcess.spawn("no-such-program-here", []) }
    }
}
