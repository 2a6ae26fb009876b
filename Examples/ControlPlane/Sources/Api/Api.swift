import Castnet

/// Asks the scheduler for places, as an API server would for each request of a user.
@main
struct Api {
    static func main() async throws {
        let configuration = try Configuration.load(path: CommandLine.arguments[1])
        try await Node.withNode(configuration) { node in
            let scheduler = try Topic("scheduler")
            for number in 1...20 {
                let reply = try await node.call(scheduler, ByteBuffer(string: "server-\(number)"))
                let agent = String(buffer: reply.payload)
                print("placed server-\(number) on \(agent) by \(reply.carrier.rawValue)")
            }
        }
    }
}
