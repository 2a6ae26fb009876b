internal import Castnet
internal import Foundation

/// A node's snapshot for people.
struct StatusPage {
    private let snapshot: NodeSnapshot

    /// More links are only counted: a screen has so many lines.
    private static let linksMax = 20

    init(_ snapshot: NodeSnapshot) { self.snapshot = snapshot }

    var text: String {
        let uptime = Duration.seconds(Int64(snapshot.uptime)).description
        let head = "\(snapshot.node)#\(snapshot.incarnation)  \(snapshot.listen ?? "-")  up \(uptime)"
        return [[head], topics, hot, channels, links, limits, counters].filter { !$0.isEmpty }
            .map { $0.joined(separator: "\n") }.joined(separator: "\n\n")
    }

    private var topics: [String] {
        table(
            ["TOPIC", "SERVER", "WAITING"],
            snapshot.topics.map { [$0.topic, $0.server ?? "-", "\($0.waiting)"] })
    }

    private var hot: [String] {
        table(
            ["HOT TOPIC", "A MINUTE", "CARRIER"],
            snapshot.hot.map { [$0.topic, "\($0.perMinute)", $0.isPromoted ? "persistent" : "ephemeral"] })
    }

    private var channels: [String] {
        table(
            ["CHANNEL", "INTERFACE", "MTU", "WINDOW", "STREAM"],
            snapshot.channels.map { [$0.name, $0.interface, "\($0.mtu)", "\($0.window)", $0.stream] })
    }

    private var links: [String] {
        let shown = snapshot.links.prefix(Self.linksMax).map { link in
            [
                link.peer.isEmpty ? "-" : link.peer, link.address, link.carrier, link.topic ?? "-",
                link.isDialled ? "out" : "in", link.isOpen ? "open" : "opening", "\(link.outstanding)",
            ]
        }
        let more = snapshot.links.count - shown.count
        let lines = table(["LINK", "ADDRESS", "CARRIER", "TOPIC", "WAY", "STATE", "WAITING"], shown)
        return more > 0 ? lines + ["and \(more) more"] : lines
    }

    private var limits: [String] {
        table(
            ["LIMIT", "USED", "MAX", "HIT"],
            snapshot.limits.map { [$0.name, $0.used.map { "\($0)" } ?? "-", "\($0.max)", "\($0.hit)"] })
    }

    private var counters: [String] {
        let active = snapshot.activeCounters.sorted { $0.key < $1.key }
        return table(["COUNTER", "VALUE"], active.map { [$0.key, "\($0.value)"] })
    }

    /// Columns as wide as their widest entry; nothing where there are no rows.
    private func table(_ head: [String], _ rows: [[String]]) -> [String] {
        if rows.isEmpty { return [] }
        let widths = head.indices.map { column in
            ([head] + rows).map { $0[column].count }.max() ?? 0
        }
        return ([head] + rows).map { row in
            zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
                .joined(separator: "  ").trimmingCharacters(in: .whitespaces)
        }
    }
}

/// What standard output is.
enum Terminal {
    static var isOutput: Bool { isatty(STDOUT_FILENO) == 1 }
}
