/// Who serves and who subscribes the topics this node uses, with the finished member lists cached until they
/// change.
///
/// A topic is in use from the first time it is asked for: then the table is searched once, and what changes
/// is followed from there on. Of ten thousand nodes' topics a node keeps its own dozen. It holds names only;
/// the lists are made of the table handed in.
struct MemberIndex: Sendable {
    /// The members of one topic, ordered by node and server name: all, and all but the own node.
    struct View: Sendable {
        var all: [Member]
        var others: [Member]
    }

    private struct Used: Sendable {
        var servers: Set<String> = []
        var hearers: Set<String> = []
        var serving: View?
        var hearing: View?

        mutating func dropViews() { (serving, hearing) = (nil, nil) }

        /// Nobody serves or subscribes the topic.
        var isVacant: Bool { servers.isEmpty && hearers.isEmpty }
    }

    /// Topics in use; past it all are forgotten, and each is searched for again.
    static let topicsMax = 65_536

    /// Of them so many that nobody serves or subscribes: past it these are forgotten. Topics come and go.
    static let vacantMax = 1024

    private var used: [Topic: Used] = [:]
    private var vacant = 0

    /// Grows with every change that can alter a view.
    private(set) var version: UInt64 = 0

    mutating func insert(_ record: NodeRecord) {
        let name = record.identity.name
        change(record) { topic, serves in
            if serves { topic.servers.insert(name) }
            topic.hearers.insert(name)
        }
    }

    mutating func remove(_ record: NodeRecord) {
        let name = record.identity.name
        change(record) { topic, _ in
            topic.servers.remove(name)
            topic.hearers.remove(name)
        }
    }

    /// Drops the views a node is part of: its addresses or its state changed, its topics did not.
    mutating func touch(_ record: NodeRecord) { change(record) { _, _ in } }

    /// Changes every topic in use that the node serves or subscribes, by the latter last.
    private mutating func change(_ record: NodeRecord, _ body: (inout Used, _ serves: Bool) -> Void) {
        version += 1
        guard !used.isEmpty else { return }
        func change(_ topic: Topic, serves: Bool) {
            guard let index = used.index(forKey: topic) else { return }
            let wasVacant = used.values[index].isVacant
            used.values[index].dropViews()
            body(&used.values[index], serves)
            vacant += (used.values[index].isVacant ? 1 : 0) - (wasVacant ? 1 : 0)
        }
        for service in record.services { change(service.topic, serves: true) }
        for pattern in record.subscriptions {
            if pattern.isExact {
                change(Topic(unchecked: pattern.text), serves: false)
            } else {
                for topic in used.keys where pattern.matches(topic) { change(topic, serves: false) }
            }
        }
        forgetVacant()
    }

    private mutating func forgetVacant() {
        guard vacant > Self.vacantMax else { return }
        used = used.filter { !$0.value.isVacant }
        vacant = 0
    }

    /// Takes the topic into use.
    private mutating func use(_ topic: Topic, _ table: NodeTable) -> Used {
        if let known = used[topic] { return known }
        var new = Used()
        for entry in table.entries where entry.record.hears(topic) {
            new.hearers.insert(entry.identity.name)
            if entry.record.serves(topic) { new.servers.insert(entry.identity.name) }
        }
        if used.count >= Self.topicsMax { (used, vacant) = ([:], 0) }
        used[topic] = new
        if new.isVacant {
            vacant += 1
            forgetVacant()
        }
        return new
    }

    /// Members that serve `topic`, one per node and server name: those that can be reached; where there is
    /// none those that could not be reached lately; where there is none either, nodes that are gone but that
    /// a static source still vouches for.
    mutating func serving(_ topic: Topic, entries: NodeTable, own: String) -> View {
        let known = use(topic, entries)
        if let view = known.serving { return view }
        var (reachable, unreachable, vouched): ([Member], [Member], [Member]) = ([], [], [])
        for name in known.servers.sorted() {
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
        used[topic]?.serving = view
        return view
    }

    /// Nodes that serve or subscribe `topic`, each once.
    mutating func hearing(_ topic: Topic, entries: NodeTable, own: String) -> View {
        let known = use(topic, entries)
        if let view = known.hearing { return view }
        var members: [Member] = []
        for name in known.hearers.sorted() {
            guard let entry = entries[name], entry.isPresent else { continue }
            let server = entry.record.services.lazy.filter { $0.topic == topic }.map(\.server).min()
            members.append(Member(of: entry.record, server: server ?? name, serves: server != nil))
        }
        let view = Self.view(members, own: own)
        used[topic]?.hearing = view
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
