import CastnetLab
import Foundation
import Testing

@Suite("Faults on a link", privateLabOnly, .timeLimit(.minutes(2)))
struct FaultTests {
    private static let count = 4000

    @Test(
        "drop loses its share of the packets",
        arguments: [
            Fault.drop(probability: 0.3, traffic: .udp, direction: .in),
            .drop(probability: 0.3, traffic: .all),
        ])
    func drop(fault: Fault) async throws {
        try await inPair { sender, receiver in
            let got = try await receiver.with(fault) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count)
            }
            // The standard deviation is 29; this is seven of them.
            #expect((2600...3000).contains(got.packets), "\(got)")
            try await expectHealthy(sender, receiver)
        }
    }

    @Test("drop of outgoing packets loses them on the wire, after the sender counted them")
    func dropOut() async throws {
        try await inPair { sender, receiver in
            let fault = Fault.drop(probability: 0.5, traffic: .udp, direction: .out)
            let got = try await sender.with(fault) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count)
            }
            #expect(got.sent >= Self.count)
            #expect((1750...2250).contains(got.packets), "\(got)")
            try await expectHealthy(sender, receiver)
        }
    }

    @Test("drop of one protocol leaves the other alone")
    func dropOther() async throws {
        try await inPair { sender, receiver in
            let got = try await receiver.with(.drop(probability: 1, traffic: .tcp, direction: .both)) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count)
            }
            #expect(got.packets >= Self.count)
        }
    }

    @Test("dup delivers its share twice")
    func duplicate() async throws {
        try await inPair { sender, receiver in
            let got = try await receiver.with(.duplicate(probability: 0.25, traffic: .udp)) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count)
            }
            #expect((4800...5200).contains(got.packets), "\(got)")
            // Every packet twice is twice, not a storm.
            let all = try await receiver.with(.duplicate(probability: 1)) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count)
            }
            #expect((2 * Self.count...2 * Self.count + 10).contains(all.packets), "\(all)")
            try await expectHealthy(sender, receiver)
        }
    }

    @Test("rate holds the link to its rate", arguments: [Fault.Direction.in, .out])
    func rate(direction: Fault.Direction) async throws {
        try await inPair { sender, receiver in
            let limited = direction == .in ? receiver : sender
            let start = ContinuousClock.now
            let got = try await limited.with(.rate(bitsPerSecond: 8_000_000, direction: direction)) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: Self.count, size: 1000)
            }
            let seconds = (start.duration(to: .now)) / Duration.seconds(1)
            // A full bucket, 50 ms of queue, and 1 MB/s for as long as it took.
            let most = 32_768 + 50_000 + Int(seconds * 1_000_000) + 50_000
            #expect(got.bytes <= most && got.bytes >= 32_768, "\(got) in \(seconds) s")
            try await expectHealthy(sender, receiver)
        }
    }

    @Test(
        "blackout and a pulled cable let nothing through; both heal", arguments: [Fault.blackout, .linkDown])
    func outage(fault: Fault) async throws {
        try await inPair { sender, receiver in
            let got = try await receiver.with(fault) {
                try await Datagrams.arrivals(from: sender, to: receiver, count: 200)
            }
            #expect(got.packets == 0)
            try await expectHealthy(sender, receiver)
        }
    }

    @Test("a host that was unplugged hears its multicast groups again")
    func multicastAfterLinkDown() async throws {
        try await inPair { sender, receiver in
            let group = "239.192.7.11"
            let process = try await Datagrams.receive(on: receiver, group: group)
            try await receiver.with(.linkDown) {}
            try await eventually("a datagram arrives") {
                try await Datagrams.send(from: sender, to: group, count: 1)
                return process.output.contains("1")
            }
            try await process.stop()
        }
    }

    @Test("mtu narrows the link and is given back")
    func mtu() async throws {
        try await inPair { sender, receiver in
            try await sender.with(.mtu(1000)) {
                let mtu = try await sender.run("cat", "/sys/class/net/eth0/mtu").stdout
                #expect(mtu == "1000\n")
                // 1,200 bytes leave in two fragments now.
                let got = try await Datagrams.arrivals(from: sender, to: receiver, count: 100, size: 1200)
                #expect(got.packets >= 200)
            }
            #expect(try await sender.run("cat", "/sys/class/net/eth0/mtu").stdout == "1500\n")
        }
    }

    @Test("faults add up, show and are all cleared")
    func clear() async throws {
        try await inPair { sender, receiver in
            let faults = [
                Fault.drop(probability: 0.05, traffic: .udp), .duplicate(probability: 0.1), .blackout,
                .rate(bitsPerSecond: 10_000_000), .mtu(1400), .linkDown,
            ]
            for fault in faults { try await receiver.apply(fault) }
            let shown = try await receiver.faults()
            #expect(
                shown == [
                    "drop 0.05 udp in", "dup 0.1 all", "blackout", "rate 10Mbit in", "rate 10Mbit out",
                    "mtu 1400", "link down",
                ])
            #expect(try await sender.faults().isEmpty)
            try await receiver.clearFaults()
            #expect(try await receiver.faults().isEmpty)
            try await expectHealthy(sender, receiver)
        }
    }

    @Test("a fault for a while ends with its task")
    func cancelled() async throws {
        try await inPair { sender, receiver in
            let task = Task { try await receiver.apply(.blackout, for: .seconds(600)) }
            try await eventually("the fault stands") { try await receiver.faults() == ["blackout"] }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
            #expect(try await receiver.faults().isEmpty)
            try await expectHealthy(sender, receiver)
        }
    }

    private func inPair(_ body: (LabHost, LabHost) async throws -> Void) async throws {
        try await Lab.with(LabOptions(hostCount: 2)) { lab in
            // The first datagram waits for ARP, which a fault may hit.
            _ = try await Datagrams.arrivals(from: lab.hosts[0], to: lab.hosts[1], count: 1)
            try await body(lab.hosts[0], lab.hosts[1])
        }
    }

    private func expectHealthy(_ sender: LabHost, _ receiver: LabHost) async throws {
        let got = try await Datagrams.arrivals(from: sender, to: receiver, count: 500)
        #expect(got.packets >= 500, "the fault outlived its clearing")
        #expect(got.packets < 550)
    }
}

