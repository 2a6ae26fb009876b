import CastnetCore
import CastnetMulticast
import Logging
import NIOCore

/// Drives the directory machine on the node's event loop: beacons, discovery sources, timers, and what others
/// ask of it.
///
/// Confined to the loop, which makes it sendable.
final class DirectoryShell: @unchecked Sendable {
    private let loop: any EventLoop
    private let settings: DirectorySettings
    private var interface: InterfaceChoice?
    private let node: NodeSettings
    private let listening: HostPort
    private let log: Logger
    private let feeds: [DiscoveryFeed]
    private var machine: DirectoryMachine
    private var feeding: [Task<Void, Never>] = []
    private var beacons: BeaconSource?
    private var isOpening = false
    private var reopening: Scheduled<Void>?
    /// True once it was said that beacons do not work, until they do.
    private var isWarned = false
    private var timer: (at: Instant, task: Scheduled<Void>)?
    private var buffer = ByteBufferAllocator().buffer(capacity: BeaconFormat.datagramSizeMax)
    private var version: UInt64 = 0
    private var stopping: EventLoopPromise<Void>?
    private var isStopped = false
    /// The membership may have changed.
    var onChange: () -> Void = {}
    var onEvent: (DirectoryEvent) -> Void = { _ in }
    /// Says beacons over links: to a partner, and to a peer on the link on which it has just said some.
    var onExchange: (ExchangePartner, [ByteBuffer]) -> Void = { _, _ in }
    var onAnswer: (NodeIdentity, [ByteBuffer]) -> Void = { _, _ in }

