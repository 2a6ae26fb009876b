/// Who serves and who subscribes what, by topic, with the finished member lists cached until they change.
///
/// It holds names only; the lists are made of the entries handed in.
struct MemberIndex: Sendable {
    /// The members of one topic, ordered by node and server name: all, and all but the own node.
    struct View: Sendable {
        var all: [Member]
        var others: [Member]
    }

    /// Topics with a cached view; past it the cache starts anew.
    static let cachedTopicsMax = 8192

    private var servers: [Topic: Set<String>] = [:]
    private var exact: [Topic: Set<String>] = [:]
    private var patterns: [TopicPattern: Set<String>] = [:]
    private var servingViews: [Topic: View] = [:]
    private var hearingViews: [Topic: View] = [:]

    /// Grows with every change that can alter a view.
    private(set) var version: UInt64 = 0

    mutating func insert(_ record: NodeRecord) { update(record, adding: true) }

    mutating func remove(_ record: NodeRecord) { update(record, adding: false) }

    /// Drops the views a node is part of: its addresses or its state changed, its topics did not.
    mutating func touch(_ record: NodeRecord) {
        version += 1
        for service in record.services {
            servingViews[service.topic] = nil
            hearingViews[service.topic] = nil
        }
        for pattern in record.subscriptions { dropViews(heardBy: pattern) }
    }

    private mutating func update(_ record: NodeRecord, adding: Bool) {
        let name = record.identity.name
        touch(record)
        for service in record.services { Self.change(&servers, service.topic, name, adding) }
        for pattern in record.subscriptions {
            if pattern.isExact {
                Self.change(&exact, Topic(unchecked: pattern.text), name, adding)
            } else {
                Self.change(&patterns, pattern, name, adding)
            }
        }
    }

    private static func change<Key: Hashable>(
        _ table: inout [Key: Set<String>], _ key: Key, _ name: String, _ adding: Bool
    ) {
        if adding {
            table[key, default: []].insert(name)
        } else {
            table[key]?.remove(name)
            if table[key]?.isEmpty == true { table[key] = nil }
        }
    }

    private mutating func dropViews(heardBy pattern: TopicPattern) {
        if pattern.isExact {
            hearingViews[Topic(unchecked: pattern.text)] = nil
        } else {
            for topic in hearingViews.keys where pattern.matches(topic) { hearingViews[topic] = nil }
        }
    }

    /// Members that serve `topic`, one per node and server name: those that can be reached; where there is
    /// none those that could not be reached lately; where there is none either, nodes that are gone but that
    /// a static source still vouches for.
    mutating func serving(_ topic: Topic, entries: [String: DirectoryEntry], own: String) -> View {
        if let view = servingViews[topic] { return view }
        var (reachable, unreachable, vouched): ([Member], [Member], [Member]) = ([], [], [])
        for name in (servers[topic] ?? []).sorted() {
            guard let entry = entries[name] else { continue }
            let names = Set(entry.record.services.lazy.filter { $0.topic == topic }.map(\.server)).sorted()
            let members = names.map { Member(of: entry.record, server: $0, serves: true) }
            if entry.isPresent {
                if entry.unreachable { unreachable += members } else { reachable += members }
            } else if entry.isVouched {
                vouched += members
            }
        }
        let best = reachable.isEmpty ? (unreachable.isEmpty ? vouched : unreachable) : reachable
        let view = Self.view(best, own: own)
        if servingViews.count >= Self.cachedTopicsMax { servingViews.removeAll() }
        servingViews[topic] = view
        return view
    }

    /// Nodes that serve or subscribe `topic`, each once.
    mutating func hearing(_ topic: Topic, entries: [String: DirectoryEntry], own: String) -> View {
        if let view = hearingViews[topic] { return view }
        let serving = servers[topic] ?? []
        var names = serving.union(exact[topic] ?? [])
        for (pattern, subscribers) in patterns where pattern.matches(topic) { names.formUnion(subscribers) }
        var members: [Member] = []
        for name in names.sorted() {
            guard let entry = entries[name], entry.isPresent else { continue }
            let server = entry.record.services.lazy.filter { $0.topic == topic }.map(\.server).min()
            members.append(Member(of: entry.record, server: server ?? name, serves: server != nil))
        }
        let view = Self.view(members, own: own)
        if hearingViews.count >= Self.cachedTopicsMax { hearingViews.removeAll() }
        hearingViews[topic] = view
        return view
    }

    private static func view(_ members: [Member], own: String) -> View {
        View(all: members, others: members.filter { $0.identity.name != own })
    }
}

extension Member {
    fileprivate init(of record: NodeRecord, server: String, serves: Bool) {
        self.init(
            identity: record.identity, server: server, instance: record.instance,
            addresses: record.addresses, unixPath: record.unixPath, hostID: record.hostID, serves: serves)
    }
}
