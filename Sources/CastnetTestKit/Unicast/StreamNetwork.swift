package import Castnet
package import CastnetCore
import DequeModule
import Foundation
package import NIOCore
import NIOEmbedded

/// Connections between the nodes of a ``UnicastSimulation``, in virtual time.
///
/// Bytes arrive whole and in order after a while, cut anywhere, as those of TCP do, until a way is blocked, a
/// connection is reset or a host falls silent. Confined to the thread of its loop.
package final class StreamNetwork: @unchecked Sendable {
    /// Two hosts, in either order.
    struct Way: Hashable {
        let hosts: Set<String>

        init(_ one: String, _ other: String) { hosts = [one, other] }
    }

    static let dialTime = Duration.seconds(5)

    let loop: EmbeddedEventLoop
    var generator: SeededGenerator
    /// How long bytes are under way.
    var latency: ClosedRange<Duration> = .microseconds(50)...(.milliseconds(1))
    /// How long a process is busy with each piece that arrives.
    var processing: Duration = .zero
    /// Until when each process is busy.
    private var busyUntil: [String: Instant] = [:]
    /// Who takes connections, by address.
    var listeners: [HostPort: (process: String, accept: (any Channel) throws -> Void)] = [:]
    private(set) var ends: [ObjectIdentifier: StreamEnd] = [:]
    private var blocked: Set<Way> = []
    private var silent: Set<String> = []
    private var dead: Set<String> = []
    /// True where a reset may come though bytes that were sent before it do not.
    var isLossy = true
    private var endCount = 0
    private(set) var bytesCarried = 0

    init(loop: EmbeddedEventLoop, seed: UInt64) {
        self.loop = loop
        generator = SeededGenerator(seed: seed)
    }

    // MARK: What happens to connections

    /// What is under way between the hosts waits until it is unblocked: nobody is told.
    func block(_ way: Way) { blocked.insert(way) }
    func unblock(_ way: Way) { blocked.remove(way) }

    /// Nothing comes from the host any more, and what goes to it is lost: its power is off.
    func silence(_ host: String) { silent.insert(host) }

    /// The process is gone: its kernel ends its connections; what has left it may arrive before that.
    func kill(_ process: String) {
        dead.insert(process)
        listeners = listeners.filter { $0.value.process != process }
        for end in openEnds where end.process == process {
            end.die()
            end.peer?.arrives(.reset)
        }
    }

    /// Resets some connection.
    func resetAny() {
        guard let end = openEnds.randomElement(using: &generator) else { return }
        end.arrives(.reset)
        end.peer?.arrives(.reset)
    }

    /// In an order that does not hang on where they lie in memory.
    private var openEnds: [StreamEnd] { ends.values.sorted { $0.number < $1.number } }

    func carries(_ way: Way) -> Bool { !blocked.contains(way) && silent.isDisjoint(with: way.hosts) }
    func isSilent(_ host: String) -> Bool { silent.contains(host) }
    func carried(_ bytes: Int) { bytesCarried += bytes }
    func forget(_ end: StreamEnd) { ends[ObjectIdentifier(end)] = nil }

    /// How long the process is busy yet; zero: it now is with one more piece.
    func busyTime(of process: String) -> Duration {
        guard processing > .zero else { return .zero }
        let now = Instant(loop)
        if let until = busyUntil[process], until > now { return until - now }
        busyUntil[process] = now + processing
        return .zero
    }

    func delay() -> Duration {
        let range = latency.lowerBound.nanoseconds...latency.upperBound.nanoseconds
        return .nanoseconds(Int64.random(in: range, using: &generator))
    }

    // MARK: Dialling

    func dial(_ address: HostPort, from host: String, _ process: String) -> EventLoopFuture<any Channel> {
        let promise = loop.makePromise(of: (any Channel).self)
        let dial = Dial(address: address, host: host, process: process, promise: promise)
        after(delay()) { [self] in knock(dial, left: Self.dialTime) }
        return promise.futureResult
    }

    private struct Dial: Sendable {
        var address: HostPort
        var host: String
        var process: String
        var promise: EventLoopPromise<any Channel>
        var way: Way { Way(host, address.host) }
    }

    /// Tries again every second where nobody says anything, as SYN packets do.
    private func knock(_ dial: Dial, left: Duration) {
        let promise = dial.promise
        guard carries(dial.way), !dead.contains(dial.process) else {
            guard left > .zero else { return promise.fail(ChannelError.connectTimeout(.seconds(5))) }
            return after(.seconds(1)) { [self] in knock(dial, left: left - .seconds(1)) }
        }
        guard let listener = listeners[dial.address] else {
            return promise.fail(IOError(errnoCode: ECONNREFUSED, reason: "simulated"))
        }
        do {
            let (near, far) = try connect(dial, to: listener.process)
            do {
                try listener.accept(far.channel)
                try far.activate()
            } catch {
                far.channel.close(promise: nil)
            }
            try near.activate()
            promise.succeed(near.channel)
        } catch {
            promise.fail(error)
        }
    }

    private func connect(_ dial: Dial, to process: String) throws -> (StreamEnd, StreamEnd) {
        let (here, there) = (dial.host, dial.address.host)
        endCount += 2
        let near = try StreamEnd(endCount, of: dial.process, host: here, remote: there, network: self)
        let far = try StreamEnd(endCount + 1, of: process, host: there, remote: here, network: self)
        near.peer = far
        far.peer = near
        for end in [near, far] { ends[ObjectIdentifier(end)] = end }
        return (near, far)
    }

    func after(_ time: Duration, _ body: @escaping @Sendable () -> Void) {
        loop.scheduleTask(in: .nanoseconds(time.nanoseconds), body)
    }
}

