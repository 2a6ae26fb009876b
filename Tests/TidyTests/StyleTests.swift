import Foundation
import Testing

/// How the code reads. The formatter checks the rest (`swift format lint --strict`).
@Suite("Style")
struct StyleTests {
    static let lineLengthMax = 110
    /// C spells out more and has no formatter here.
    static let lineLengthMaxInC = 120
    /// A long screen; a switch over all states of a machine is what comes near.
    static let functionLinesMax = 90
    static let fileLinesMax = 600

    @Test("lines fit the page")
    func lineLength() {
        for file in Repository.code {
            let isC = file.path.hasSuffix(".c") || file.path.hasSuffix(".h")
            let most = isC ? Self.lineLengthMaxInC : Self.lineLengthMax
            // The preprocessor takes the text of an error from one line only.
            for line in file.lines where line.text.count > most && !line.text.hasPrefix("#error") {
                Issue.record("\(file):\(line.number): \(line.text.count) columns")
            }
        }
    }

    @Test("files stay readable in one sitting")
    func fileLength() {
        for file in Repository.code where file.lines.count > Self.fileLinesMax {
            Issue.record("\(file) has \(file.lines.count) lines: what second idea hides in it?")
        }
    }

    /// From `func` or `init` to the brace that closes it, which the formatter puts under its first letter.
    @Test("functions fit a screen or nearly so")
    func functionLength() {
        let start = #/^(?<indent>\ *)(?:[\w@()]+\ )*(?:func\ |init[?(<])/#
        var worst = (lines: 0, place: "")
        for file in Repository.swift + Repository.examples {
            let lines = file.lines
            for line in lines {
                guard let match = line.text.firstMatch(of: start) else { continue }
                let closing = "\(match.output.indent)}"
                // A requirement of a protocol or a one-line body closes on its own line or not at all.
                guard !line.text.hasSuffix("}"),
                    let open = lines[(line.number - 1)...].prefix(8).first(where: { $0.text.hasSuffix("{") }),
                    let end = lines[(open.number - 1)...].first(where: { $0.text == closing })
                else { continue }
                let count = end.number - line.number + 1
                if count > worst.lines { worst = (count, "\(file):\(line.number)") }
                #expect(count <= Self.functionLinesMax, "\(file):\(line.number): \(count) lines")
            }
        }
        print("longest function: \(worst.lines) lines, \(worst.place)")
    }

    @Test("types are not named after nothing in particular")
    func bannedNames() {
        let banned =
            #/\b(?:struct|class|enum|actor|protocol|typealias)\s+(?<name>\w*(?:Manager|Helper|Util)\w*)/#
        for file in Repository.swift + Repository.examples {
            for match in file.text.matches(of: banned) {
                Issue.record("\(file): \(match.output.name)")
            }
            let isVague = ["Manager", "Helper", "Util"].contains { file.path.contains($0) }
            #expect(!isVague, "\(file)")
        }
    }

    /// Put together here so that this file does not hold them.
    private static let machinePaths = ["work/wt", "work/shared", "work/main", "home/", "root/"].map {
        "/" + $0
    }
    private static let allowedHosts = [
        "github.com", "swift.org", "www.swift.org", "download.swift.org", "127.0.0.1", "localhost",
        "swiftpackageindex.com",
    ]

    @Test("nothing names the machine it was written on")
    func machinePaths() {
        let manifest = Repository.files(endings: ["/Package.swift"])
        for file in Repository.code + manifest + Repository.documents {
            for line in file.lines {
                for path in Self.machinePaths where line.text.contains(path) {
                    Issue.record("\(file):\(line.number): \(path)")
                }
            }
        }
        // What is fetched comes from where everybody fetches it.
        for file in manifest + Repository.scripts {
            for match in file.text.matches(of: #/https?://(?<host>[A-Za-z0-9.-]+)/#) {
                let host = String(match.output.host)
                #expect(Self.allowedHosts.contains(host), "\(file): \(host)")
            }
        }
    }

    @Test("work put off names its issue")
    func postponed() {
        let words = ["TO" + "DO", "FIX" + "ME", "XX" + "X:"]
        for file in Repository.code {
            for line in file.lines where words.contains(where: { line.text.contains($0) }) {
                #expect(line.text.contains(#/#\d+/#), "\(file):\(line.number): \(line.text)")
            }
        }
    }

    @Test("tests wait for conditions, they do not sleep")
    func sleeps() {
        let words = ["Task.sl" + "eep(", "usl" + "eep(", "Thread.sl" + "eep("]
        for file in Repository.swift where file.path.hasPrefix("Tests/") {
            for line in file.lines where words.contains(where: { line.text.contains($0) }) {
                // Between two looks at a condition a test may rest for a few milliseconds.
                let isPolling = line.text.contains(#/for: \.milliseconds\(\d\)/#)
                #expect(isPolling, "\(file):\(line.number): \(line.text)")
            }
        }
    }

    @Test("shell scripts parse", arguments: Repository.scripts)
    func scripts(file: Repository.File) throws {
        let bash = Process()
        bash.executableURL = URL(fileURLWithPath: "/bin/bash")
        bash.arguments = ["-n", Repository.root.appendingPathComponent(file.path).path]
        try bash.run()
        bash.waitUntilExit()
        #expect(bash.terminationStatus == 0)
        #expect(file.text.hasPrefix("#!") || file.path.hasSuffix("lib.sh"))
    }
}
