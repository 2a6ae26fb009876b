import CastnetCore
import NIOCore

extension LinkRules {
    static func machine(_ bytes: [UInt8], _ reached: inout Reached) throws(BrokenRule) {
        var input = FuzzInput(bytes)
        var play = LinkPlay(&input)
        while !input.rest.isEmpty { try play.step(&input) }
        try play.end()
        play.report(&reached)
    }
}

/// Both sides of a link, and what is under way between them. An input moves it step by step: two nodes that
/// keep the rules, until it makes one see what no such node would have sent.
struct LinkPlay: ~Copyable {
    private var dialler: LinkSide
    private var acceptor: LinkSide
    private var toDialler = ByteBuffer()
    private var toAcceptor = ByteBuffer()
    private var chunks = ChunkQueue(chunkBytes: 8)
    private var sent: UInt64 = 0
    /// Messages that were sent before each heartbeat of the dialler.
    private var sentBefore: [UInt64: UInt64] = [:]
    /// How much of each message has left.
    private var left: [UInt64: Int] = [:]
    private var isHonest = true
    private var isCancelled = false

    init(_ input: inout FuzzInput) {
        dialler = LinkSide(.dialler, Self.hello(&input, LinkSide.api, to: LinkSide.worker))
        acceptor = LinkSide(.acceptor, Self.hello(&input, LinkSide.worker, to: LinkSide.api))
    }

    func report(_ reached: inout LinkRules.Reached) {
        dialler.report(&reached)
        acceptor.report(&reached)
    }

    mutating func step(_ input: inout FuzzInput) throws(BrokenRule) {
        let code = input.byte()
        let isDialler = code & 0x80 == 0
        switch code & 0x0F {
        case 0: try connect(isDialler)
        case 1: try carry(1 + Int(input.byte()), isDialler)
        case 2: try sleep(.milliseconds(Int64(input.byte()) << Int64((code >> 4 & 7) * 2)), isDialler)
        case 3: try sleepUntilDue(isDialler)
        case 4: sendMessage(Int(input.byte()))
        case 5: try sendChunk()
        case 6: answer(UInt64(input.byte()))
        case 7: try play(.leave, isDialler)
        case 8: try finish(Int(input.byte()), isDialler)
        case 9:
            try play(.disconnected, isDialler)
            try play(.disconnected, !isDialler)
        case 10: cancel(UInt64(input.byte()))
        case 11: try play(.probe, isDialler)
        default: try disturb(code, &input, isDialler)
        }
        try judge()
    }

    /// Everything that is under way arrives: then nothing may be missing.
    mutating func end() throws(BrokenRule) {
        guard isHonest else { return }
        while dialler.isConnected, !chunks.isEmpty { try sendChunk() }
        while toAcceptor.readableBytes + toDialler.readableBytes > 0 {
            let under = toAcceptor.readableBytes + toDialler.readableBytes
            try carry(.max, true)
            try carry(.max, false)
            // What lies before a side without a connection stays.
            if toAcceptor.readableBytes + toDialler.readableBytes == under { break }
        }
        try judge()
        guard dialler.isConnected, acceptor.isConnected else { return }
        let (one, other) = (dialler.peer != nil, acceptor.peer != nil)
        try rule(one && other, "open at the dialler: \(one), at the acceptor: \(other)")
        let (taken, whole, isEmpty) = (acceptor.taken, acceptor.whole, acceptor.hasNoParts)
        try rule(acceptor.hasLeft || taken == sent, "\(taken) of \(sent) were taken")
        try rule(isEmpty, "a message stays unfinished")
        try rule(isCancelled || whole == Int(taken), "\(whole) of \(taken) became whole")
        if let told = dialler.told { try rule(told == taken, "\(told) were told, \(taken) taken") }
    }

    /// What two nodes that keep the rules may rely on.
    private func judge() throws(BrokenRule) {
        guard isHonest else { return }
        let taken = acceptor.taken
        try rule(taken <= sent, "\(taken) of \(sent) were taken")
        if let told = dialler.told { try rule(taken <= told, "\(taken) were taken, \(told) told") }
        if let answered = dialler.answered {
            guard let before = sentBefore[answered] else {
                throw BrokenRule(description: "an answer to heartbeat \(answered), which nobody sent")
            }
            try rule(taken >= min(before, dialler.told ?? before), "\(taken) of \(before) were taken")
        }
        for closed in [dialler.closed, acceptor.closed] {
            try rule(closed != .protocol, "a side breaks the protocol")
            guard let closed, Self.refusals.contains(closed) else { continue }
            let isOpen = dialler.peer != nil || acceptor.peer != nil
            try rule(!isOpen && taken == 0, "refused as \(closed), and yet open")
        }
    }

