import CastnetCore
import NIOCore

/// What must hold on a link whatever comes: an input is any bytes, and each way to read them is a target. The
/// fuzzers look for inputs that break a rule; LinkCorpusTests replays those that were worth keeping.
enum LinkRules {
    enum Target: String, CaseIterable, Sendable {
        /// Flags and body of one hello.
        case hello
        /// A byte stream, and places where it is cut.
        case packets
        /// What happens to both sides of a link.
        case machine
    }

    /// What inputs got to, so that a corpus can be asked whether it still tests what it should.
    struct Reached: Sendable {
        var kinds: Set<UInt8> = []
        var errors: Set<WireError> = []
        var closes: Set<LinkMachine.CloseReason> = []
        var opened = 0
        var taken = 0
        var whole = 0
    }

    static func check(_ target: Target, _ input: [UInt8], _ reached: inout Reached) throws(BrokenRule) {
        switch target {
        case .hello: try hello(input, &reached)
        case .packets: try packets(input, &reached)
        case .machine: try machine(input, &reached)
        }
    }

    static func encoded(_ packet: Packet) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.write(packet)
        return Array(buffer.readableBytesView)
    }
}

/// An input after which a link does what it must not.
struct BrokenRule: Error, CustomStringConvertible {
    var description: String
}

func rule(_ holds: Bool, _ text: @autoclosure () -> String) throws(BrokenRule) {
    if !holds { throw BrokenRule(description: text()) }
}

/// Numbers taken from an input; behind its end every number is 0.
struct FuzzInput {
    private(set) var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

    mutating func number() -> Int { Int(byte()) << 8 | Int(byte()) }

    mutating func bytes(_ count: Int) -> ByteBuffer {
        defer { rest = rest.dropFirst(count) }
        return ByteBuffer(bytes: rest.prefix(count))
    }
}
