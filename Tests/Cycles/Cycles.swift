internal import ArgumentParser
internal import Foundation

/// Does the same thing again and again in one process, with traffic each time, and prints what the process
/// holds after every tenth: one JSON object a line.
@main
struct Cycles: AsyncParsableCommand {
    static let configuration = CommandConfiguration(subcommands: [Nodes.self, Topics.self])
}

/// What this process holds.
struct Held: Encodable {
    let after: Int
    let descriptors: Int
    let threads: Int
    /// Those that are no workers of the system's pools, which start some whenever one of them blocks.
    let ownThreads: Int
    let resident: Int
    /// Multicast groups joined on any interface.
    let groups: Int
    /// The latest of the topics since the line before, in seconds behind `serve`.
    var callableMax: Double?

    private enum CodingKeys: String, CodingKey {
        case after, descriptors, threads, groups
        case ownThreads = "own_threads"
        case resident = "resident_bytes"
        case callableMax = "callable_max_s"
    }

    init(after cycle: Int) throws {
        func entries(_ path: String) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: path)
        }
        after = cycle
        descriptors = try entries("/proc/self/fd").count
        // A worker may end before its name is read.
        let names = try entries("/proc/self/task").compactMap {
            try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)
        }
        threads = names.count
        ownThreads = names.count { !$0.contains("-qos") }
        let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
        // A group's line begins with a tab, its interface's does not.
        groups = try String(contentsOfFile: "/proc/self/net/igmp", encoding: .utf8).split(separator: "\n")
            .count { $0.hasPrefix("\t") }
        resident = (pages.count > 1 ? Int(pages[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }

    func print() throws {
        FileHandle.standardOutput.write(try JSONEncoder().encode(self) + Data("\n".utf8))
    }
}

func expect(_ isTrue: Bool, _ what: String) throws {
    guard isTrue else { throw ValidationError(what) }
}
