import CastnetCore
import CastnetTestKit
import Foundation
import NIOCore
import Testing

@Suite struct StoredRecordTests {
    static let record = NodeRecord(
        identity: NodeIdentity(name: "api-1", incarnation: Incarnation(0x0198_0000_0001_2345)), version: 7,
        cluster: "demo", instance: "blue",
        addresses: [HostPort(host: "10.77.0.11", port: 7400), HostPort(host: "fd00::11", port: 7400)],
        unixPath: "@castnet-api-1", hostID: 0x1122_3344_5566_7788,
        services: [
            .init(topic: Topic(unchecked: "scheduler"), server: "api-1"),
            .init(topic: Topic(unchecked: "agents.l2"), server: "agent"),
        ],
        subscriptions: [TopicPattern(unchecked: "agents.**")],
        channels: [.init(name: "agents", digest: 0xA1, streamID: 0xB2, mtu: 1500, joined: true)])

    @Test func `a record comes back as it went`() throws {
        #expect(try StoredRecord.decode(StoredRecord.encode(Self.record)) == Self.record)
        let least = NodeRecord(identity: NodeIdentity(name: "a", incarnation: Incarnation(1)))
        #expect(try StoredRecord.decode(StoredRecord.encode(least)) == least)
    }

    @Test func `the largest record fits`() throws {
        var record = Self.record
        let label = String(repeating: "t", count: 63)
        record.services = (0..<8000).map { number in
            let topic = "\(label).\(label).\(label).\(number)"
            return .init(topic: Topic(unchecked: topic), server: "s\(number)")
        }
        #expect(record.beaconFault == nil)
        let value = StoredRecord.encode(record)
        #expect(value.readableBytes <= StoredRecord.sizeMax)
        #expect(try StoredRecord.decode(value) == record)
    }

    /// What the scripts in the store compare stands at fixed places, most significant byte first.
    @Test func `start and version stand where docs say`() {
        let value = StoredRecord.encode(Self.record)
        #expect(value.getInteger(at: 8, as: UInt64.self) == 0x0198_0000_0001_2345)
        #expect(value.getInteger(at: 16, as: UInt64.self) == 7)
        #expect(StoredRecord.headerSize == 24)
    }

    @Test func `the example of docs-wire-redis is this one`() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../../docs/wire-redis.md").path
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let block = try #require(text.firstMatch(of: #/```\n(?<hex>[0-9a-f\n]{100,})```/#))
        let hex = block.output.hex.filter { $0 != "\n" }
        let value = StoredRecord.encode(Self.record)
        #expect(hex == value.readableBytesView.map { hexadecimal(UInt64($0)).suffix(2) }.joined())
    }

    @Test func `no cut or changed value traps`() {
        let whole = StoredRecord.encode(Self.record)
        for length in 0..<whole.readableBytes {
            let cut = whole.getSlice(at: 0, length: length) ?? ByteBuffer()
            #expect(throws: BeaconFault.self) { try StoredRecord.decode(cut) }
        }
        var random = SeededGenerator(seed: 17)
        for _ in 0..<20_000 {
            var bytes = Array(whole.readableBytesView)
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? StoredRecord.decode(ByteBuffer(bytes: bytes))
        }
        let huge = ByteBuffer(repeating: 0x43, count: StoredRecord.sizeMax + 1)
        #expect(throws: BeaconFault.tooLong(StoredRecord.sizeMax + 1)) { try StoredRecord.decode(huge) }
    }
}
