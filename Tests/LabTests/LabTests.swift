import CastnetLab
import Foundation
import Testing

@Suite("Lab", privateLabOnly, .timeLimit(.minutes(2)))
struct LabTests {
    @Test("twelve hosts are up and the first reaches all others")
    func reach() async throws {
        try await Lab.with(LabOptions(hostCount: 12)) { lab in
            #expect(lab.hosts.map(\.address).first == "10.77.0.11")
            #expect(lab.hosts.map(\.address).last == "10.77.0.22")
            for host in lab.hosts.dropFirst() {
                let got = try await Datagrams.arrivals(from: lab.hosts[0], to: host, count: 20)
                #expect(got.packets >= 20, "\(host.name)")
            }
        }
    }

    @Test("down leaves no namespace and kills what ran there")
    func down() async throws {
        let lab = try await Lab.up(LabOptions(hostCount: 2))
        let sleeper = try await lab.hosts[0].spawn("sleep", ["1000"])
        #expect(try await Lab.attach(prefix: lab.prefix).hosts == lab.hosts)
        try await lab.down()
        #expect(try await sleeper.wait(upTo: .seconds(10)) == .killed(signal: 9))
        await #expect(throws: LabError.self) { try await Lab.attach(prefix: lab.prefix) }
    }

    @Test("labs with different prefixes live side by side; the same prefix is refused")
    func sideBySide() async throws {
        try await Lab.with(LabOptions(hostCount: 2)) { first in
            try await Lab.with(LabOptions(hostCount: 3)) { second in
                #expect(first.prefix != second.prefix)
                let before = try await second.hosts[1].counters()
                let got = try await Datagrams.arrivals(from: first.hosts[0], to: first.hosts[1], count: 100)
                #expect(got.packets >= 100)
                #expect(try await second.hosts[1].counters().packetsReceived - before.packetsReceived < 50)
            }
            await #expect(throws: LabError.self) {
                try await Lab.up(LabOptions(hostCount: 1, prefix: first.prefix))
            }
            #expect(try await Lab.attach(prefix: first.prefix).hosts.count == 2)
        }
    }

    @Test("counters count what crosses the wire")
    func counters() async throws {
        try await Lab.with(LabOptions(hostCount: 2)) { lab in
            let before = try await lab.hosts[0].wireBytes()
            let got = try await Datagrams.arrivals(
                from: lab.hosts[0], to: lab.hosts[1], count: 1000, size: 1000)
            let sent = try await lab.hosts[0].wireBytes() - before
            // 1,000 bytes, 8 of UDP, 20 of IP, 14 of Ethernet; a little ARP beside.
            #expect((1_042_000...1_050_000).contains(sent), "\(sent)")
            #expect((1_042_000...1_050_000).contains(got.bytes), "\(got.bytes)")
        }
    }

    @Test("multicast reaches the hosts that joined, and only those")
    func multicast() async throws {
        try await Lab.with(LabOptions(hostCount: 4)) { lab in
            let group = "239.192.7.10"
            let receivers = [
                try await Datagrams.receive(on: lab.hosts[1], group: group),
                try await Datagrams.receive(on: lab.hosts[2], group: group),
            ]
            try await eventually("the bridge knows both members") {
                try await lab.listeners(of: group) == ["h2", "h3"]
            }
            let before = try await lab.hosts[3].counters()
            try await Datagrams.send(from: lab.hosts[0], to: group, count: 500)
            for receiver in receivers {
                _ = try await receiver.line(upTo: .seconds(10)) { $0 == "500" }
                #expect(receiver.output == ["ready"] + (1...500).map { "\($0)" })
            }
            let flooded = try await lab.hosts[3].counters() - before
            #expect(flooded.packetsReceived < 50, "snooping does not filter")
            for receiver in receivers { try await receiver.stop() }
        }
    }

    @Test("offload and MTU are as asked", arguments: [true, false])
    func options(offload: Bool) async throws {
        try await Lab.with(LabOptions(hostCount: 1, mtu: 9000, offload: offload)) { lab in
            let features = try await lab.hosts[0].run("ethtool", "-k", "eth0").stdout
            #expect(features.contains("tx-udp-segmentation: \(offload ? "on" : "off")"))
            #expect(features.contains("tcp-segmentation-offload: \(offload ? "on" : "off")"))
            let mtu = try await lab.hosts[0].run("cat", "/sys/class/net/eth0/mtu").stdout
            #expect(mtu == "9000\n")
        }
    }

    @Test("errors name the command and quote what it said")
    func errors() async throws {
        try await Lab.with(LabOptions(hostCount: 1)) { lab in
            let missing = try await lab.hosts[0].run("no-such-program")
            #expect(missing.exit != .exited(0))
            #expect(missing.stderr.contains("no-such-program"))
            let error = #expect(throws: LabError.self) { try lab.host("h7") }
            #expect(error?.description.contains("there are: h1") == true)
            await #expect(throws: LabError.self) { try await Lab.up(LabOptions(hosts: ["a", "a"])) }
            await #expect(throws: LabError.self) { try await Lab.up(LabOptions(hosts: ["A b"])) }
        }
    }
}
