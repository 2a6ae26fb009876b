import Castnet
import Logging
import ServiceLifecycle

/// Hears the scheduler's fanouts and casts its own state back.
struct Agent: Service {
    let configuration: Configuration

    func run() async throws {
        let work = try Topic("agents.place")
        let states = try Topic("states")
        try await Node.withNode(configuration) { node in
            try await node.serve(work) { message in
                let machine = String(buffer: message.payload)
                try await node.cast(states, ByteBuffer(string: "\(node.identity.name) knows \(machine)"))
                print("\(machine) came by \(message.carrier)")
                return .done
            }
            try await gracefulShutdown()
        }
    }
}

@main
enum Main {
    static func main() async throws {
        guard CommandLine.arguments.count == 2 else {
            print("usage: agent CONFIG")
            throw CastnetError(.invalidArgument, "1 argument is needed")
        }
        let agent = Agent(configuration: try Configuration.load(path: CommandLine.arguments[1]))
        let group = ServiceGroup(
            services: [agent], gracefulShutdownSignals: [.sigterm], logger: Logger(label: "agent"))
        try await group.run()
    }
}
