import Castnet
import Synchronization

/// Places servers in turns on the agents it has heard of, and tells every agent about each placement.
@main
struct Scheduler {
    static func main() async throws {
        let configuration = try Configuration.load(path: CommandLine.arguments[1])
        let known = Mutex<[String]>([])
        let turns = Atomic<Int>(0)
        try await Node.withNode(configuration) { node in
            let news = try Topic("agents.placements")
            try await node.serve(try Topic("states")) { state in
                known.withLock { known in
                    if !known.contains(state.from.name) { known.append(state.from.name) }
                }
                return .done
            }
            try await node.serve(try Topic("scheduler")) { request in
                let agents = known.withLock { $0 }
                guard !agents.isEmpty else { return .release("no agent yet") }
                let agent = agents[turns.add(1, ordering: .relaxed).oldValue % agents.count]
                let placement = "\(String(buffer: request.payload))=\(agent)"
                try await node.fanout(news, ByteBuffer(string: placement))
                return .reply(ByteBuffer(string: agent))
            }
            // Calls are taken once there is somebody to place on; then the standard input's end ends it.
            while known.withLock({ $0.count }) < 2 { try await Task.sleep(for: .milliseconds(20)) }
            print("ready")
            while readLine() != nil {}
        }
    }
}