    init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, listening: HostPort,
        unixPath: String? = nil, channels: [NodeRecord.Channel], discovery: [any Discovery] = [],
        seed: UInt64, log: Logger
    ) {
        self.loop = loop
        self.log = log
        settings = configuration.directory
        feeds = discovery.map { DiscoveryFeed($0, log: log) }
        let node = configuration.node
        self.node = node
        self.listening = listening
        interface = Self.interface(node, listening: listening, log: log)
        let own = NodeRecord(
            identity: identity, cluster: node.cluster, instance: node.instance,
            addresses: Self.addresses(node, listening: listening, interface: interface),
            unixPath: unixPath, hostID: HostID.current, channels: channels)
        var rules = DirectoryMachine.Rules()
        rules.beacons = settings.beacon != nil && interface != nil
        rules.interval = settings.beacon?.interval ?? rules.interval
        rules.membersMax = configuration.limits.members
        rules.seeds = settings.seeds
        machine = DirectoryMachine(
            own: own, staticEntries: settings.staticEntries, rules: rules, seed: seed,
            now: MonotonicClock.now)
    }

    private static func interface(
        _ node: NodeSettings, listening: HostPort, log: Logger
    ) -> InterfaceChoice? {
        do {
            return try InterfaceChoice(
                name: node.interface, listen: node.advertise?.host ?? listening.host)
        } catch {
            log.warning(
                "no interface for beacons: only other sources find peers",
                metadata: ["castnet.error": "\(error)"])
            return nil
        }
    }

    /// What peers are told: the advertised address, else the one listened on, else the interface's.
    private static func addresses(
        _ settings: NodeSettings, listening: HostPort, interface: InterfaceChoice?
    ) -> [HostPort] {
        if let advertise = settings.advertise {
            return [
                HostPort(host: advertise.host, port: advertise.port == 0 ? listening.port : advertise.port)
            ]
        }
        guard ["0.0.0.0", "::"].contains(listening.host) else { return [listening] }
        let host = interface.map { DatagramAddress(address: $0.address, port: 0).host } ?? "127.0.0.1"
        return [HostPort(host: host, port: listening.port)]
    }

    /// The node is on another interface now: beacons go there, and peers are told at once where it listens.
    func moved(to interface: InterfaceChoice) -> EventLoopFuture<Void> {
        self.interface = interface
        reopening?.cancel()
        _ = beacons?.close()
        beacons = nil
        return openBeacons().map { [self] in
            update { $0.addresses = Self.addresses(node, listening: listening, interface: interface) }
        }
    }

    // MARK: Life

    /// Begins to announce, to listen and to ask. Succeeds even where beacons cannot work: that is a warning,
    /// tried again with pauses, and the other sources carry on.
    func start() -> EventLoopFuture<Void> {
        for (index, feed) in feeds.enumerated() {
            feed.changed(machine.own)
            feeding.append(Task { await feed.run { event in await self.discovered(event, from: index) } })
        }
        return openBeacons().map { self.perform(self.machine.start(now: MonotonicClock.now)) }
    }

    /// Says goodbye to the group, three times, and to the sources; the future completes when all is closed.
    func stop() -> EventLoopFuture<Void> {
        if isStopped { return loop.makeSucceededVoidFuture() }
        if let stopping { return stopping.futureResult }
        let promise = loop.makePromise(of: Void.self)
        stopping = promise
        reopening?.cancel()
        for task in feeding { task.cancel() }
        feeding = []
        perform(machine.stop(now: MonotonicClock.now))
        return promise.futureResult
    }

    private func finish() {
        isStopped = true
        timer?.task.cancel()
        timer = nil
        let (feeds, own) = (feeds, machine.own)
        let closed = beacons?.close() ?? loop.makeSucceededVoidFuture()
        beacons = nil
        guard let promise = stopping else { return }
        stopping = nil
        guard !feeds.isEmpty else { return closed.cascade(to: promise) }
        Task {
            for feed in feeds { await feed.withdraw(own) }
            closed.cascade(to: promise)
        }
    }

    // MARK: Beacons

    private func openBeacons() -> EventLoopFuture<Void> {
        guard let beacon = settings.beacon, let interface, !isOpening, stopping == nil, !isStopped else {
            return loop.makeSucceededVoidFuture()
        }
        isOpening = true
        return BeaconSource.open(
            on: loop, settings: beacon, interface: interface,
            received: { [weak self] in self?.received($0, from: $1) },
            failed: { [weak self] in self?.beaconsFailed($0) }
        ).map { source in
            self.isOpening = false
            if self.stopping != nil || self.isStopped {
                _ = source.close()
            } else {
                self.beacons = source
            }
        }.flatMapErrorThrowing { error in
            self.isOpening = false
            self.beaconsFailed(error)
        }
    }

    /// The socket is gone: an interface went away, a packet filter refused. Warned of once, until it works.
    private func beaconsFailed(_ error: any Error) {
        beacons = nil
        if !isWarned {
            isWarned = true
            log.warning(
                "beacons do not work: other sources and known peers carry on",
                metadata: ["castnet.interface": "\(interface?.name ?? "none")", "castnet.error": "\(error)"])
        }
        reopenBeacons(in: .milliseconds(Int64.random(in: 500...1500)))
    }

    private func reopenBeacons(in pause: TimeAmount) {
        guard stopping == nil, !isStopped else { return }
        reopening?.cancel()
        reopening = loop.scheduleTask(in: pause) { [weak self] in
            guard let self else { return }
            _ = beacons?.close()
            beacons = nil
            _ = openBeacons()
            // An open socket may still be cut off: fresh ones are tried until the own beacons come back.
            if machine.isSilent { reopenBeacons(in: .seconds(5)) }
        }
    }

    private func received(_ datagram: ByteBuffer, from address: SocketAddress) {
        guard !isStopped else { return }
        do throws(BeaconFault) {
            let beacon = try Beacon(decoding: datagram)
            let source = address.ipAddress.map {
                HostPort(host: $0, port: UInt16(clamping: address.port ?? 0))
            }
            perform(machine.received(beacon, from: source, now: MonotonicClock.now))
        } catch {
            machine.rejected(error)
        }
    }

    private func send(_ beacon: Beacon) {
        buffer.clear()
        beacon.encode(into: &buffer)
        // What cannot be queued is lost like any datagram: everything is said again.
        guard beacons?.send(buffer) == true else { return }
        machine.sent(bytes: buffer.readableBytes)
    }

    private static func encoded(_ beacon: Beacon) -> ByteBuffer {
        var buffer = ByteBuffer()
        beacon.encode(into: &buffer)
        return buffer
    }

    /// A beacon that came over a link.
    func exchanged(_ word: ByteBuffer, with peer: NodeIdentity) {
        guard !isStopped else { return }
        do throws(BeaconFault) {
            let beacon = try Beacon(decoding: word, sizeMax: BeaconFormat.linkSizeMax)
            perform(machine.exchanged(beacon, with: peer, now: MonotonicClock.now))
        } catch {
            machine.rejected(error)
        }
    }

    // MARK: Changes and facts

    /// What this node tells the others now.
    var own: NodeRecord { machine.own }

    func update(services: [NodeRecord.Service], subscriptions: [TopicPattern]) {
        update {
            $0.services = services
            $0.subscriptions = subscriptions
        }
    }

    /// The node serves, subscribes, listens or joins something else from now on.
    func update(_ change: (inout NodeRecord) -> Void) {
        var record = machine.own
        change(&record)
        let version = machine.own.version
        perform(machine.updateOwn(record, now: MonotonicClock.now))
        guard machine.own.version != version else { return }
        for feed in feeds { feed.changed(machine.own) }
    }

    /// Where the own streams stand, for the next digests.
    func setHeads(_ heads: [Beacon.Head]) { machine.setHeads(heads) }

    /// A peer said hello on a link.
    func met(_ peer: NodeIdentity) { link(.opened(address: nil), peer: peer) }

    /// A link tells of its peer. ``LinkFact/heard`` is wanted a few times per beacon interval, not for
    /// every message.
    func link(_ fact: LinkFact, peer: NodeIdentity) {
        perform(machine.link(fact, peer: peer, now: MonotonicClock.now))
    }

    /// Nobody answered where `peer` should listen.
    func dialFailed(_ peer: NodeIdentity) { perform(machine.dialFailed(peer, now: MonotonicClock.now)) }

    private func discovered(_ event: DiscoveryEvent, from source: Int) async {
        let handled = loop.submit { [weak self] in
            guard let self else { return }
            let now = MonotonicClock.now
            switch event {
            case .found(let node): perform(machine.discovered(node.record, source: source, now: now))
            case .gone(let name): perform(machine.withdrawn(name, source: source, now: now))
            }
        }
        try? await handled.get()
    }

    // MARK: Driving

    private func perform(_ actions: [DirectoryAction]) {
        var hasSent = false
        for action in actions {
            switch action {
            case .send(let beacon):
                send(beacon)
                hasSent = true
            case .exchange(let partner, let words): onExchange(partner, words.map(Self.encoded))
            case .tell(let peer, let words): onAnswer(peer, words.map(Self.encoded))
            case .changed(let event):
                follow(event)
                onEvent(event)
            case .stopped: finish()
            }
        }
        if hasSent { beacons?.flush() }
        if machine.viewVersion != version {
            version = machine.viewVersion
            onChange()
        }
        arm()
    }

    private func follow(_ event: DirectoryEvent) {
        switch event {
        case .beaconsSilent: reopenBeacons(in: .milliseconds(Int64.random(in: 0...500)))
        case .beaconsBack: isWarned = false
        default: break
        }
    }

    private func arm() {
        let next = isStopped ? nil : machine.nextDeadline
        if let timer, timer.at == next { return }
        timer?.task.cancel()
        timer = next.map { at in
            (at, loop.scheduleTask(deadline: at.nioDeadline) { [weak self] in self?.fire() })
        }
    }

    private func fire() {
        timer = nil
        perform(machine.tick(now: MonotonicClock.now))
    }

    // MARK: Views

    func members(serving topic: Topic) -> [Member] { machine.members(serving: topic) }

    func members(hearing topic: Topic) -> [Member] { machine.members(hearing: topic, includingOwn: false) }

    /// Grows whenever a view may have changed.
    var viewVersion: UInt64 { machine.viewVersion }

    func record(of name: String) -> NodeRecord? { machine.record(of: name) }

    /// The other nodes that have `channel` open and serve or subscribe anything.
    func nodes(hearing channel: String) -> [NodeIdentity] {
        let own = machine.own.identity
        return nodes().lazy.filter { $0.state == .alive || $0.state == .suspect }.map(\.record)
            .filter { record in
                record.identity != own && !(record.services.isEmpty && record.subscriptions.isEmpty)
                    && record.channels.contains { $0.name == channel && $0.joined }
            }.map(\.identity)
    }

    /// The smallest MTU of the other nodes that have joined a channel; nil: there is none.
    func smallestMTU(on channel: String) -> Int? {
        let own = machine.own.identity
        return nodes().lazy.filter { $0.state == .alive || $0.state == .suspect }
            .filter { $0.record.identity != own }
            .compactMap { $0.record.channels.first { $0.name == channel && $0.joined } }
            .map { Int($0.mtu) }.min()
    }

    func nodes() -> [DirectoryNode] { machine.nodes(now: MonotonicClock.now) }

    /// Where a node is known from, in a word: the best source's, a ``Discovery`` source by its name.
    func source(of node: DirectoryNode) -> String {
        let label = node.sources.label
        guard label == RecordSources.discovery.label, let number = node.discoverers.min() else {
            return label
        }
        return feeds[number].name
    }

    /// What the directory counted.
    var counters: CounterSet { machine.counters }
}

extension NodeRecord.Channel {
    /// A channel that is open here.
    init(_ facts: PGMChannel.Facts) {
        self.init(
            name: facts.name, digest: facts.digest, streamID: facts.streamID,
            mtu: UInt16(clamping: facts.mtu),
            joined: true)
    }
}
