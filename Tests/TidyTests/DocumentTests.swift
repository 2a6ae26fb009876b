import Foundation
import Testing

@Suite("Documents")
struct DocumentTests {
    private static let readme = Repository.files(endings: ["/README.md"]).filter { $0.path == "README.md" }

    @Test("a document has one title")
    func titles() {
        for file in Self.readme + Repository.documents {
            var isCode = false
            var titles = 0
            for line in file.lines {
                if line.text.hasPrefix("```") { isCode.toggle() }
                if !isCode, line.text.hasPrefix("# ") { titles += 1 }
            }
            #expect(titles == 1, "\(file) has \(titles) lines that begin with one #")
            #expect(!isCode, "\(file): a code block is not closed")
        }
    }

    @Test("every document can be found from the README or docs/index.md")
    func linked() throws {
        let doors = Self.readme + Repository.documents.filter { $0.path == "docs/index.md" }
        let text = doors.map(\.text).joined()
        for file in Repository.documents where file.path != "docs/index.md" {
            let inDocs = String(file.path.dropFirst("docs/".count))
            let isLinked = text.contains("](\(inDocs)") || text.contains("](\(file.path)")
            #expect(isLinked, "\(file) is linked nowhere")
        }
    }

    @Test("links between documents lead somewhere")
    func links() {
        for file in Self.readme + Repository.documents {
            let folder = (file.path as NSString).deletingLastPathComponent as NSString
            for match in file.text.matches(of: #/\]\((?<target>[^)#\s]+)(?:#[^)]*)?\)/#) {
                let target = String(match.output.target)
                guard !target.contains("://"), !target.hasPrefix("mailto:") else { continue }
                let path = (folder.appendingPathComponent(target) as NSString).standardizingPath
                #expect(Repository.exists(path), "\(file): \(target)")
            }
        }
    }

    @Test("the README's code is the example that is built and run")
    func snippet() throws {
        let readme = try #require(Self.readme.first)
        let block = try #require(readme.text.firstMatch(of: #/```swift\n(?<code>[\s\S]*?)```/#))
        let path = "Examples/ControlPlane/Sources/snippet/main.swift"
        let example = try #require(Repository.examples.first { $0.path == path })
        #expect(example.text == block.output.code, "README.md and \(path) differ")
    }

    @Test("operations explains every counter")
    func counters() throws {
        let source = try #require(Repository.swift.first { $0.path.hasSuffix("Counters/Counter.swift") })
        let manual = try #require(Repository.documents.first { $0.path == "docs/operations.md" })
        let labels = source.text.matches(of: #/"(?<label>[a-z-]+\.[a-z.-]+)",/#).map { $0.output.label }
        #expect(labels.count > 60)
        for label in labels { #expect(manual.text.contains("`\(label)`"), "\(label)") }
    }

    @Test("the changelog says what is new")
    func changelog() throws {
        let file = try #require(Repository.documents.first { $0.path == "docs/changelog.md" })
        let sections = file.text.split(separator: "\n## ").dropFirst()
        let newest = try #require(sections.first, "no section")
        let hasEntry = newest.split(separator: "\n").contains { $0.hasPrefix("* ") || $0.hasPrefix("- ") }
        #expect(hasEntry, "the newest section is empty")
    }

    @Test("decisions are numbered without gaps")
    func decisions() {
        let names = Repository.documents.filter { $0.path.hasPrefix("docs/decisions/") }.map(\.name)
        for (index, name) in names.sorted().enumerated() {
            let digits = String(index + 1)
            let number = String(repeating: "0", count: 4 - digits.count) + digits
            #expect(name.hasPrefix("\(number)-"), "\(name)")
        }
    }
}
