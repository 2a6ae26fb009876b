import CastnetCore
import CastnetMulticast
import Logging
import NIOCore

/// Drives the directory machine on the node's event loop: beacons, timers, and what others ask of it.
///
/// Confined to the loop, which makes it sendable.
final class DirectoryShell: @unchecked Sendable {
    private let loop: any EventLoop
    private let configuration: Configuration
    private let counters: NodeCounters
    private let log: Logger
    private var machine: DirectoryMachine
    private var beacons: BeaconSource?
    private var interface: InterfaceChoice?
    private var timer: (at: Instant, task: Scheduled<Void>)?
    private var stopped: EventLoopPromise<Void>?
    private var version: UInt64 = 0
    /// The membership may have changed.
    var onChange: () -> Void = {}
    var onEvent: (DirectoryEvent) -> Void = { _ in }

    init(
        loop: any EventLoop, identity: NodeIdentity, configuration: Configuration, listening: HostPort,
        channels: [NodeRecord.Channel], counters: NodeCounters, seed: UInt64, log: Logger
    ) {
        self.loop = loop
        self.configuration = configuration
        self.counters = counters
        self.log = log
        let settings = configuration.node
        interface = try? InterfaceChoice(
            name: settings.interface, listen: settings.advertise?.host ?? listening.host)
        let own = NodeRecord(
            identity: identity, cluster: settings.cluster, instance: settings.instance,
            addresses: Self.addresses(settings, listening: listening, interface: interface),
            hostID: HostID.current, channels: channels)
        var rules = DirectoryMachine.Rules()
        rules.beacons = configuration.directory.beacon != nil && interface != nil
        rules.interval = configuration.directory.beacon?.interval ?? .seconds(1)
        rules.membersMax = configuration.limits.members
        machine = DirectoryMachine(
            own: own, staticEntries: configuration.directory.staticEntries, rules: rules, seed: seed,
            now: MonotonicClock.now)
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

    // MARK: Life

    /// Joins the beacon group and starts to announce; where that fails the other sources go on alone.
    func start() -> EventLoopFuture<Void> {
        guard let settings = configuration.directory.beacon, let interface else {
            perform(machine.start(now: MonotonicClock.now))
            return loop.makeSucceededVoidFuture()
        }
        let opening = BeaconSource.open(settings, interface: interface, loop: loop) {
            [weak self] bytes, from in
            self?.received(bytes, from)
        }
        return opening.map { self.beacons = $0 }.recover { [log] error in
            log.warning(
                "no beacons: only other sources find peers",
                metadata: ["castnet.interface": "\(interface.name)", "castnet.error": "\(error)"])
        }.map { [self] in perform(machine.start(now: MonotonicClock.now)) }
    }

    /// Says goodbye, twice; the future completes when both are out.
    func stop() -> EventLoopFuture<Void> {
        let promise = loop.makePromise(of: Void.self)
        stopped = promise
        perform(machine.stop(now: MonotonicClock.now))
        return promise.futureResult
    }

    // MARK: Changes

    func update(services: [NodeRecord.Service], subscriptions: [TopicPattern]) {
        var record = machine.own
        record.services = services
        record.subscriptions = subscriptions
        perform(machine.updateOwn(record, now: MonotonicClock.now))
    }

    /// A peer said hello on a link.
    func met(_ peer: NodeIdentity) {
        perform(machine.link(.opened(address: nil), peer: peer, now: MonotonicClock.now))
    }

    private func received(_ bytes: ByteBuffer, _ from: HostPort?) {
        counters.add(.beaconIn)
        do {
            let beacon = try Beacon(decoding: bytes)
            perform(machine.received(beacon, from: from, now: MonotonicClock.now))
        } catch {
            counters.add(.beaconMalformed)
            machine.rejected(error)
        }
    }

    private func perform(_ actions: [DirectoryAction]) {
        for action in actions {
            switch action {
            case .send(let beacon):
                var datagram = ByteBufferAllocator().buffer(capacity: 1200)
                beacon.encode(into: &datagram)
                counters.add(.beaconOut)
                machine.sent(bytes: datagram.readableBytes)
                beacons?.send(datagram)
            case .changed(let event): onEvent(event)
            case .stopped:
                beacons?.close()
                stopped?.succeed()
                stopped = nil
            }
        }
        if machine.viewVersion != version {
            version = machine.viewVersion
            onChange()
        }
        arm()
    }

    private func arm() {
        guard let next = machine.nextDeadline else { return }
        if let timer, timer.at <= next { return }
        timer?.task.cancel()
        timer = (
            next,
            loop.scheduleTask(deadline: next.nioDeadline) { [weak self] in
                guard let self else { return }
                timer = nil
                perform(machine.tick(now: MonotonicClock.now))
            }
        )
    }

    // MARK: Views

    func members(serving topic: Topic) -> [Member] { machine.members(serving: topic) }

    func members(hearing topic: Topic) -> [Member] { machine.members(hearing: topic, includingOwn: false) }

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

    func nodes() -> [DirectoryNode] { machine.nodes(now: MonotonicClock.now) }
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
