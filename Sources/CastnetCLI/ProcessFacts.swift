internal import Castnet
internal import Foundation
internal import Logging
internal import NIOCore
internal import NIOFoundationCompat

/// What the operating system says about this process.
enum ProcessFacts {
    /// Open descriptors now.
    static var descriptors: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
    }

    /// The largest resident memory so far, in bytes.
    static var residentMax: Int {
        guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else { return 0 }
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return (line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 1024
    }

    /// Processor time of the whole process so far, in seconds.
    static var processorSeconds: Double {
        var usage = rusage()
        guard getrusage(Int32(RUSAGE_SELF.rawValue), &usage) == 0 else { return 0 }
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        return seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    /// Bytes sent so far on `interface`; nil: on all but loopback (on loopback where there is no other).
    static func wireBytes(on interface: String?) -> Int {
        guard let table = try? String(contentsOfFile: "/proc/net/dev", encoding: .utf8) else { return 0 }
        var sent: [String: Int] = [:]
        for line in table.split(separator: "\n").dropFirst(2) {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { continue }
            let fields = parts[1].split(separator: " ")
            sent[parts[0].trimmingCharacters(in: .whitespaces)] = fields.count > 8 ? Int(fields[8]) : nil
        }
        if let interface { return sent[interface] ?? 0 }
        let outer = sent.filter { $0.key != "lo" }
        return outer.isEmpty ? sent["lo"] ?? 0 : outer.values.reduce(0, +)
    }

    /// Seconds since 1970.
    static var now: Double { Date().timeIntervalSince1970 }
}

extension ByteBuffer {
    /// The content's SHA-256 in hexadecimal.
    var sha256: String {
        SHA256.digest(Array(readableBytesView)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    /// A payload that is a function of seed, number and size: SplitMix64, little-endian.
    static func generated(seed: UInt64, number: Int, size: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.reserveCapacity(size + 8)
        var generator = SeededGenerator(seed: seed &* 0x9E37_79B9 &+ UInt64(number))
        while buffer.readableBytes < size { buffer.writeInteger(generator.next(), endianness: .little) }
        buffer.moveWriterIndex(to: size)
        return buffer
    }
}

extension NodeSnapshot {
    /// The counters that are not 0.
    var activeCounters: [String: UInt64] { counters.filter { $0.value > 0 } }
}

extension Duration {
    /// Seconds, as the JSON keys ending in `_s` have them.
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}

/// Latencies of one run, as the contract's `latency_s`.
struct LatencySummary: Encodable {
    var p50: Double?
    var p99: Double?
    var p999: Double?
    var max: Double?

    init(_ seconds: [Double]) {
        let sorted = seconds.sorted()
        func quantile(_ share: Double) -> Double? {
            sorted.isEmpty ? nil : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
        }
        (p50, p99, p999, max) = (quantile(0.5), quantile(0.99), quantile(0.999), sorted.last)
    }
}
