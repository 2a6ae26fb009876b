import CastnetLab
import Foundation
import Testing

/// Lab tests live inside a private lab, so that nothing they make can stay behind.
let privateLabOnly: ConditionTrait = .enabled(
    if: PrivateLab.isInside, "\(PrivateLab.outsideReason)")

/// Looks again and again until `condition` holds; a failed wait is the test's failure.
func eventually(
    _ what: String, within limit: Duration = .seconds(10), _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while true {
        if try await condition() { return }
        guard ContinuousClock.now < deadline else {
            throw LabError.timedOut("not within \(limit): \(what)")
        }
        try await Task.sleep(for: .milliseconds(2))
    }
}

/// UDP by perl, which every Debian has: the lab is tested without Castnet's own sockets.
enum Datagrams {
    /// Sends `count` numbered datagrams of `size` bytes and returns when the last one has left.
    static func send(
        from host: LabHost, to address: String, count: Int, size: Int = 200
    ) async throws {
        let script = """
            use IO::Socket::INET;
            my ($to, $count, $size) = @ARGV;
            my $socket = IO::Socket::INET->new(Proto => 'udp') or die "socket: $!";
            my $peer = sockaddr_in(9999, inet_aton($to));
            for my $i (1 .. $count) {
                send($socket, sprintf("%-${size}d", $i), 0, $peer);
            }
            """
        let output = try await host.run("perl", "-e", script, address, "\(count)", "\(size)")
        try #require(output.exit == .exited(0), "\(output.stderr)")
    }

    /// Starts a receiver that joins `group` and prints `ready`, then the number of each datagram.
    static func receive(on host: LabHost, group: String) async throws -> LabProcess {
        let script = """
            use IO::Socket::INET;
            $| = 1;
            my ($group, $own) = @ARGV;
            my $socket = IO::Socket::INET->new(Proto => 'udp', LocalPort => 9999) or die "socket: $!";
            setsockopt($socket, SOL_SOCKET, SO_RCVBUF, pack('i', 4 << 20));
            setsockopt($socket, 0, 35, inet_aton($group) . inet_aton($own)) or die "join: $!";
            print "ready\\n";
            while (defined recv($socket, my $data, 2000, 0)) { print int($data), "\\n"; }
            """
        let process = try await host.spawn("perl", ["-e", script, group, host.address])
        _ = try await process.line(upTo: .seconds(10)) { $0 == "ready" }
        return process
    }

    /// How many packets reached `receiver` of those `count` that `sender` sent while counting.
    static func arrivals(
        from sender: LabHost, to receiver: LabHost, count: Int, size: Int = 200
    ) async throws -> (packets: Int, bytes: Int, sent: Int) {
        let (sentBefore, before) = (try await sender.counters(), try await receiver.counters())
        try await send(from: sender, to: receiver.address, count: count, size: size)
        var last = try await receiver.counters()
        try await eventually("the counters of \(receiver.name) settle") {
            let now = try await receiver.counters()
            defer { last = now }
            return now == last
        }
        let (got, sent) = (last - before, try await sender.counters() - sentBefore)
        return (got.packetsReceived, got.bytesReceived, sent.packetsSent)
    }
}

/// The `castnet` executable that was built with these tests.
let castnetExecutable = URL(fileURLWithPath: CommandLine.arguments[0])
    .deletingLastPathComponent().appendingPathComponent("castnet").path
