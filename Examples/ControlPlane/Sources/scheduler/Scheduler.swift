import Castnet
import Logging
import ServiceLifecycle

/// Takes calls from the api, tells every agent at once, and collects what the agents cast back.
struct Scheduler: Service {
    let configuration: Configuration
    let agentsMin: Int

    func run() async throws {
        let agents = try Topic("agents.place")
        let states = States()
        try await Node.withNode(configuration) { node in
            try await node.serve(try Topic("states")) { cast in
                await states.add(String(buffer: cast.payload))
                print("\(String(buffer: cast.payload)), by \(cast.carrier)")
                return .done
            }
            // It offers itself once the agents are there; until then calls wait at the api.
            while try await node.memberCount(hearing: agents) < agentsMin {
                try await Task.sleep(for: .milliseconds(50))
            }
            try await node.serve(try Topic("scheduler")) { call in
                let machine = String(buffer: call.payload)
                let receipt = try await node.fanout(agents, call.payload, receipt: .received)
                let delivered = receipt.rows.filter(\.outcome.isDelivered).count
                // The receipt says who has the message; what the agents make of it they cast back.
                for _ in 1...500 where await states.count(of: machine) < delivered {
                    try await Task.sleep(for: .milliseconds(10))
                }
                let answered = await states.count(of: machine)
                return .reply(
                    ByteBuffer(string: "\(machine): \(delivered) agents told, \(answered) answered"))
            }
            try await gracefulShutdown()
        }
    }
}

/// What the agents said.
actor States {
    private var said: Set<String> = []
    func add(_ state: String) { said.insert(state) }
    func count(of machine: String) -> Int { said.count { $0.hasSuffix(" \(machine)") } }
}

@main
enum Main {
    static func main() async throws {
        guard CommandLine.arguments.count == 3, let agentsMin = Int(CommandLine.arguments[2]) else {
            print("usage: scheduler CONFIG AGENTS")
            throw CastnetError(.invalidArgument, "2 arguments are needed")
        }
        let scheduler = Scheduler(
            configuration: try Configuration.load(path: CommandLine.arguments[1]), agentsMin: agentsMin)
        let log = Logger(label: "scheduler")
        try await ServiceGroup(services: [scheduler], gracefulShutdownSignals: [.sigterm], logger: log).run()
    }
}