/// One end of a simulated connection: an embedded channel and what is under way to it. Confined to the thread
/// of its loop.
final class StreamEnd: ChannelOutboundHandler, @unchecked Sendable {
    typealias OutboundIn = ByteBuffer

    enum Arrival {
        case bytes(ByteBuffer)
        /// The peer has closed.
        case end
        case reset
    }

    /// Bytes under way past which the channel is not writable, and down to which it stays so.
    private static let writable = (high: 128 << 10, low: 64 << 10)

    let number: Int
    let process: String
    let host: String
    let channel: EmbeddedChannel
    var peer: StreamEnd?
    private let network: StreamNetwork
    private var arrivals = Deque<(at: Instant, what: Arrival)>()
    private var isWatching = false
    private var isClosed = false
    private var hasRead = false
    private var unsent: [(bytes: ByteBuffer, promise: EventLoopPromise<Void>?)] = []
    /// Bytes that have left here and not arrived.
    private var underWay = 0

    init(
        _ number: Int, of process: String, host: String, remote: String, network: StreamNetwork
    ) throws {
        self.number = number
        self.process = process
        self.host = host
        self.network = network
        channel = EmbeddedChannel(loop: network.loop)
        channel.remoteAddress = try SocketAddress(ipAddress: remote, port: 1)
        try channel.pipeline.syncOperations.addHandler(self)
    }

    func activate() throws {
        guard !isClosed else { return }
        channel.connect(to: try SocketAddress(ipAddress: "127.0.0.1", port: 1), promise: nil)
    }

