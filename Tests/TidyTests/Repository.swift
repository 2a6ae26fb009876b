import Foundation

/// The files of this repository that people write.
struct Repository {
    static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    struct File: CustomStringConvertible {
        /// Relative to the root.
        let path: String
        let text: String

        var description: String { path }
        var name: String { (path as NSString).lastPathComponent }

        /// Lines with their numbers, from 1.
        var lines: [(number: Int, text: Substring)] {
            text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
                .map { ($0.offset + 1, $0.element) }
        }
    }

    /// Every text file below `folder` whose name ends so; build products and hidden folders are left out.
    static func files(in folder: String = "", endings: [String]) -> [File] {
        let start = folder.isEmpty ? root : root.appendingPathComponent(folder)
        let walk = FileManager.default.enumerator(
            at: start, includingPropertiesForKeys: nil, options: [.skipsHiddenFiles])
        var files: [File] = []
        while let url = walk?.nextObject() as? URL {
            guard endings.contains(where: { url.path.hasSuffix($0) }),
                let text = try? String(contentsOf: url, encoding: .utf8)
            else { continue }
            files.append(File(path: String(url.path.dropFirst(root.path.count + 1)), text: text))
        }
        return files.sorted { $0.path < $1.path }
    }

    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: root.appendingPathComponent(path).path)
    }

    static let swift = files(in: "Sources", endings: [".swift"]) + files(in: "Tests", endings: [".swift"])
    static let examples = files(in: "Examples", endings: [".swift"])
    static let c = files(in: "Sources", endings: [".c", ".h"])
    static let scripts =
        files(endings: [".sh"])
        + [".ci/run"].compactMap { path in
            (try? String(contentsOf: root.appendingPathComponent(path), encoding: .utf8))
                .map { File(path: path, text: $0) }
        }
    static let documents = files(in: "docs", endings: [".md"])
    static let code = swift + examples + c + scripts
}
