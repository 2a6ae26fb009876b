import CastnetCore
import NIOCore
import Testing

/// The beacon's bytes: docs/wire-beacons.md holds the same vectors.
@Suite struct BeaconCodecTests {
    @Test(arguments: BeaconVectors.all)
    func `a vector encodes and decodes to itself`(_ vector: BeaconVectors.Vector) throws {
        var buffer = ByteBuffer()
        vector.beacon.encode(into: &buffer)
        #expect(hex(buffer) == vector.hex, "\(vector.name)")
        #expect(try Beacon(decoding: bytes(vector.hex)) == vector.beacon)
    }

    @Test func `the document holds every vector`() throws {
        let text = try document("docs/wire-beacons.md")
        let packed = text.filter { !$0.isWhitespace }
        for vector in BeaconVectors.all {
            #expect(packed.contains(vector.hex), "docs/wire-beacons.md lacks the vector \(vector.name)")
        }
    }

    @Test func `a record of many topics is cut and put together in any order`() throws {
        var generator = SeededGenerator(seed: 7)
        let record = BeaconVectors.large(topics: 4096)
        #expect(record.beaconFault == nil)
        var bodies = record.beaconBodies()
        #expect(bodies.count > 100)
        bodies += bodies.prefix(10)
        bodies.shuffle(using: &generator)
        var assembler = BeaconAssembler()
        var result: NodeRecord?
        for body in bodies {
            var buffer = ByteBuffer()
            BeaconVectors.beacon(body).encode(into: &buffer)
            #expect(buffer.readableBytes <= BeaconFormat.datagramSizeMax)
            let decoded = try Beacon(decoding: buffer)
            if case .complete(let record) = assembler.add(decoded, now: Instant(nanoseconds: 0)) {
                result = record
                break
            }
        }
        #expect(result == record)
        #expect(assembler.bytes == 0)
    }

    @Test func `unfit datagrams name their fault`() {
        var good = ByteBuffer()
        BeaconVectors.beacon(.goodbye).encode(into: &good)
        func fault(_ change: (inout [UInt8]) -> Void) -> BeaconFault? {
            var copy = Array(good.readableBytesView)
            change(&copy)
            do throws(BeaconFault) {
                _ = try Beacon(decoding: ByteBuffer(bytes: copy))
                return nil
            } catch { return error }
        }
        #expect(fault { _ in } == nil)
        #expect(fault { $0[0] = 0 } == .notBeacon)
        #expect(fault { $0[4] = 9 } == .version(9))
        #expect(fault { $0[5] = 77 } == .kind(77))
        #expect(fault { $0[11] = 1 } == .key(1))
        #expect(fault { $0.removeLast() } == .truncated(.name))
        #expect(fault { $0[$0.count - 1] = 0x20 } == .invalid(.name))
        #expect(fault { $0 += [UInt8](repeating: 0, count: 1200) } == .tooLong(good.readableBytes + 1200))
        #expect(fault { $0[56] = 1 } == .part)
        #expect(fault { $0.removeAll() } == .notBeacon)
    }

    @Test func `garbage in any form decodes or throws, and what decodes encodes again`() throws {
        let seed = UInt64.random(in: 1...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        var corpus = BeaconVectors.all.map { bytes($0.hex) }
        for body in BeaconVectors.large(topics: 90).beaconBodies() {
            var buffer = ByteBuffer()
            BeaconVectors.beacon(body).encode(into: &buffer)
            corpus.append(buffer)
        }
        var assembler = BeaconAssembler()
        var decoded = 0
        for round in 0..<200_000 {
            var sample = Array(corpus[Int.random(in: 0..<corpus.count, using: &generator)].readableBytesView)
            mutate(&sample, using: &generator)
            guard let beacon = try? Beacon(decoding: ByteBuffer(bytes: sample)) else { continue }
            decoded += 1
            _ = assembler.add(beacon, now: Instant(nanoseconds: Int64(round)))
            #expect(assembler.bytes <= BeaconAssembler.bytesMax, "seed \(seed)")
            #expect(assembler.count <= BeaconAssembler.recordsMax, "seed \(seed)")
            var again = ByteBuffer()
            beacon.encode(into: &again)
            #expect((try? Beacon(decoding: again)) == beacon, "seed \(seed), round \(round)")
        }
        #expect(decoded > 1000, "seed \(seed)")
    }

    private func mutate(_ sample: inout [UInt8], using generator: inout SeededGenerator) {
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
            guard !sample.isEmpty else { return }
            let at = Int.random(in: 0..<sample.count, using: &generator)
            switch Int.random(in: 0..<6, using: &generator) {
            case 0: sample[at] = UInt8.random(in: 0...255, using: &generator)
            case 1: sample[at] ^= 1 << UInt8.random(in: 0...7, using: &generator)
            case 2: sample.removeSubrange(at...)
            case 3: sample.insert(UInt8.random(in: 0...255, using: &generator), at: at)
            case 4: sample[at] = [0, 1, 0x7F, 0x80, 0xFF][Int.random(in: 0..<5, using: &generator)]
            default: sample.append(contentsOf: sample[at...].prefix(64))
            }
        }
    }

    @Test func `assembly is bounded in records, bytes and time`() {
        var assembler = BeaconAssembler()
        let start = Instant(nanoseconds: 0)
        var refused = 0
        for number in 0..<2_000 {
            let sender = NodeIdentity(name: "node-\(number % 100)", incarnation: Incarnation(1))
            let beacon = Beacon(
                cluster: 1, sender: sender, recordVersion: 1, interval: .seconds(1),
                body: .part(
                    index: number / 100, count: 1000, bytes: ByteBuffer(repeating: 1, count: 1000)))
            if case .refused(.limitBeaconPartsHit) = assembler.add(beacon, now: start) { refused += 1 }
        }
        #expect(assembler.count == BeaconAssembler.recordsMax)
        #expect(refused == 2_000 / 100 * (100 - BeaconAssembler.recordsMax))
        let expired = assembler.expire(now: start + BeaconAssembler.age)
        #expect(expired == BeaconAssembler.recordsMax)
        #expect(assembler.bytes == 0)
    }

    @Test func `an own record that no beacon can carry is refused with the reason`() {
        var record = BeaconVectors.record
        record.channels = (0..<65).map {
            .init(name: "c\($0)", digest: 0, streamID: 0, mtu: 1500, joined: true)
        }
        #expect(record.beaconFault == "65 channels; at most 64 are allowed")
        record = BeaconVectors.record
        record.instance = ""
        #expect(record.beaconFault?.contains("instance") == true)
    }
}
