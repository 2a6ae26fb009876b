import CastnetLab
import Foundation
import Testing

/// `castnet lab run` from the outside. These tests run inside a private lab themselves, so a failure of what
/// they test leaves nothing on the machine either.
@Suite("Private lab", privateLabOnly, .timeLimit(.minutes(2)), .serialized)
struct PrivateLabTests {
    private let marker = "\(UInt32.random(in: 1_000_000...9_999_999))"

    @Test("the command's output and exit code are the lab's")
    func exitCode() async throws {
        let lab = try await run(
            ["bash", "-c", "echo $CASTNET_LAB; echo $CASTNET_LAB_HOSTS; exit 42"], hosts: 2)
        #expect(try await lab.wait(upTo: .seconds(30)) == .exited(42))
        try #require(lab.output.count == 2, "\(lab.report)")
        #expect(lab.output[0] == "1")
        struct Host: Decodable, Equatable {
            let host, netns, interface, address: String
        }
        let hosts = try JSONDecoder().decode([Host].self, from: Data(lab.output[1].utf8))
        #expect(
            hosts == [
                Host(host: "h1", netns: "castnet-h1", interface: "eth0", address: "10.77.0.11"),
                Host(host: "h2", netns: "castnet-h2", interface: "eth0", address: "10.77.0.12"),
            ])
        let missing = try await run(["/no/such/program"], hosts: 0)
        #expect(try await missing.wait(upTo: .seconds(30)) == .exited(69))
        #expect(missing.errors.joined().contains("/no/such/program"))
    }

    @Test("SIGKILL of the outermost process leaves no process, namespace, mount or interface")
    func killed() async throws {
        try await expectNothingLeft { lab in
            lab.signal(SIGKILL)
            let exit = try await lab.wait(upTo: .seconds(10))
            #expect(exit == .killed(signal: SIGKILL))
        }
    }

    @Test("SIGKILL of the stage between leaves nothing either")
    func killedBetween() async throws {
        try await expectNothingLeft { lab in
            let children = Self.processes().filter { $0.parent == lab.pid }
            try #require(children.count == 1)
            kill(children[0].pid, SIGKILL)
            let exit = try await lab.wait(upTo: .seconds(10))
            #expect(exit == .exited(128 + SIGKILL))
        }
    }

    @Test("signals reach the command, which may end cleanly", arguments: [SIGTERM, SIGINT, SIGHUP])
    func signalled(number: Int32) async throws {
        let script = "trap 'echo asked; exit 3' TERM INT HUP; echo up; sleep 1000 & wait"
        let lab = try await run(["bash", "-c", script], hosts: 1)
        _ = try await lab.line(upTo: .seconds(30)) { $0 == "up" }
        lab.signal(number)
        #expect(try await lab.wait(upTo: .seconds(10)) == .exited(3))
        #expect(lab.output == ["up", "asked"])
    }

    @Test("a program left behind in the background ends with the command")
    func background() async throws {
        let lab = try await run(["bash", "-c", "setsid sleep 1\(marker) >/dev/null 2>&1 & exit 0"], hosts: 1)
        #expect(try await lab.wait(upTo: .seconds(30)) == .exited(0))
        try await eventually("the sleeper is gone") { !Self.runs("sleep 1\(marker)") }
    }

    private func run(_ command: [String], hosts: Int) async throws -> LabProcess {
        try await LabProcess.spawn(
            castnetExecutable, ["lab", "run", "--hosts", "\(hosts)", "--"] + command)
    }

    private func expectNothingLeft(after end: (LabProcess) async throws -> Void) async throws {
        let before = try await machine()
        let lab = try await run(["bash", "-c", "echo up; sleep 1\(marker)"], hosts: 3)
        _ = try await lab.line(upTo: .seconds(30)) { $0 == "up" }
        try await eventually("the command runs") {
            Self.processes().contains { $0.command.hasPrefix("sleep 1\(marker)") }
        }
        let sleeper = try #require(Self.processes().first { $0.command.hasPrefix("sleep 1\(marker)") })
        let network = try #require(Self.network(of: sleeper.pid))
        #expect(try await machine() == before, "a private lab shows outside")
        try await end(lab)
        try await eventually("every process of the lab is gone") {
            !Self.runs(marker)
        }
        #expect(try await machine() == before)
        #expect(!Self.processes().contains { Self.network(of: $0.pid) == network })
    }

    /// Names of namespaces, mounts and interfaces as this side sees them, without those of labs that other
    /// tests of this process have up meanwhile.
    private func machine() async throws -> [String] {
        var parts = [try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)]
        for arguments in [["netns", "list"], ["-br", "link"]] {
            let process = try await LabProcess.spawn("ip", arguments)
            try await process.wait(upTo: .seconds(10))
            parts.append(process.output.sorted().joined(separator: "\n"))
        }
        return parts.flatMap { $0.split(separator: "\n").map(String.init) }
            .filter { !$0.contains("cast\(getpid())x") }
    }

    private static func runs(_ text: String) -> Bool { processes().contains { $0.command.contains(text) } }

    private static func processes() -> [(pid: Int32, parent: Int32, command: String)] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap(Int32.init).compactMap { pid in
            guard let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline"),
                let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let fields = stat.split(separator: ")").last?.split(separator: " "), fields.count > 1,
                fields[0] != "Z", let parent = Int32(fields[1])
            else { return nil }
            let command = String(decoding: line.map { $0 == 0 ? 0x20 : $0 }, as: UTF8.self)
            return (pid, parent, command)
        }
    }

    /// The network namespace a process lives in, as the kernel numbers them.
    private static func network(of pid: Int32) -> String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/net")
    }
}
