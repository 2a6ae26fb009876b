import Castnet

/// Tells the scheduler that it is there, hears every placement, and keeps its own.
@main
struct Agent {
    static func main() async throws {
        let configuration = try Configuration.load(path: CommandLine.arguments[1])
        try await Node.withNode(configuration) { node in
            let placements = try await node.subscribe(try TopicPattern("agents.placements"))
            try await node.cast(try Topic("states"), ByteBuffer(string: "alive"))
            var (heard, own) = (0, 0)
            for await placement in placements {
                heard += 1
                if String(buffer: placement.payload).hasSuffix("=\(node.identity.name)") { own += 1 }
                if heard == 20 { break }
            }
            print("\(node.identity.name): heard \(heard) placements, \(own) of them mine")
        }
    }
}
