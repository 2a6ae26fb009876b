internal import ArgumentParser
internal import Castnet
internal import CastnetLab

/// `castnet lab up`: a lab that stays until `castnet lab down`.
struct LabUp: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Make a lab that stays until `castnet lab down`.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var selection: LabSelection

    @Option(help: "How many hosts to make: h1, h2, …")
    var hosts = 4

    @Option(help: "MTU of every link.")
    var mtu = 1500

    @Option(help: "Segmentation offload of every link; off where faults shall hit single packets.")
    var offload = Switch.on

    enum Switch: String, ExpressibleByArgument, CaseIterable { case on, off }

    mutating func run() async throws {
        let options = LabOptions(
            hostCount: hosts, prefix: selection.prefix, mtu: mtu, offload: offload == .on)
        let lab = try await LabCommand.reporting {
            let availability = await Lab.availability()
            if let why = availability.why { throw LabError.unavailable(why) }
            return try await Lab.up(options)
        }
        for host in lab.hosts {
            if common.json {
                try JSONLine.print(LabHostRow(host))
            } else {
                JSONLine.write("\(host.name)  \(host.netns)  \(host.interface)  \(host.address)")
            }
        }
    }
}

/// `castnet lab exec`: a command on one host.
struct LabExec: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Run a command on one host of a lab; the exit code is the command's.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var selection: LabSelection

    @Argument(help: "The host, h1 for example.")
    var host: String

    @Argument(parsing: .postTerminator, help: "The command and its arguments.")
    var command: [String]

    func validate() throws {
        guard !command.isEmpty else { throw ValidationError("a command is missing after --") }
    }

    mutating func run() async throws {
        let (prefix, host, command) = (selection.prefix, host, command)
        try await LabCommand.reporting {
            try await Lab.attach(prefix: prefix).host(host).become(command)
        }
    }
}

/// `castnet lab status`: hosts, links, traffic and faults.
struct LabStatus: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the hosts of a lab, their traffic and the faults that stand.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var selection: LabSelection

    private struct Row: Encodable {
        let host: String
        let netns: String
        let interface: String
        let address: String
        let sentBytes: Int
        let receivedBytes: Int
        let faults: [String]

        enum CodingKeys: String, CodingKey {
            case host, netns, interface, address, faults
            case sentBytes = "sent_bytes"
            case receivedBytes = "received_bytes"
        }
    }

    mutating func run() async throws {
        let prefix = selection.prefix
        let rows = try await LabCommand.reporting {
            var rows: [Row] = []
            for host in try await Lab.attach(prefix: prefix).hosts {
                let counters = try await host.counters()
                rows.append(
                    Row(
                        host: host.name, netns: host.netns, interface: host.interface, address: host.address,
                        sentBytes: counters.bytesSent, receivedBytes: counters.bytesReceived,
                        faults: try await host.faults()))
            }
            return rows
        }
        for row in rows {
            if common.json {
                try JSONLine.print(row)
            } else {
                let faults = row.faults.isEmpty ? "no fault" : row.faults.joined(separator: ", ")
                JSONLine.write(
                    "\(row.host)  \(row.netns)  \(row.address)  sent \(row.sentBytes) B  "
                        + "received \(row.receivedBytes) B  \(faults)")
            }
        }
    }
}

/// `castnet lab down`: removes a lab.
struct LabDown: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "Remove a lab, and kill what still runs on its hosts.")

    @OptionGroup var common: CommonOptions
    @OptionGroup var selection: LabSelection

    mutating func run() async throws {
        let prefix = selection.prefix
        try await LabCommand.reporting { try await Lab.removeNamespaces(prefix: prefix) }
    }
}
