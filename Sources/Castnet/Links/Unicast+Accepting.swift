package import CastnetCore
import Foundation
import Logging
package import NIOCore
import NIOPosix

/// Listening, and which connections are taken.
extension Unicast {
    /// Binds the one TCP listener; the address says which port the kernel chose.
    package func bind() -> EventLoopFuture<HostPort> {
        let listen = configuration.node.listen
        let bootstrap = acceptor()
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        return bootstrap.bind(host: listen.host, port: Int(listen.port)).map { [self] channel in
            listener = channel
            let address = channel.localAddress
            return HostPort(
                host: address?.ipAddress ?? listen.host, port: UInt16(address?.port ?? Int(listen.port)))
        }.flatMapErrorThrowing { error in
            throw CastnetError(.unreachable, "node.listen: cannot listen on \(listen)", underlying: error)
        }
    }

    /// Binds the Unix-domain socket for peers of the same user on this host; where that fails they come over
    /// TCP.
    func bindUnix(in directory: SocketDirectory) -> EventLoopFuture<Void> {
        guard configuration.node.unixSockets, HostID.current != 0 else {
            return loop.makeSucceededVoidFuture()
        }
        let path = directory.socket(of: identity, host: HostID.current)
        do {
            try directory.prepare()
            directory.removeStale(host: HostID.current)
        } catch {
            warnOfUnix(error)
            return loop.makeSucceededVoidFuture()
        }
        return acceptor().bind(unixDomainSocketPath: path).map { [self] channel in
            unixListener = channel
            unixPath = path
            // The directory lets nobody in; this says so once more.
            chmod(path, 0o600)
        }.recover { [self] in warnOfUnix($0) }
    }

    private func warnOfUnix(_ error: any Error) {
        log.warning(
            "no Unix-domain socket: peers on this host come over TCP", metadata: ["castnet.error": "\(error)"]
        )
    }

    /// What both listeners have in common.
    private func acceptor() -> ServerBootstrap {
        ServerBootstrap(group: loop)
            .serverChannelOption(.backlog, value: 1024)
            .restingWithoutDescriptors { [counters] in counters.add(.linkDescriptorsShort) }
            // The dialler may say all it has to say, end its side and wait for the answers.
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            // Who floods has one piece of 64 KiB taken in before the others have their turn.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { [self] channel in
                channel.eventLoop.makeCompletedFuture { try accept(channel) }
            }
    }

    /// Takes a connection that somebody else has dialled, or throws.
    package func accept(_ channel: any Channel) throws {
        tick()
        // Who comes over a Unix-domain socket has no address; `limits.per-peer` bounds it.
        let address = channel.remoteAddress?.ipAddress ?? ""
        let isReserved: Bool
        switch findRoom(for: address) {
        case .taken(let isInReserve): isReserved = isInReserve
        case .refused(let limit): return try refuse(channel, limit)
        }
        counters.add(.linkAccepted)
        let link = makeLink(key: nil, role: .acceptor, own: hello(purpose: .service))
        budget.accepted(link.number, from: address)
        link.isCounted = true
        link.acceptedFrom = address
        link.isReserved = isReserved
        // Where the link never got to see its channel, this is the only end it has.
        channel.closeFuture.whenComplete { [self] _ in
            discount(link)
            links[link.number] = nil
        }
        try channel.pipeline.syncOperations.addHandler(link)
    }

    private enum Room {
        case taken(isInReserve: Bool)
        /// The name of the limit.
        case refused(String)
    }

    /// Tells the peer that nothing it sends will be looked at.
    private func refuse(_ channel: any Channel, _ limit: String) throws {
        var words = channel.allocator.buffer(capacity: 256)
        words.write(.hello(hello(purpose: .service)))
        words.write(.goodbye(Goodbye(.limit, "\(limit): no more connections", taken: 0)))
        try channel.pipeline.syncOperations.addHandler(Refusal(words))
    }

    /// Makes room for a connection from `address`.
    private func findRoom(for address: String) -> Room {
        while true {
            switch budget.verdict(for: address, dialling: dials.dialsInFlight) {
            case .take: return .taken(isInReserve: false)
            case .displace(let number):
                counters.add(.limitConnectionsHit)
                pauseInCrowd()
                displace(number, "limits.connections")
            case .displaceOfAddress(let number):
                counters.add(.limitPerAddressHit)
                pauseInCrowd()
                displace(number, "limits.per-address")
            case .refuseAddress:
                counters.add(.limitPerAddressHit)
                pauseInCrowd()
                return .refused("limits.per-address")
            case .closeIdle:
                counters.add(.limitConnectionsHit)
                if makeRoom() { continue }
                pauseInCrowd()
                if budget.hasReserve(dialling: dials.dialsInFlight) { return .taken(isInReserve: true) }
                return .refused("limits.connections")
            }
        }
    }

    /// Closes a connection whose peer has not said who it is.
    private func displace(_ number: UInt64, _ limit: String) {
        guard let link = links[number] else { return budget.introduced(number) }
        link.finish(.limit, .limit, "\(limit): no hello yet, and others wait")
        discount(link)
    }

    /// Accepts nothing for a moment where connections come that find no room.
    private func pauseInCrowd() {
        guard let until = budget.crowded(now: now), !isAcceptingPaused else { return }
        isAcceptingPaused = true
        counters.add(.linkAcceptsPaused)
        setAccepting(false)
        loop.scheduleTask(deadline: until.nioDeadline) { [self] in
            isAcceptingPaused = false
            setAccepting(true)
        }
    }

    private func setAccepting(_ isOn: Bool) {
        for channel in [listener, unixListener] {
            channel?.setOption(.autoRead, value: isOn).whenFailure { _ in }
        }
    }

    /// A link's connection is gone, or going: it counts against no limit any more.
    func discount(_ link: Link) {
        guard link.isCounted else { return }
        link.isCounted = false
        budget.closed(link.number, from: link.acceptedFrom)
        guard link.key == nil, let peer = link.peer, let count = acceptedPerPeer[peer.name] else { return }
        acceptedPerPeer[peer.name] = count > 1 ? count - 1 : nil
    }

    /// The peer of an accepted link has said who it is.
    func introduced(_ link: Link, _ hello: Hello) {
        budget.introduced(link.number)
        let count = acceptedPerPeer[hello.node.name, default: 0]
        acceptedPerPeer[hello.node.name] = count + 1
        if count >= configuration.limits.perPeer {
            counters.add(.limitPerPeerHit)
            link.finish(.limit, .limit, "limits.per-peer: \(count) links")
        } else if link.isReserved, budget.isInReserve, hello.purpose != .service {
            link.finish(.limit, .limit, "limits.connections: \(budget.ordinaryMax) links are open")
        } else if isLeaving, hello.purpose != .service {
            // Members may still come for missing frames, nobody else.
            link.leave()
        } else if hello.purpose == .persistent, let time = greetings.greeted(now: now) {
            counters.add(.limitHellosHit)
            link.sendAway(for: time, "limits.hellos: \(configuration.limits.hellos) a second are taken in")
        }
    }
}

