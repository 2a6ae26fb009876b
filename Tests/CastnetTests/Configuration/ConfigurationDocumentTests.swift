import Castnet
import Foundation
import Testing

/// docs/policies.md stays true: its examples parse, and it lists every key as the program knows it.
@Suite("docs/policies.md")
struct ConfigurationDocumentTests {
    private static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../../docs/policies.md").path

    /// The document's ```yaml blocks, with the line each begins at.
    private static func examples() throws -> [(line: Int, text: String)] {
        var (examples, current) = ([(line: Int, text: String)](), nil as (line: Int, text: String)?)
        let text = try String(contentsOfFile: path, encoding: .utf8)
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            if line == "```yaml" {
                current = (index + 2, "")
            } else if line == "```", let example = current {
                examples.append(example)
                current = nil
            } else if current != nil {
                current?.text += line + "\n"
            }
        }
        return examples
    }

    @Test("its examples parse without warnings")
    func examplesParse() throws {
        let examples = try Self.examples()
        #expect(examples.count >= 4)
        for example in examples {
            let report = Configuration.parse(
                example.text, file: "line \(example.line)", environment: ["HOSTNAME": "host-1"])
            #expect(
                report.problems.isEmpty && report.warnings.isEmpty, "\(report.problems) \(report.warnings)")
        }
    }

    @Test("lists every key with its default, what is allowed and what it is for")
    func keys() throws {
        let lines = Set(
            try String(contentsOfFile: Self.path, encoding: .utf8).split(separator: "\n").map(String.init))
        for key in ConfigurationKey.all {
            #expect(lines.contains(Self.row(key)), "missing or different: \(Self.row(key))")
        }
    }

    static func row(_ key: ConfigurationKey) -> String {
        func cell(_ text: String) -> String { text.replacingOccurrences(of: "|", with: "\\|") }
        return "| `\(key.name)` | \(cell(key.standard)) | \(cell(key.allowed)) | \(cell(key.meaning)) |"
    }
}
