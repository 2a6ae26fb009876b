import CastnetCore
import Testing

@Suite("Amounts")
struct PoliciesQuantityTests {
    @Test(
        "times",
        arguments: [
            ("250ms", Duration.milliseconds(250)), ("2s", .seconds(2)), ("1min", .seconds(60)),
            ("0.25s", .milliseconds(250)),
            ("1.5h", .seconds(5400)), ("0s", .zero), ("7us", .microseconds(7)), ("9ns", .nanoseconds(9)),
        ])
    func times(text: String, expected: Duration) throws {
        #expect(try Quantity.duration(text) == expected)
        #expect(try Quantity.duration(Quantity.text(expected)) == expected)
    }

    @Test(
        "bytes and rates",
        arguments: [
            ("64KiB", 65_536), ("16MiB", 16 << 20), ("50MB", 50_000_000), ("1kB", 1000), ("512B", 512),
            ("1.5KiB", 1536),
            ("0B", 0), ("8 MiB", 8 << 20),
        ])
    func bytes(text: String, expected: Int) throws {
        #expect(try Quantity.bytes(text) == expected)
        #expect(try Quantity.bytes(Quantity.text(bytes: expected)) == expected)
        #expect(try Quantity.rate("\(text)/s") == expected)
    }

    @Test("bits and turns")
    func others() throws {
        #expect(try Quantity.rate("100Mbit/s") == 12_500_000)
        #expect(try Quantity.rate("8bit/s") == 1)
        #expect(try Quantity.perMinute("300/min") == 300)
        #expect(try Quantity.count("0") == 0)
    }

    @Test(
        "what is none is refused, whatever it is",
        arguments: [
            "", " ", "5", "s", "-1s", "1..5s", ".5s", "5.s", "1e9s", "٣s", "5 parsecs",
            "99999999999999999999s",
            "9223372036854775807h", "1.0000000001s", "0x10s", "+5s", "s5", "5s ", "inf", "nan",
        ])
    func refused(text: String) {
        #expect(throws: Quantity.Fault.self) { try Quantity.duration(text) }
        #expect(throws: Quantity.Fault.self) { try Quantity.bytes(text) }
        #expect(throws: Quantity.Fault.self) { try Quantity.rate(text) }
        #expect(throws: Quantity.Fault.self) { try Quantity.perMinute(text) }
    }

    @Test("a channel's plan has a power of two for a window and never overflows")
    func plans() {
        var channel = ChannelSettings(name: "c", group: "239.1.1.1", port: 1)
        channel.rate = 50_000_000
        #expect(ChannelPlan(channel).window == 8192)
        for rate in [nil, 1, 1500, .max, .min] as [Int?] {
            for mtu in [nil, 1, 0, -5, .max, .min] as [Int?] {
                for size in [0, 1 << 20, .max, .min] {
                    (channel.rate, channel.mtu, channel.retention) = (rate, mtu, size)
                    channel.repairTime = .seconds(Int64.max)
                    let plan = ChannelPlan(channel)
                    #expect(plan.window.nonzeroBitCount == 1 && ChannelPlan.windowRange.contains(plan.window))
                    _ = (
                        plan.totalBytes, ChannelPlan.repairBytes(channel, mtu: mtu ?? 1500),
                        plan.membersAtFullRate(1)
                    )
                }
            }
        }
    }
}
