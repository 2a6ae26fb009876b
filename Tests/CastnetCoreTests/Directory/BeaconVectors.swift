import CastnetCore
import Foundation
import NIOCore
import Testing

/// Beacons with their exact bytes.
enum BeaconVectors {
    struct Vector: Sendable, CustomTestStringConvertible {
        var name: String
        var beacon: Beacon
        var hex: String
        var testDescription: String { name }
    }

    static let sender = NodeIdentity(name: "api-1", incarnation: Incarnation(0x0198_0000_0001_2345))

    static let record = NodeRecord(
        identity: sender, version: 7, cluster: "demo", instance: "blue",
        addresses: [HostPort(host: "10.77.0.11", port: 7400), HostPort(host: "fd00::11", port: 7400)],
        unixPath: "@castnet-api-1", hostID: 0x1122_3344_5566_7788,
        services: [
            .init(topic: Topic(unchecked: "scheduler"), server: "api-1"),
            .init(topic: Topic(unchecked: "agents.l2"), server: "agent"),
        ],
        subscriptions: [TopicPattern(unchecked: "agents.**")],
        channels: [.init(name: "agents", digest: 0xA1, streamID: 0xB2, mtu: 1500, joined: true)])

    static func beacon(_ body: Beacon.Body) -> Beacon {
        Beacon(
            cluster: Beacon.digest(ofCluster: "demo"), sender: sender, recordVersion: 7,
            interval: .seconds(1), body: body)
    }

    static func large(topics: Int) -> NodeRecord {
        var record = record
        record.services = (0..<topics).map {
            .init(topic: Topic(unchecked: "topic.number.\($0).some-longer-name"), server: "server-\($0 % 7)")
        }
        return record
    }

    static let all: [Vector] = [
        Vector(name: "digest", beacon: beacon(.digest([])), hex: "@digest@"),
        Vector(
            name: "digest with heads",
            beacon: beacon(.digest([.init(stream: 0xB2, next: 1000, oldest: 900)])), hex: "@heads@"),
        Vector(name: "full", beacon: beacon(.record(record)), hex: "@full@"),
        Vector(
            name: "part",
            beacon: beacon(.part(index: 1, count: 3, bytes: ByteBuffer(bytes: [1, 2, 3, 4]))), hex: "@part@"),
        Vector(
            name: "request everyone",
            beacon: beacon(.request(.everyone(except: [Beacon.digest(of: sender, version: 7)]))),
            hex: "@everyone@"),
        Vector(
            name: "request records", beacon: beacon(.request(.records([Beacon.digest(ofName: "api-2")]))),
            hex: "@records@"),
        Vector(
            name: "request life", beacon: beacon(.request(.life([Beacon.digest(ofName: "api-2")]))),
            hex: "@life@"),
        Vector(name: "goodbye", beacon: beacon(.goodbye), hex: "@goodbye@"),
    ]
}

func hex(_ buffer: ByteBuffer) -> String {
    buffer.readableBytesView.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func bytes(_ hex: String) -> ByteBuffer {
    var buffer = ByteBuffer()
    var digits = hex[...]
    while digits.count >= 2 {
        buffer.writeInteger(UInt8(digits.prefix(2), radix: 16) ?? 0)
        digits = digits.dropFirst(2)
    }
    return buffer
}

/// A file of the repository, by its path from the top.
func document(_ path: String, from file: String = #filePath) throws -> String {
    let top = URL(filePath: file).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
    return try String(contentsOf: top.appending(path: path), encoding: .utf8)
}