/// Says its words on a connection and closes it.
private final class Refusal: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let words: ByteBuffer

    init(_ words: ByteBuffer) { self.words = words }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(wrapOutboundOut(words), promise: nil)
        context.close(promise: nil)
    }
}

extension ServerBootstrap {
    /// Accepts nothing for a moment when the process has no descriptor left, which `counted` hears of: the
    /// kernel would report the next connection again and again.
    func restingWithoutDescriptors(_ counted: @escaping @Sendable () -> Void = {}) -> ServerBootstrap {
        serverChannelInitializer { channel in
            channel.eventLoop.makeCompletedFuture {
                try channel.pipeline.syncOperations.addHandler(AcceptRest(counted))
            }
        }
    }
}

/// Stops accepting for a moment on the kernel's word that a descriptor is short. Not to read is not enough:
/// the listener would stay readable, and its loop would spin.
private final class AcceptRest: ChannelInboundHandler {
    typealias InboundIn = any Channel
    private static let time = TimeAmount.milliseconds(50)
    private let counted: @Sendable () -> Void
    private var isResting = false

    init(_ counted: @escaping @Sendable () -> Void) { self.counted = counted }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard (error as? IOError)?.isShortage == true else { return context.fireErrorCaught(error) }
        guard !isResting else { return }
        isResting = true
        counted()
        let channel = context.channel
        channel.setOption(.autoRead, value: false).whenFailure { _ in }
        context.eventLoop.assumeIsolated().scheduleTask(in: Self.time) { [weak self] in
            self?.isResting = false
            channel.setOption(.autoRead, value: true).whenFailure { _ in }
        }
    }
}

extension IOError {
    /// True where the process or the system has too little to open a socket.
    var isShortage: Bool { [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(errnoCode) }
}

extension LinkBudget.Descriptors {
    /// Those of this process; nil where the system does not say.
    static var current: LinkBudget.Descriptors? {
        var limit = rlimit()
        #if os(Linux)
            let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        #else
            let resource = RLIMIT_NOFILE
        #endif
        guard getrlimit(resource, &limit) == 0,
            let open = try? FileManager.default.contentsOfDirectory(atPath: "/dev/fd")
        else { return nil }
        return LinkBudget.Descriptors(max: Int(clamping: limit.rlim_cur), used: open.count)
    }
}