    private static let refusals: [LinkMachine.CloseReason] = [.version, .cluster, .wrongNode, .ownNode]
}

// MARK: Steps

extension LinkPlay {
    private mutating func play(_ event: LinkSide.Event, _ isDialler: Bool) throws(BrokenRule) {
        send(isDialler ? try dialler.play(event) : try acceptor.play(event), isDialler)
    }

    private mutating func send(_ packets: [Packet], _ isDialler: Bool) {
        for packet in packets {
            if isDialler { toAcceptor.write(packet) } else { toDialler.write(packet) }
            if isDialler, case .heartbeat(let nonce) = packet { sentBefore[nonce] = sent }
        }
    }

    private mutating func connect(_ isDialler: Bool) throws(BrokenRule) {
        let isNew = isDialler ? dialler.connectedAt == nil : acceptor.connectedAt == nil
        try play(.connected, isDialler)
        guard isNew, isDialler ? dialler.isConnected : acceptor.isConnected else { return }
        send([.hello(isDialler ? dialler.own : acceptor.own)], isDialler)
    }

    /// The next bytes arrive; behind the last ones the end of the connection does, where the peer ended it.
    private mutating func carry(_ count: Int, _ isDialler: Bool) throws(BrokenRule) {
        guard isDialler ? dialler.isConnected : acceptor.isConnected else { return }
        let waiting = isDialler ? toDialler.readableBytes : toAcceptor.readableBytes
        guard waiting > 0 else {
            if isDialler ? acceptor.isOver : dialler.isOver { try play(.disconnected, isDialler) }
            return
        }
        let length = min(count, waiting)
        let part = isDialler ? toDialler.readSlice(length: length) : toAcceptor.readSlice(length: length)
        guard let part else { return }
        send(isDialler ? try dialler.read(part) : try acceptor.read(part), isDialler)
    }

    private mutating func sleep(_ pause: Duration, _ isDialler: Bool) throws(BrokenRule) {
        let now = dialler.now + pause
        (dialler.now, acceptor.now) = (now, now)
        try play(.timer, isDialler)
        try play(.timer, !isDialler)
    }

    private mutating func sleepUntilDue(_ isDialler: Bool) throws(BrokenRule) {
        let due = isDialler ? dialler.nextDeadline : acceptor.nextDeadline
        try sleep(due.map { max(.zero, $0 - dialler.now) } ?? .zero, isDialler)
    }

    private mutating func sendMessage(_ count: Int) {
        guard dialler.isConnected, dialler.told == nil, !dialler.hasLeft else { return }
        sent += 1
        var rest = ByteBuffer(bytes: (0..<count).map { Self.byte($0, of: sent) })
        let first = rest.readSlice(length: min(count, 8)) ?? ByteBuffer()
        let head = MessageHead(
            id: sent, kind: .cast, topic: Topic(unchecked: "t"), sequence: sent, sentAtMicroseconds: 1,
            timeLeftMicroseconds: 1, total: UInt64(count))
        left[sent] = first.readableBytes
        send([.message(head, first)], true)
        chunks.append(sent, isReply: false, rest)
    }

    private mutating func sendChunk() throws(BrokenRule) {
        guard dialler.isConnected, let chunk = chunks.next() else { return }
        let from = left[chunk.id] ?? 0
        let isSame = chunk.bytes.readableBytesView.enumerated().allSatisfy {
            $0.element == Self.byte(from + $0.offset, of: chunk.id)
        }
        try rule(isSame && (1...8).contains(chunk.bytes.readableBytes), "a chunk of \(chunk.id) at \(from)")
        left[chunk.id] = from + chunk.bytes.readableBytes
        send([.chunk(id: chunk.id, isReply: chunk.isReply, chunk.bytes)], true)
    }

    private static func byte(_ place: Int, of id: UInt64) -> UInt8 {
        UInt8(truncatingIfNeeded: id &* 31 &+ UInt64(place))
    }

    private mutating func answer(_ id: UInt64) {
        guard id > 0, id <= acceptor.taken, acceptor.isConnected else { return }
        send([.reply(ReplyHead(id: id, outcome: .accepted, total: 0), ByteBuffer())], false)
    }

    private mutating func cancel(_ id: UInt64) {
        guard id > 0, id <= sent, dialler.isConnected else { return }
        isCancelled = chunks.forget(id, isReply: false) || isCancelled
        send([.cancel(id: id)], true)
    }

