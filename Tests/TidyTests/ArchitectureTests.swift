import Foundation
import Testing

/// The walls between the targets: who may import whom. A new arrow is a decision, made here.
@Suite("Architecture")
struct ArchitectureTests {
    /// Exact lists: what is not named may not be imported. `Swift` itself is always there.
    static let allowed: [String: Set<String>] = [
        "CastnetCore": ["NIOCore", "DequeModule", "HeapModule"],
        "CastnetMulticast": [
            "CastnetCore", "COpenPGM", "NIOCore", "DequeModule", "Logging", "Synchronization", "Glibc",
        ],
        // hiredis blocks and hands out C memory: it gets a target of its own, so that nothing else does.
        "CastnetRedis": [
            "CastnetCore", "CHiredis", "NIOCore", "Logging", "Synchronization", "Glibc", "Foundation",
        ],
        "Castnet": [
            "CastnetCore", "CastnetMulticast", "CastnetRedis", "NIOCore", "NIOPosix", "DequeModule",
            "Logging", "Metrics",
            "ServiceLifecycle", "Yams", "Synchronization", "Glibc", "Foundation", "NIOHTTP1",
            "NIOFoundationCompat",
        ],
        "CastnetCLI": [
            "Castnet", "CastnetLab", "CDigest", "ArgumentParser", "NIOFoundationCompat", "ServiceLifecycle",
            "NIOCore", "NIOPosix", "NIOHTTP1", "Logging",
            "Synchronization", "Dispatch", "Glibc", "Foundation",
        ],
        "CastnetLab": [
            "Subprocess", "SystemPackage", "Synchronization", "Dispatch", "Glibc", "FoundationEssentials",
        ],
        "CastnetTestKit": [
            "CastnetCore", "Castnet", "NIOCore", "NIOEmbedded", "Logging", "Synchronization", "DequeModule",
            "Foundation",
        ],
    ]

    private static var importLine: Regex<(Substring, module: Substring)> {
        #/
        ^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:(?:public|package|internal|fileprivate|private)\s+)?
        import\s+(?:(?:struct|enum|class|func|var|protocol|typealias)\s+)?(?<module>\w+)
        /#
    }

    @Test("targets import only what the house allows", arguments: allowed.keys.sorted())
    func imports(target: String) throws {
        let allowed = try #require(Self.allowed[target])
        let importLine = Self.importLine
        for file in Repository.swift where file.path.hasPrefix("Sources/\(target)/") {
            for line in file.lines where line.text.contains("import ") {
                guard let match = line.text.firstMatch(of: importLine) else { continue }
                let module = String(match.output.module)
                #expect(
                    allowed.contains(module), "\(file):\(line.number): \(target) must not import \(module)")
            }
        }
    }

    @Test("every target has its walls written down")
    func targets() throws {
        let sources = try FileManager.default.contentsOfDirectory(
            atPath: Repository.root.appendingPathComponent("Sources").path)
        #expect(Set(sources) == Set(Self.allowed.keys).union(["CPGM", "COpenPGM", "CDigest", "CHiredis"]))
    }

    @Test("only the shims see the headers of C libraries")
    func headers() {
        for file in Repository.c where !file.path.hasPrefix("Sources/CPGM/") {
            let isShim = file.path.hasPrefix("Sources/COpenPGM/")
            for line in file.lines where line.text.contains("#include <pgm/") {
                #expect(isShim, "\(file):\(line.number)")
            }
            let isRedisShim = file.path.hasPrefix("Sources/CHiredis/")
            for line in file.lines where line.text.contains("#include <hiredis/") {
                #expect(isRedisShim, "\(file):\(line.number)")
            }
        }
    }

    /// Raw memory and unchecked casts; `withUnsafeBytes` of a value and unsafe continuations are not that.
    private static var rawMemory: Regex<Substring> {
        #/
        Unsafe(?:Mutable)?(?:Raw)?(?:Buffer)?Pointer | OpaquePointer | Unmanaged | unsafeBitCast
        | unsafeDowncast | nonisolated\(unsafe\)
        /#
    }

    /// libpgm's packets and hiredis' answers; both targets are built with strict memory safety.
    private static let islands = ["Sources/CastnetMulticast/", "Sources/CastnetRedis/"]

    @Test("raw memory is touched on the islands around C libraries only")
    func unsafeCode() {
        let rawMemory = Self.rawMemory
        for file in Repository.swift
        where file.path.hasPrefix("Sources/") && !Self.islands.contains(where: file.path.hasPrefix) {
            for line in file.lines where line.text.contains(rawMemory) {
                Issue.record("\(file):\(line.number): \(line.text.trimmingCharacters(in: .whitespaces))")
            }
        }
    }

    @Test("an unchecked Sendable says which thread, loop or lock makes it true")
    func uncheckedSendable() {
        for file in Repository.swift where file.path.hasPrefix("Sources/") {
            let lines = file.lines
            for line in lines where line.text.contains("@unchecked Sendable") {
                let above = lines[..<(line.number - 1)].reversed()
                    .prefix { $0.text.contains("///") || $0.text.contains("@") || $0.text.contains("// ") }
                let words = above.map(\.text).joined(separator: " ").lowercased() + line.text
                let isExplained = ["loop", "lock", "thread", "mutex"].contains { words.contains($0) }
                #expect(isExplained, "\(file):\(line.number): \(line.text)")
            }
        }
    }

    @Test("the top level holds the house and nothing else")
    func topLevel() throws {
        let house: Set = [
            "Package.swift", "Package.resolved", "README.md", "Sources", "Tests", "Examples", "docs",
        ]
        let found = try FileManager.default.contentsOfDirectory(atPath: Repository.root.path)
            .filter { !$0.hasPrefix(".") }
        #expect(Set(found).subtracting(house) == [], "these belong into a room")
        #expect(Repository.exists(".ci/run"))
        #expect(Repository.exists("README.md"))
    }
}
