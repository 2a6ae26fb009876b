import Castnet
import Foundation
import Testing

/// Every file under Fixtures/broken has a sibling `.expected` with one line for each problem, in order:
/// `line:column: key: what was found`.
@Suite("Broken configurations")
struct ConfigurationBrokenTests {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent()
        .appendingPathComponent("Fixtures/broken")

    static let names: [String] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.filter { $0.hasSuffix(".yaml") }.map { String($0.dropLast(5)) }.sorted()
    }()

    @Test("there are enough of them")
    func count() { #expect(Self.names.count >= 40) }

    @Test("name every error with its place", arguments: names)
    func problems(name: String) throws {
        let path = Self.folder.appendingPathComponent("\(name).yaml").path
        let expected = try String(
            contentsOf: Self.folder.appendingPathComponent("\(name).expected"), encoding: .utf8)
        let report = Configuration.read(path: path, environment: [:])
        #expect(report.configuration == nil)
        let found = report.problems.map { problem in
            "\(problem.line):\(problem.column): " + (problem.key.isEmpty ? "" : "\(problem.key): ")
                + problem.found
        }
        #expect(found == expected.split(separator: "\n").map(String.init))
        for problem in report.problems {
            #expect(
                problem.file == path && problem.line > 0 && problem.column > 0 && !problem.allowed.isEmpty)
            #expect("\(problem)".hasPrefix("\(path):\(problem.line):\(problem.column): "))
        }
    }

    @Test("are one error with every problem in it")
    func loadThrows() throws {
        let path = Self.folder.appendingPathComponent("many-errors.yaml").path
        let error = try #require(throws: CastnetError.self) {
            try Configuration.load(path: path, environment: [:])
        }
        #expect(error.code == .invalidConfiguration)
        #expect(error.message.split(separator: "\n").count == 14)
    }

    @Test("may be files that are no files")
    func unreadable() {
        #expect(
            Configuration.read(path: "/nowhere/castnet.yaml").problems.map(\.found) == [
                "there is no such file"
            ])
        #expect(Configuration.read(path: "/tmp").problems.map(\.found) == ["a directory"])
        #expect(
            Configuration.read(path: "/dev/zero").problems.first?.found.hasPrefix("the file has more") == true
        )
    }

    @Test("may be any bytes: never a trap, always a place", arguments: UInt64(1)...60)
    func mutations(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let path = Self.folder.appendingPathComponent("../good/fleet.yaml").path
        let original = Array(try String(contentsOfFile: path, encoding: .utf8).utf8)
        let letters = Array("{}[]:,-&*!|>'\"%@`#? \n\t$~<0a\u{e9}".utf8)
        for _ in 0..<10 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes.remove(at: place)
                case 1: bytes.insert(letters.randomElement(using: &random) ?? 0, at: place)
                case 2: bytes[place] = letters.randomElement(using: &random) ?? 0
                default:
                    let end = min(bytes.count, place + Int.random(in: 1...40, using: &random))
                    bytes.insert(
                        contentsOf: bytes[place..<end], at: Int.random(in: 0..<bytes.count, using: &random))
                }
            }
            let report = Configuration.parse(String(decoding: bytes, as: UTF8.self), file: "mutated")
            #expect((report.configuration == nil) == !report.problems.isEmpty, "seed \(seed)")
            #expect(report.problems.allSatisfy { $0.line > 0 && $0.column > 0 }, "seed \(seed)")
        }
    }
}
