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

    static let table: [Beacon.Told] = [
        .init(
            record: NodeRecord(
                identity: NodeIdentity(name: "api-2", incarnation: Incarnation(0x0198_0000_0001_2346)),
                version: 3, cluster: "demo", addresses: [HostPort(host: "10.77.0.12", port: 7400)],
                services: [.init(topic: Topic(unchecked: "scheduler"), server: "api-2")]),
            interval: .seconds(1), age: .milliseconds(250)),
        .init(
            record: NodeRecord(
                identity: NodeIdentity(name: "api-3", incarnation: Incarnation(0x0198_0000_0001_2347)),
                version: 9), isWhole: false, interval: .seconds(2), age: .zero),
    ]

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
        Vector(
            name: "digest", beacon: beacon(.digest([])),
            hex:
                "434e4442010100000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d31"),
        Vector(
            name: "digest with heads",
            beacon: beacon(.digest([.init(stream: 0xB2, next: 1000, oldest: 900)])),
            hex:
                "434e4442010100000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d3101001800000000000000b2000000"
                + "00000003e80000000000000384"),
        Vector(
            name: "full", beacon: beacon(.record(record)),
            hex:
                "434e4442010200000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d310464656d6f04626c7565020a3130"
                + "2e37372e302e31311ce808666430303a3a31311ce80e40636173746e65742d6170692d3111223344"
                + "556677880002097363686564756c657200096167656e74732e6c32056167656e740001096167656e"
                + "74732e2a2a01066167656e747300000000000000a100000000000000b205dc01"),
        Vector(
            name: "part",
            beacon: beacon(.part(index: 1, count: 3, bytes: ByteBuffer(bytes: [1, 2, 3, 4]))),
            hex:
                "434e4442010200000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800010003056170692d3101020304"),
        Vector(
            name: "request everyone",
            beacon: beacon(.request(.everyone(except: [Beacon.digest(of: sender, version: 7)]))),
            hex:
                "434e4442010300000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d3100000104626efe6152945c"),
        Vector(
            name: "request records", beacon: beacon(.request(.records([Beacon.digest(ofName: "api-2")]))),
            hex:
                "434e4442010300000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d31010001cf30c8a4d2d93a84"),
        Vector(
            name: "request life", beacon: beacon(.request(.life([Beacon.digest(ofName: "api-2")]))),
            hex:
                "434e4442010300000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d31020001cf30c8a4d2d93a84"),
        Vector(
            name: "table", beacon: beacon(.table(table)),
            hex:
                "434e4442010500000000000000000000000000000000000000000000a5e41b674276d3960198"
                + "0000000123450000000000000007000003e800000001056170692d310002056170692d320198"
                + "0000000123460000000000000003000003e8000000fa002d0464656d6f00010a31302e37372e"
                + "302e31321ce80000000000000000000001097363686564756c657200000000056170692d3301"
                + "980000000123470000000000000009000007d0000000000000"),
        Vector(
            name: "goodbye", beacon: beacon(.goodbye),
            hex:
                "434e4442010400000000000000000000000000000000000000000000a5e41b674276d39601980000"
                + "000123450000000000000007000003e800000001056170692d31"),
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
