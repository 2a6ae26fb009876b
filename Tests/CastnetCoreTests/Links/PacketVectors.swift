import CastnetCore
import Foundation
import NIOCore
import Testing

/// Packets with their exact bytes: what docs/wire-links.md prints.
enum PacketVectors {
    struct Vector: Sendable, CustomTestStringConvertible {
        var name: String
        var packet: Packet
        var hex: String
        var testDescription: String { name }
    }

    static let api = NodeIdentity(name: "api-1", incarnation: Incarnation(0x0198_0000_0001_2345))
    static let worker = NodeIdentity(name: "worker-2", incarnation: Incarnation(0x0198_0000_0002_6789))

    static let hello: Hello = {
        var hello = Hello(purpose: .persistent, cluster: "demo", node: api, messageMax: 64 << 20)
        hello.expected = worker
        hello.heartbeatMilliseconds = 2000
        return hello
    }()

    static let call = MessageHead(
        id: 7, kind: .call, topic: Topic(unchecked: "scheduler"), sequence: 41,
        sentAtMicroseconds: 1_700_000_000_000_000, timeLeftMicroseconds: 30_000_000,
        headers: ["trace": "abc"], total: 4)

    static let fanout = MessageHead(
        id: 8, kind: .fanout, settle: .processed, mandatory: true, topic: Topic(unchecked: "agents.l2"),
        server: "host@backend", instance: "blue", sequence: 42, sentAtMicroseconds: 5,
        timeLeftMicroseconds: 6, carrierChange: CarrierChange(stream: 0xB2, last: 40), total: 70_000)

    static func bytes(_ text: String) -> ByteBuffer { ByteBuffer(string: text) }

    static let all: [Vector] = [
        Vector(
            name: "hello", packet: .hello(hello),
            hex:
                "00000055018043415354010100000000000464656d6f056170692d3101980000000123450877"
                + "6f726b65722d320198000000026789000007d000018000000000000400000000000000000000"
                + "00000000000000000000000000"),
        Vector(
            name: "goodbye", packet: .goodbye(Goodbye(.stopping, "the node is stopping", taken: 12)),
            hex:
                "00000021020000000000000000000c0014746865206e6f64652069732073746f7070696e67"),
        Vector(
            name: "goodbye that says when to come back",
            packet: .goodbye(Goodbye(.limit, "not now..", comeBackMilliseconds: 2500)),
            hex:
                "0000001a020007000000000000000000096e6f74206e6f772e2e000009c4"),
        Vector(
            name: "call", packet: .message(call, bytes("ping")),
            hex:
                "00000048100000000000000000000007097363686564756c6572000000000000000000290006"
                + "0a24181e40000000000001c9c380010574726163650003616263000000000000000470696e67"),
        Vector(
            name: "fanout", packet: .message(fanout, bytes("first")),
            hex:
                "0000005e100702000000000000000008096167656e74732e6c320c686f7374406261636b656e"
                + "6404626c7565000000000000002a0000000000000005000000000000000600000000000000b2"
                + "00000000000000280000000000000111706669727374"),
        Vector(
            name: "reply", packet: .reply(ReplyHead(id: 7, outcome: .accepted, total: 4), bytes("pong")),
            hex:
                "0000001a11000000000000000007000000000000000000000004706f6e67"),
        Vector(
            name: "rejection",
            packet: .reply(ReplyHead(id: 8, outcome: .rejected, why: "no", total: 0), ByteBuffer()),
            hex:
                "00000018110000000000000000080100026e6f000000000000000000"),
        Vector(
            name: "chunk", packet: .chunk(id: 8, isReply: false, bytes("more")),
            hex:
                "0000000e120000000000000000086d6f7265"),
        Vector(
            name: "chunk of a reply", packet: .chunk(id: 7, isReply: true, bytes("more")),
            hex:
                "0000000e120100000000000000076d6f7265"),
        Vector(
            name: "cancel", packet: .cancel(id: 8),
            hex:
                "0000000a13000000000000000008"),
        Vector(
            name: "heartbeat", packet: .heartbeat(3),
            hex:
                "0000000a20000000000000000003"),
        Vector(
            name: "heartbeat answer", packet: .heartbeatAnswer(3),
            hex:
                "0000000a21000000000000000003"),
        Vector(
            name: "credit", packet: .credit(Credit(topic: "scheduler", messages: 16, bytes: 1 << 20)),
            hex:
                "000000182200097363686564756c6572000000100000000000100000"),
        Vector(name: "confirmed", packet: .confirmed(64), hex: "0000000a23000000000000000040"),
        Vector(name: "may start", packet: .mayStart(id: 7), hex: "0000000a26000000000000000007"),
        Vector(name: "start", packet: .start(id: 7), hex: "0000000a27000000000000000007"),
        Vector(name: "started", packet: .started(id: 7), hex: "0000000a28000000000000000007"),
        Vector(name: "busy", packet: .busy(id: 7), hex: "0000000a24000000000000000007"),
        Vector(
            name: "room", packet: .room(Room(topic: "scheduler", messages: 1)),
            hex: "000000102500097363686564756c657200000001"),
        Vector(
            name: "repair request", packet: .repair(.request(stream: 0xB2, [5...9, 12...12])),
            hex:
                "0000002a400000000000000000b200000000000000050000000000000009000000000000000c"
                + "000000000000000c"),
        Vector(
            name: "repair frames", packet: .repair(.frames(stream: 0xB2, bytes("\0\u{3}abc"))),
            hex:
                "0000000f410000000000000000b20003616263"),
        Vector(
            name: "repair gone", packet: .repair(.gone(stream: 0xB2, 5...9)),
            hex:
                "0000001a420000000000000000b200000000000000050000000000000009"),
        Vector(
            name: "repair later", packet: .repair(.later(stream: 0xB2, milliseconds: 200)),
            hex:
                "0000000e430000000000000000b2000000c8"),
        Vector(
            name: "repair head", packet: .repair(.head(stream: 0xB2, channel: 0xC3, bytes("abc"))),
            hex:
                "00000015440000000000000000b200000000000000c3616263"),
        Vector(
            name: "repair evicted", packet: .repair(.evicted(stream: 0xB2, 5...9)),
            hex:
                "0000001a450000000000000000b200000000000000050000000000000009"),
        Vector(
            name: "repair since", packet: .repair(.since(stream: 0xB2, milliseconds: 200)),
            hex:
                "0000000e460000000000000000b2000000c8"),
        Vector(
            name: "repair place",
            packet: .repair(.place(stream: 0xB2, .init(milliseconds: 200, first: 9, oldest: 5))),
            hex:
                "0000001e470000000000000000b2000000c800000000000000090000000000000005"),
        Vector(
            name: "directory", packet: .directory(ByteBuffer(string: "abc")),
            hex:
                "000000056000616263"),
    ]

    static func hex(_ packet: Packet) -> String {
        var buffer = ByteBuffer()
        buffer.write(packet)
        return hex(buffer)
    }

    static func hex(_ buffer: ByteBuffer) -> String {
        let digits = Array("0123456789abcdef")
        return String(buffer.readableBytesView.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }

    static func buffer(hex: String) -> ByteBuffer {
        var buffer = ByteBuffer()
        var rest = Substring(hex)
        while let byte = UInt8(rest.prefix(2), radix: 16) {
            buffer.writeInteger(byte)
            rest = rest.dropFirst(2)
        }
        return buffer
    }

    /// A whole session, as one side of it might send it, with a packet of an unknown kind inside.
    static let session: [Packet] = all.map(\.packet)
    static let unknown: [UInt8] = [0, 0, 0, 4, 0x6f, 0, 1, 2]
}
