import Castnet

let configuration = try Configuration.load(path: "castnet.yaml")
try await Node.withNode(configuration) { node in
    let scheduler = try Topic("scheduler")
    try await node.serve(scheduler) { request in
        .reply(request.payload)
    }
    let reply = try await node.call(scheduler, ByteBuffer(string: "where to?"))
    print(String(buffer: reply.payload), reply.carrier, reply.latency)

    let news = try await node.subscribe(try TopicPattern("agents.**"))
    let receipt = try await node.fanout(
        try Topic("agents.l2"), ByteBuffer(string: "flush"), receipt: .received)
    for row in receipt.rows { print(row.node, row.outcome) }
    for await message in news {
        print(message.topic, message.from, message.sequence)
        break
    }
}
