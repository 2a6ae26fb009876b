package import NIOCore

extension ByteBuffer {
    /// Appends a packet behind its length.
    package mutating func write(_ packet: Packet) {
        let start = writerIndex
        writeInteger(UInt32(0))
        switch packet {
        case .hello(let hello): write(hello)
        case .goodbye(let goodbye):
            writeKind(.goodbye)
            writeInteger(goodbye.reason.rawValue)
            writeInteger(goodbye.taken)
            writeLongText(goodbye.text, max: Goodbye.textBytesMax)
            if goodbye.reason == .limit, let comeBack = goodbye.comeBackMilliseconds {
                writeInteger(comeBack)
            }
        case .message(let head, var bytes):
            write(head)
            writeBuffer(&bytes)
        case .reply(let head, var bytes):
            write(head)
            writeBuffer(&bytes)
        case .chunk(let id, let isReply, var bytes):
            writeKind(.chunk, flags: isReply ? 1 : 0)
            writeInteger(id)
            writeBuffer(&bytes)
        case .cancel(let id): writeNumber(.cancel, id)
        case .heartbeat(let nonce): writeNumber(.heartbeat, nonce)
        case .heartbeatAnswer(let nonce): writeNumber(.heartbeatAnswer, nonce)
        case .confirmed(let count): writeNumber(.confirmed, count)
        case .busy(let id): writeNumber(.busy, id)
        case .room(let room):
            writeKind(.room)
            writeShortText(room.topic)
            writeInteger(room.messages)
        case .mayStart(let id): writeNumber(.mayStart, id)
        case .start(let id): writeNumber(.start, id)
        case .started(let id): writeNumber(.started, id)
        case .credit(let credit):
            writeKind(.credit)
            writeShortText(credit.topic)
            writeInteger(credit.messages)
            writeInteger(credit.bytes)
        case .repair(let repair):
            writeKind(repair.kind)
            repair.write(into: &self)
        case .directory(let beacon):
            writeKind(.directory)
            writeImmutableBuffer(beacon)
        }
        setInteger(UInt32(writerIndex - start - 4), at: start)
    }

    /// Appends a chunk's packet without its bytes, which follow by themselves.
    package mutating func writeChunkHead(_ id: UInt64, isReply: Bool, count: Int) {
        writeMultipleIntegers(UInt32(10 + count), Packet.Kind.chunk.rawValue, UInt8(isReply ? 1 : 0), id)
    }

    private mutating func writeKind(_ kind: Packet.Kind, flags: UInt8 = 0) {
        writeMultipleIntegers(kind.rawValue, flags)
    }

    private mutating func writeNumber(_ kind: Packet.Kind, _ number: UInt64) {
        writeMultipleIntegers(kind.rawValue, UInt8(0), number)
    }

    private mutating func write(_ hello: Hello) {
        writeKind(.hello, flags: Packet.criticalFlag)
        writeInteger(Hello.magic)
        writeInteger(hello.versionMin)
        writeInteger(hello.versionMax)
        writeInteger(hello.purpose.rawValue)
        writeInteger(hello.features.rawValue)
        writeShortText(hello.cluster)
        writeNode(hello.node)
        writeShortText(hello.expected?.name ?? "")
        writeInteger(hello.expected?.incarnation.value ?? 0)
        writeInteger(hello.heartbeatMilliseconds)
        writeInteger(hello.packetMax)
        writeInteger(hello.messageMax)
        writeInteger(hello.keyID)
        writeInteger(hello.tag.high)
        writeInteger(hello.tag.low)
    }

    private mutating func write(_ head: MessageHead) {
        var flags: UInt8 = head.settle == .processed ? 1 : 0
        if head.mandatory { flags |= 2 }
        if head.carrierChange != nil { flags |= 4 }
        if head.isAgain { flags |= 8 }
        if head.isPrompt { flags |= 16 }
        if head.isClaimed { flags |= 32 }
        // Several fields in one access to the buffer: each costs as much as all together.
        writeMultipleIntegers(Packet.Kind.message.rawValue, flags, head.kind.code, UInt8(0), head.id)
        writeShortText(head.topic.name)
        writeShortText(head.server ?? "")
        writeShortText(head.instance ?? "")
        writeMultipleIntegers(head.sequence, head.sentAtMicroseconds, head.timeLeftMicroseconds)
        if let change = head.carrierChange {
            writeInteger(change.stream)
            writeInteger(change.last)
        }
        writeHeaders(head.headers)
        writeInteger(head.total)
    }

    private mutating func write(_ head: ReplyHead) {
        writeMultipleIntegers(Packet.Kind.reply.rawValue, UInt8(0), head.id, head.outcome.code)
        writeLongText(head.why ?? "", max: ReplyHead.whyBytesMax)
        writeHeaders(head.headers)
        writeInteger(head.total)
    }
}

extension MessageKind {
    package var code: UInt8 {
        switch self {
        case .call: 0
        case .cast: 1
        case .fanout: 2
        }
    }

    package init?(code: UInt8) {
        switch code {
        case 0: self = .call
        case 1: self = .cast
        case 2: self = .fanout
        default: return nil
        }
    }
}

extension Outcome {
    package var code: UInt8 {
        switch self {
        case .accepted: 0
        case .rejected: 1
        case .released: 2
        case .expired: 3
        case .unroutable: 4
        case .lost: 5
        }
    }

    package init?(code: UInt8) {
        switch code {
        case 0: self = .accepted
        case 1: self = .rejected
        case 2: self = .released
        case 3: self = .expired
        case 4: self = .unroutable
        case 5: self = .lost
        default: return nil
        }
    }
}
