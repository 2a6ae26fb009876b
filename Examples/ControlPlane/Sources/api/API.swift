import Castnet

/// Asks the scheduler to place machines, one call each. All calls share one connection that stays open.
@main
enum API {
    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count == 3, let machines = Int(arguments[2]), machines > 0 else {
            print("usage: api CONFIG MACHINES")
            throw CastnetError(.invalidArgument, "2 arguments are needed")
        }
        let configuration = try Configuration.load(path: arguments[1])
        let scheduler = try Topic("scheduler")

        try await Node.withNode(configuration) { node in
            for number in 1...machines {
                // Nobody has to be there yet: the call waits for a scheduler until its deadline.
                let reply = try await node.call(
                    scheduler, ByteBuffer(string: "vm-\(number)"),
                    options: SendOptions(deadline: .seconds(20)))
                print("\(String(buffer: reply.payload)) (from \(reply.from.name) by \(reply.carrier))")
            }
        }
    }
}