    private mutating func finish(_ number: Int, _ isDialler: Bool) throws(BrokenRule) {
        let (reasons, goodbyes) = (LinkMachine.CloseReason.allCases, Goodbye.Reason.allCases)
        let reason = reasons[number % reasons.count]
        // Nobody says this of itself: it is for the peer's mistakes.
        if reason == .protocol || Self.refusals.contains(reason) { isHonest = false }
        try play(.finish(reason, goodbyes[number / 16 % goodbyes.count]), isDialler)
    }

    /// What only a broken or hostile peer does.
    private mutating func disturb(
        _ code: UInt8, _ input: inout FuzzInput, _ isDialler: Bool
    ) throws(BrokenRule) {
        isHonest = false
        switch code & 0x0F {
        case 12: try play(.received(Self.packet(&input)), isDialler)
        case 13:
            let errors = WireError.allCases
            let number = Int(input.byte())
            try play(number < errors.count ? .malformed(errors[number]) : .exceeded, isDialler)
        case 14: try play(.inputClosed, isDialler)
        default:
            guard isDialler ? dialler.isConnected : acceptor.isConnected else { return }
            let bytes = input.bytes(Int(input.byte()))
            send(isDialler ? try dialler.read(bytes) : try acceptor.read(bytes), isDialler)
        }
    }
}

// MARK: What an input says

extension LinkPlay {
    private static let stranger = NodeIdentity(name: "worker-2", incarnation: Incarnation(9))

    private static func hello(_ input: inout FuzzInput, _ node: NodeIdentity, to peer: NodeIdentity) -> Hello
    {
        let (bits, wish) = (input.byte(), UInt32(input.byte()))
        let purposes: [Hello.Purpose] = [.persistent, .ephemeral, .service, .persistent]
        var hello = Hello(
            purpose: purposes[Int(bits & 3)], cluster: bits & 4 == 0 ? "demo" : "other",
            node: bits & 0x80 == 0 ? node : peer, messageMax: 1 << 20)
        let versions: [(UInt8, UInt8)] = [(1, 1), (1, 2), (2, 3), (3, 3)]
        (hello.versionMin, hello.versionMax) = versions[Int(bits >> 3 & 3)]
        let anyStart = NodeIdentity(name: peer.name, incarnation: Incarnation(0))
        hello.expected = [peer, anyStart, nil, stranger][Int(bits >> 5 & 3)]
        hello.heartbeatMilliseconds = wish << (wish & 15)
        return hello
    }

    private static func packet(_ input: inout FuzzInput) -> Packet {
        let (code, number) = (input.byte(), UInt64(input.byte()))
        switch code & 0x0F {
        case 0: return hello(&input, LinkSide.api, to: LinkSide.worker)
        case 1: return hello(&input, LinkSide.worker, to: LinkSide.api)
        case 2:
            let reasons = Goodbye.Reason.allCases
            let reason = reasons[Int(code >> 4) % reasons.count]
            // Of the refusals every other one says when to come back, be it in seven weeks.
            let comeBack: UInt32? =
                reason == .limit && number & 1 == 1 ? UInt32(number) << (number & 24) : nil
            return .goodbye(Goodbye(reason, taken: number, comeBackMilliseconds: comeBack))
        case 3, 4: return part(&input, number & 7, isReply: code & 0x0F == 4)
        case 5, 6: return .chunk(id: number & 7, isReply: code & 1 == 0, input.bytes(1 + Int(code >> 4)))
        case 7: return .cancel(id: number & 7)
        case 8: return .heartbeat(number)
        case 9: return .heartbeatAnswer(number)
        case 10: return .credit(Credit(topic: "t", messages: UInt32(number), bytes: number))
        case 11: return .repair(.since(stream: number, milliseconds: 1))
        case 12: return .confirmed(number)
        default: return .repair(.gone(stream: number, 1...number + 1))
        }
    }

    private static func hello(
        _ input: inout FuzzInput, _ node: NodeIdentity, to peer: NodeIdentity
    ) -> Packet { .hello(hello(&input, node, to: peer)) }

    /// The head of a message or reply, with nothing or something missing, or very much.
    private static func part(_ input: inout FuzzInput, _ id: UInt64, isReply: Bool) -> Packet {
        let first = input.bytes(Int(input.byte() & 0x0F))
        let missing = UInt64(input.byte())
        let total = UInt64(first.readableBytes) + (missing < 0xF0 ? missing : missing << 36)
        if isReply { return .reply(ReplyHead(id: id, outcome: .accepted, total: total), first) }
        let head = MessageHead(
            id: id, kind: .call, topic: Topic(unchecked: "t"), sequence: id, sentAtMicroseconds: 1,
            timeLeftMicroseconds: 1, total: total)
        return .message(head, first)
    }
}
