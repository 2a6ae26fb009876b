package import NIOCore

/// Cuts a byte stream into packets, however it is segmented.
///
/// Memory: never more than one packet's bytes beyond what the driver fed; a length above the limit is refused
/// before anything is kept for it. After an error the stream is over.
package struct PacketDecoder: Sendable {
    private var waiting = ByteBuffer()
    private let bytesMax: Int
    /// Packets of kinds this version does not know, skipped.
    package private(set) var unknownCount = 0

    package init(bytesMax: Int = Packet.bytesMax) { self.bytesMax = bytesMax }

    /// Bytes fed and not yet decoded.
    package var waitingBytes: Int { waiting.readableBytes }

    /// Takes in what a read brought.
    package mutating func feed(_ bytes: inout ByteBuffer) {
        if waiting.readableBytes == 0 {
            swap(&waiting, &bytes)
        } else {
            waiting.discardReadBytes()
            waiting.writeBuffer(&bytes)
        }
    }

    /// The next whole packet; nil until more bytes come.
    package mutating func next() throws(WireError) -> Packet? {
        while let length = waiting.getInteger(at: waiting.readerIndex, as: UInt32.self) {
            if length > UInt32(bytesMax) { throw .tooLong }
            if length < 2 { throw .truncated }
            guard waiting.readableBytes >= 4 + Int(length) else { return nil }
            waiting.moveReaderIndex(forwardBy: 4)
            guard let body = waiting.readSlice(length: Int(length)) else { return nil }
            if let packet = try Packet(body) { return packet }
            unknownCount += 1
        }
        return nil
    }
}

extension Packet {
    /// Reads a packet's kind, flags and body; nil for an unknown kind that may be skipped.
    init?(_ bytes: ByteBuffer) throws(WireError) {
        var body = bytes
        guard let (code, flags) = body.readMultipleIntegers(as: (UInt8, UInt8).self) else { throw .truncated }
        guard let kind = Kind(rawValue: code) else {
            if flags & Packet.criticalFlag != 0 { throw .unknownKind }
            return nil
        }
        switch kind {
        case .hello: self = .hello(try Hello(&body))
        case .goodbye:
            let reason = Goodbye.Reason(rawValue: try body.read()) ?? .protocolError
            let taken: UInt64 = try body.read()
            let text = try body.readLongText(max: Goodbye.textBytesMax)
            // Others send nothing behind the text, or what this version ignores.
            let comeBack: UInt32? =
                reason == .limit && body.readableBytes >= 4 ? try body.read() as UInt32 : nil
            self = .goodbye(Goodbye(reason, text, taken: taken, comeBackMilliseconds: comeBack))
        case .message:
            let head = try MessageHead(&body, flags: flags)
            if UInt64(body.readableBytes) > head.total { throw .inconsistent }
            self = .message(head, body)
            return
        case .reply:
            let head = try ReplyHead(&body)
            if UInt64(body.readableBytes) > head.total { throw .inconsistent }
            self = .reply(head, body)
            return
        case .chunk:
            self = .chunk(id: try body.read(), isReply: flags & 1 != 0, body)
            if body.readableBytes == 0 { throw .truncated }
            return
        case .cancel: self = .cancel(id: try body.read())
        case .heartbeat: self = .heartbeat(try body.read())
        case .heartbeatAnswer: self = .heartbeatAnswer(try body.read())
        case .confirmed: self = .confirmed(try body.read())
        case .busy: self = .busy(id: try body.read())
        case .mayStart: self = .mayStart(id: try body.read())
        case .start: self = .start(id: try body.read())
        case .started: self = .started(id: try body.read())
        case .room: self = .room(Room(topic: try body.readShortText(), messages: try body.read()))
        case .credit:
            self = .credit(
                Credit(topic: try body.readShortText(), messages: try body.read(), bytes: try body.read()))
        case .repairRequest, .repairFrames, .repairGone, .repairLater, .repairHead,
            .repairEvicted, .repairSince, .repairPlace:
            self = .repair(try RepairPacket(kind, reading: &body))
        case .directory:
            self = .directory(body)
            return
        }
        // A later version may say more behind what is known here.
        if body.readableBytes > 0, kind != .hello, kind != .goodbye { throw .trailing }
    }
}

extension Hello {
    /// A later version may say more behind what we know: it is skipped.
    init(_ body: inout ByteBuffer) throws(WireError) {
        guard try body.read(UInt32.self) == Hello.magic else { throw .magic }
        let versions = (try body.read(UInt8.self), try body.read(UInt8.self))
        if versions.0 > versions.1 { throw .version }
        guard let purpose = Purpose(rawValue: try body.read()) else { throw .range }
        let features = Features(rawValue: try body.read())
        let cluster = try body.readShortText(max: 64)
        self.init(purpose: purpose, cluster: cluster, node: try body.readNode(), messageMax: 0)
        (versionMin, versionMax) = versions
        expected = try body.readOptionalNode()
        self.features = features
        heartbeatMilliseconds = try body.read()
        packetMax = try body.read()
        if packetMax < UInt32(Packet.bytesMax) { throw .range }
        messageMax = try body.read()
        keyID = try body.read()
        tag.high = try body.read()
        tag.low = try body.read()
    }
}

extension MessageHead {
    init(_ body: inout ByteBuffer, flags: UInt8) throws(WireError) {
        // Several fields in one access to the buffer: each costs as much as all together.
        guard let (code, _, id) = body.readMultipleIntegers(as: (UInt8, UInt8, UInt64).self) else {
            throw .truncated
        }
        guard let kind = MessageKind(code: code) else { throw .range }
        let topic = try body.readTopic()
        let (server, instance) = (try body.readOptionalText(), try body.readOptionalText())
        guard
            let (sequence, sentAt, timeLeft) = body.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self)
        else { throw .truncated }
        var change: CarrierChange?
        if flags & 4 != 0 { change = CarrierChange(stream: try body.read(), last: try body.read()) }
        self.init(
            id: id, kind: kind, settle: flags & 1 != 0 ? .processed : .received, mandatory: flags & 2 != 0,
            topic: topic, server: server, instance: instance, sequence: sequence, sentAtMicroseconds: sentAt,
            timeLeftMicroseconds: timeLeft, carrierChange: change, headers: try body.readHeaders(),
            total: try body.read())
        isAgain = flags & 8 != 0
        isPrompt = flags & 16 != 0
        isClaimed = flags & 32 != 0
    }
}

extension ReplyHead {
    init(_ body: inout ByteBuffer) throws(WireError) {
        guard let (id, code) = body.readMultipleIntegers(as: (UInt64, UInt8).self) else { throw .truncated }
        guard let outcome = Outcome(code: code) else { throw .range }
        let why = try body.readLongText(max: ReplyHead.whyBytesMax)
        self.init(
            id: id, outcome: outcome, why: why.isEmpty ? nil : why, headers: try body.readHeaders(),
            total: try body.read())
    }
}