@Suite("Fault grammar")
struct FaultGrammarTests {
    @Test(
        "words make faults",
        arguments: [
            ("drop 5%", Fault.drop(probability: 0.05)),
            ("drop 0.25 udp both", .drop(probability: 0.25, traffic: .udp, direction: .both)),
            ("drop 1 out", .drop(probability: 1, direction: .out)),
            ("dup 0.2 tcp", .duplicate(probability: 0.2, traffic: .tcp)),
            ("rate 10Mbit/s", .rate(bitsPerSecond: 10_000_000)),
            ("rate 12MB/s in", .rate(bitsPerSecond: 96_000_000, direction: .in)),
            ("rate 800kbit", .rate(bitsPerSecond: 800_000)),
            ("blackout", .blackout), ("mtu 1400", .mtu(1400)), ("link down", .linkDown),
        ])
    func words(text: String, fault: Fault) throws {
        #expect(try Fault(words: text.split(separator: " ").map(String.init)) == fault)
        #expect(try Fault(words: "\(fault)".split(separator: " ").map(String.init)) == fault)
    }

    @Test(
        "wrong words are refused with what is allowed",
        arguments: [
            "", "flood", "drop", "drop x", "drop 0", "drop 1.5", "drop nan", "drop 5% sctp", "dup 2", "rate",
            "rate 10", "rate -1Mbit", "rate 1e30Gbit", "rate 1bit", "mtu", "mtu 10",
            "mtu 99999999999999999999",
            "link sideways", "blackout now",
        ])
    func refused(text: String) {
        let words = text.split(separator: " ").map(String.init)
        let error = #expect(throws: LabError.self) { try Fault(words: words) }
        #expect(error?.description.isEmpty == false)
    }
}