    // MARK: What leaves

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        unsent.append((unwrapOutboundIn(data), promise))
    }

    func flush(context: ChannelHandlerContext) {
        let leaving = unsent
        unsent = []
        for (bytes, promise) in leaving {
            if isClosed {
                promise?.fail(ChannelError.ioOnClosedChannel)
                continue
            }
            send(bytes)
            promise?.succeed()
        }
    }

    private func send(_ bytes: ByteBuffer) {
        guard let peer, !network.isSilent(host) else { return }
        // Who closed its socket answers bytes with a reset.
        guard !peer.isClosed else { return arrives(.reset) }
        underWay += bytes.readableBytes
        peer.arrives(.bytes(bytes))
        if underWay > Self.writable.high, channel.isWritable {
            channel.isWritable = false
            channel.pipeline.fireChannelWritabilityChanged()
        }
    }

    private func delivered(_ bytes: Int) {
        underWay -= bytes
        network.carried(bytes)
        guard underWay <= Self.writable.low, !channel.isWritable, !isClosed else { return }
        channel.isWritable = true
        channel.pipeline.fireChannelWritabilityChanged()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if !isClosed {
            isClosed = true
            network.forget(self)
            // A kernel resets what is closed before all was read; what was sent may be lost with it.
            let isUnread = arrivals.contains { if case .bytes = $0.what { true } else { false } }
            arrivals = []
            if !network.isSilent(host) { peer?.arrives(isUnread ? .reset : .end) }
        }
        context.close(mode: mode, promise: promise)
    }

    // MARK: What arrives

    func arrives(_ what: Arrival) {
        guard !isClosed else { return }
        let now = Instant(network.loop)
        let at = max(arrivals.last?.at ?? now, now + network.delay())
        if case .reset = what, network.isLossy, hasRead, Bool.random(using: &network.generator) {
            // What was sent before it was lost on the way; not the hello, which `wire-links.md` 2.7 excepts.
            arrivals = [(now + network.delay(), what)]
        } else {
            arrivals.append((at, what))
        }
        watch()
    }

    private func watch(again: Duration? = nil) {
        guard !isWatching, let next = arrivals.first else { return }
        isWatching = true
        let wait = max(again ?? .zero, next.at - Instant(network.loop))
        network.after(max(.zero, wait)) { [self] in
            isWatching = false
            takeIn()
        }
    }

    private func takeIn() {
        guard !isClosed, let peer else { return }
        // What is lost on the way is sent again until it passes.
        guard network.carries(StreamNetwork.Way(host, peer.host)) else {
            if network.isSilent(host) { return }
            return watch(again: .milliseconds(20))
        }
        var isInBatch = false
        while !isClosed, let next = arrivals.first, next.at <= Instant(network.loop) {
            if case .bytes(let bytes) = next.what {
                guard isReading else {
                    watch(again: .milliseconds(1))
                    break
                }
                let busy = network.busyTime(of: process)
                guard busy == .zero else {
                    watch(again: busy)
                    break
                }
                read(bytes)
                isInBatch = true
                continue
            }
            arrivals.removeFirst()
            if isInBatch { channel.pipeline.fireChannelReadComplete() }
            isInBatch = false
            if case .end = next.what {
                channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
            } else {
                resetNow()
            }
        }
        if isInBatch, !isClosed { channel.pipeline.fireChannelReadComplete() }
        watch()
    }

    /// Reads all of a piece, or its beginning.
    private func read(_ bytes: ByteBuffer) {
        var rest = bytes
        let isCut = rest.readableBytes > 1 && Int.random(in: 0..<4, using: &network.generator) == 0
        let count =
            isCut ? Int.random(in: 1..<rest.readableBytes, using: &network.generator) : rest.readableBytes
        let piece = rest.readSlice(length: count) ?? ByteBuffer()
        if rest.readableBytes > 0 { arrivals[0].what = .bytes(rest) } else { arrivals.removeFirst() }
        hasRead = true
        channel.pipeline.fireChannelRead(piece)
        peer?.delivered(count)
    }

    private var isReading: Bool {
        let option = channel.options.first { $0.option is ChannelOptions.Types.AutoReadOption }
        return option?.value as? Bool ?? true
    }

    /// The connection breaks here: the peer's kernel, or this one, has ended it.
    func resetNow() {
        guard !isClosed else { return }
        die()
        channel.pipeline.fireErrorCaught(IOError(errnoCode: ECONNRESET, reason: "simulated"))
        channel.close(promise: nil)
    }

    /// Nothing comes in or goes out any more; its process is not told.
    func die() {
        isClosed = true
        arrivals = []
        network.forget(self)
    }
}

extension Instant {
    /// The virtual time of a loop.
    init(_ loop: EmbeddedEventLoop) { self.init(nanoseconds: Int64(loop.now.uptimeNanoseconds)) }
}

/// Dials for one host of a ``StreamNetwork``.
struct SimulatedConnector: Connector {
    let network: StreamNetwork
    let host: String
    let process: String

    func connect(to address: PeerAddress, on loop: any EventLoop) -> EventLoopFuture<any Channel> {
        switch address {
        case .tcp(let address): network.dial(address, from: host, process)
        case .unix: loop.makeFailedFuture(IOError(errnoCode: ENOENT, reason: "no sockets in a simulation"))
        }
    }
}
