import CastnetCore
import CastnetMulticast
import Foundation
import NIOCore

extension Node {
    /// Counters, links, channels, topics and limits as they are now.
    public func snapshot() async throws -> NodeSnapshot {
        try await loop.submit { [shell] in shell.snapshot() }.get()
    }

    /// The node's counters and those of its channels; not the directory's.
    var allCounters: CounterSet {
        var all = counters.values
        for channel in openChannels { all.merge(channel.channel.counters) }
        return all
    }
}

/// Bytes of this process that are in memory; nil where the system does not say.
private var residentBytes: Int? {
    let fields = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    return fields.flatMap { $0.count > 1 ? Int($0[1]) : nil }.map { $0 * Int(sysconf(Int32(_SC_PAGESIZE))) }
}

extension NodeShell {
    /// The JSON of an admin page.
    func page(for request: AdminRequest) throws -> Data? {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        switch request {
        case .status: return try encoder.encode(snapshot())
        case .members: return try encoder.encode(summaries().map(MemberSnapshot.init))
        case .refused: return nil
        }
    }

    /// The node as it is now.
    func snapshot() -> NodeSnapshot {
        var counters = node?.allCounters ?? counters.values
        if let directory { counters.merge(directory.counters) }
        let channels = (node?.openChannels ?? []).map { open in
            let facts = open.channel.facts
            return ChannelSnapshot(
                name: facts.name, stream: hexadecimal(facts.streamID), interface: facts.interface.name,
                mtu: facts.mtu, window: facts.window)
        }
        return NodeSnapshot(
            node: identity.name, incarnation: identity.incarnation.description,
            listen: node?.listenAddress?.description, uptime: uptime.seconds, counters: counters.labelled,
            channels: channels, links: unicast?.snapshot() ?? [], topics: registry.snapshot,
            hot: unicast?.hotTopics.hot(now: MonotonicClock.now).map { rate in
                HotTopicSnapshot(
                    topic: rate.topic.name, perMinute: rate.perMinute, isPromoted: rate.isPromoted)
            } ?? [],
            limits: limits(counters))
    }

    private func limits(_ counters: CounterSet) -> [LimitSnapshot] {
        let limits = configuration.limits
        let usage = unicast?.usage ?? Unicast.Usage()
        let rows: [(String, Int?, Int, Counter)] = [
            ("connections", usage.connections, usage.connectionsMax, .limitConnectionsHit),
            ("per-peer", nil, limits.perPeer, .limitPerPeerHit),
            ("per-address", nil, limits.perAddress, .limitPerAddressHit),
            ("dials", usage.dials, limits.dials, .limitDialsHit),
            ("hellos", nil, limits.hellos, .limitHellosHit),
            ("message", nil, limits.message, .limitMessageHit),
            ("memory", residentBytes, limits.memory, .limitMemoryHit),
            ("pending-calls", usage.pendingCalls, limits.pendingCalls, .limitPendingCallsHit),
            ("members", directory?.nodes().count, limits.members, .limitMembersHit),
            ("topics", registry.topicCount, limits.topics, .limitTopicsHit),
            (
                "subscription-backlog", registry.backlogBytes, limits.subscriptionBacklog,
                .limitSubscriptionBacklogHit
            ),
        ]
        return rows.map { name, used, max, counter in
            LimitSnapshot(name: name, used: used, max: max, hit: counters[counter])
        }
    }
}
