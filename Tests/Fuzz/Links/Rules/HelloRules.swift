import CastnetCore
import NIOCore

extension LinkRules {
    static func hello(_ input: [UInt8], _ reached: inout Reached) throws(BrokenRule) {
        guard let flags = input.first, input.count <= Packet.bytesMax - 8 else { return }
        let body = Array(input.dropFirst())
        let packet: Packet?
        do { packet = try read(flags: flags, body) } catch {
            reached.errors.insert(error)
            return try rule(error != .trailing && error != .unknownKind, "refused as \(error)")
        }
        guard case .hello(let hello) = packet else {
            throw BrokenRule(description: "no hello, but \(packet as Any)")
        }
        reached.kinds.insert(Packet.Kind.hello.rawValue)
        try limits(of: hello)

        let written = Array(encoded(.hello(hello)).dropFirst(6))
        try rule(isSame(written, body, hello), "another hello is written than was read: \(hello)")
        try rule((try? read(flags: flags, written)) == packet, "it reads differently again: \(hello)")
        let longer = try? read(flags: flags, body + [flags, 1, 2])
        try rule(longer == packet, "what a later version adds changes it: \(hello)")
        let cut = Array(written.prefix(written.count * Int(flags) / 256))
        try rule((try? read(flags: flags, cut)) == nil, "\(cut.count) of its bytes are enough: \(hello)")
        try judgedAlike(hello, &reached)
    }

    private static func read(flags: UInt8, _ body: [UInt8]) throws(WireError) -> Packet? {
        var buffer = ByteBuffer(integer: UInt32(2 + body.count))
        buffer.writeMultipleIntegers(Packet.Kind.hello.rawValue, flags)
        buffer.writeBytes(body)
        buffer.write(Packet.heartbeat(1))
        var decoder = PacketDecoder()
        decoder.feed(&buffer)
        let packet = try decoder.next()
        // Whatever it holds, the packet behind it begins where its length says.
        return try decoder.next() == .heartbeat(1) ? packet : nil
    }

    private static func limits(of hello: Hello) throws(BrokenRule) {
        try rule(hello.versionMin <= hello.versionMax, "no version")
        try rule(hello.cluster.utf8.count <= 64, "a cluster of \(hello.cluster.utf8.count) bytes")
        try rule(NodeIdentity.isValid(name: hello.node.name), "node \(hello.node)")
        if let expected = hello.expected {
            try rule(NodeIdentity.isValid(name: expected.name), "expects \(expected)")
        }
        try rule(hello.packetMax >= UInt32(Packet.bytesMax), "packets of \(hello.packetMax) bytes")
    }

    /// Features that this version does not know need not be kept, and nobody's start neither.
    private static func isSame(_ written: [UInt8], _ read: [UInt8], _ hello: Hello) -> Bool {
        guard written.count <= read.count else { return false }
        let features = 7..<11
        let expected = features.upperBound + 2 + hello.cluster.utf8.count + hello.node.name.utf8.count + 9
        let start = hello.expected == nil ? expected..<expected + 8 : 0..<0
        return written.indices.allSatisfy {
            written[$0] == read[$0] || features.contains($0) || start.contains($0)
        }
    }

    /// Where one side refuses the other does, too, and for the same reason: else one of them would execute
    /// what the other holds for refused.
    private static func judgedAlike(_ theirs: Hello, _ reached: inout Reached) throws(BrokenRule) {
        var ours = Hello(purpose: .service, cluster: "demo", node: LinkSide.worker, messageMax: 1)
        ours.expected = LinkSide.api
        for role in [LinkMachine.Role.dialler, .acceptor] {
            var near = LinkSide(role, ours)
            var far = LinkSide(role == .dialler ? .acceptor : .dialler, theirs)
            _ = try near.play(.connected)
            _ = try far.play(.connected)
            _ = try near.play(.received(.hello(theirs)))
            _ = try far.play(.received(.hello(ours)))
            let (one, other) = (near.closed, far.closed)
            try rule(one == other, "as \(role): \(one as Any), the other side: \(other as Any)")
            let (interval, same) = (near.interval, far.interval)
            try rule(interval == same, "heartbeats every \(interval as Any) and \(same as Any)")
            near.report(&reached)
        }
    }
}
