package import CastnetCore
import Synchronization

/// What this node serves and subscribes, and the way of every arriving message to it.
///
/// Called from any thread: the loop for links, the engine thread for multicast, callers for local fanouts.
package final class Registry: Sendable {
    private let topicsMax: Int
    private let counters: NodeCounters
    private let state = Mutex(State())

    private struct State {
        var served: [Topic: [ServedTopic]] = [:]
        var subscriptions: [SubscriptionQueue] = []
        /// Who gets a topic's fanouts; rebuilt on demand, forgotten on every change, bounded like the topics.
        var listeners: [Topic: Listeners] = [:]
        var isClosed = false
        var topicCount: Int { served.values.reduce(0) { $0 + $1.count } + subscriptions.count }
    }

    /// Who gets the messages of one topic.
    package final class Listeners: Sendable {
        package let served: [ServedTopic]
        /// Those of them that get its fanouts, too.
        package let hearing: [ServedTopic]
        package let subscriptions: [SubscriptionQueue]
        /// Nobody gets its fanouts.
        package var isEmpty: Bool { hearing.isEmpty && subscriptions.isEmpty }
        /// The largest number of bytes that waits in one of them.
        package var backlogBytes: Int {
            var most = 0
            for one in subscriptions { most = max(most, one.queuedBytes) }
            for one in served { most = max(most, one.queuedBytes) }
            return most
        }

        init(served: [ServedTopic], subscriptions: [SubscriptionQueue]) {
            self.served = served
            hearing = served.filter(\.hearsFanouts)
            self.subscriptions = subscriptions
        }
    }

    package init(topicsMax: Int, counters: NodeCounters) {
        self.topicsMax = topicsMax
        self.counters = counters
    }

    // MARK: What is registered

    package func add(_ served: ServedTopic) throws {
        try state.withLock { state in
            try admit(&state)
            let others = state.served[served.topic] ?? []
            guard !others.contains(where: { $0.server == served.server }) else {
                throw CastnetError(
                    .invalidArgument,
                    "topic \(served.topic) is already served here as \(quoted(served.server))")
            }
            state.served[served.topic] = others + [served]
            state.listeners = [:]
        }
    }

    package func add(_ subscription: SubscriptionQueue) throws {
        try state.withLock { state in
            try admit(&state)
            state.subscriptions.append(subscription)
            state.listeners = [:]
        }
    }

    package func remove(_ served: ServedTopic) {
        state.withLock { state in
            state.served[served.topic]?.removeAll { $0 === served }
            if state.served[served.topic]?.isEmpty == true { state.served[served.topic] = nil }
            state.listeners = [:]
        }
    }

    package func remove(_ subscription: SubscriptionQueue) {
        state.withLock { state in
            state.subscriptions.removeAll { $0 === subscription }
            state.listeners = [:]
        }
    }

    /// Ends everything: subscriptions finish, topics are returned to be withdrawn.
    package func close() -> [ServedTopic] {
        let (served, subscriptions) = state.withLock { state in
            defer {
                state.served = [:]
                state.subscriptions = []
                state.listeners = [:]
                state.isClosed = true
            }
            return (state.served.values.flatMap { $0 }, state.subscriptions)
        }
        for subscription in subscriptions { subscription.finish() }
        return served
    }

    /// What the others are told.
    package var announced: (services: [NodeRecord.Service], subscriptions: [TopicPattern]) {
        state.withLock { state in
            let services = state.served.values.joined().map {
                NodeRecord.Service(topic: $0.topic, server: $0.server)
            }
            let order = { (left: NodeRecord.Service, right: NodeRecord.Service) in
                (left.topic.name, left.server) < (right.topic.name, right.server)
            }
            var seen = Set<TopicPattern>()
            let patterns = state.subscriptions.map(\.pattern).filter { seen.insert($0).inserted }
            return (services.sorted(by: order), patterns)
        }
    }

    /// The largest number of bytes that waits in one member of this node: what multicast senders are told.
    package var backlogBytes: Int {
        let (served, subscriptions) = state.withLock { ($0.served, $0.subscriptions) }
        let waiting = served.values.joined().map(\.queuedBytes) + subscriptions.map(\.queuedBytes)
        return waiting.max() ?? 0
    }

    /// Topics served and patterns subscribed.
    var topicCount: Int { state.withLock { $0.topicCount } }

    /// What is served and subscribed, and what waits there.
    var snapshot: [TopicSnapshot] {
        let (served, subscriptions) = state.withLock { ($0.served, $0.subscriptions) }
        let services = served.values.joined().map {
            TopicSnapshot(topic: $0.topic.name, server: $0.server, waiting: $0.queuedBytes)
        }
        let readers = subscriptions.map {
            TopicSnapshot(topic: $0.pattern.text, server: nil, waiting: $0.queuedBytes)
        }
        return (services + readers).sorted { $0.topic < $1.topic }
    }

    // MARK: The way of a message

    package func listeners(to topic: Topic) -> Listeners {
        state.withLock { state in
            if let known = state.listeners[topic] { return known }
            let found = Listeners(
                served: state.served[topic] ?? [],
                subscriptions: state.subscriptions.filter { $0.pattern.matches(topic) })
            if state.listeners.count < topicsMax { state.listeners[topic] = found }
            return found
        }
    }

    /// Gives a call or a cast to the listener that serves its topic (under the server name it asks for);
    /// `acknowledging` answers it as soon as the handler's queue has it. False: there is no room for it.
    package func handle(_ delivery: Delivery, acknowledging: Bool, by listeners: Listeners) -> Bool {
        let server = delivery.server
        guard let one = listeners.served.first(where: { server == nil || $0.server == server }) else {
            delivery.answer?.give(Answer(.released, why: "\(delivery.record.topic) is not served here"))
            return true
        }
        return one.submit(delivery, acknowledging: acknowledging)
    }

    /// Who was called because of a topic has nothing to send any more.
    package func passed(_ topic: Topic, by sender: NodeIdentity) {
        for served in listeners(to: topic).served { served.passed(sender) }
    }

    /// Gives a fanout to everybody here who hears its topic; false when nobody does.
    @discardableResult
    package func spread(_ delivery: Delivery, settle: Settlement = .received) -> Bool {
        let listeners = listeners(to: delivery.record.topic)
        guard !listeners.isEmpty else {
            delivery.answer?.give(Answer(.released, why: "\(delivery.record.topic) is not heard here"))
            return false
        }
        var copy = delivery
        let count = listeners.hearing.count + listeners.subscriptions.count
        if settle == .received {
            delivery.answer?.acknowledge()
            copy.answer = delivery.answer?.finishing?.shared(by: count)
        } else {
            copy.answer = delivery.answer?.shared(by: count)
        }
        for subscription in listeners.subscriptions where !subscription.push(copy) {
            copy.answer?.give(Answer(.released, why: "the subscription has ended"))
        }
        for served in listeners.hearing { served.submit(copy) }
        return true
    }

    /// Gives fanouts of one topic for which nobody waits to everybody here who hears it: to each all at once,
    /// since a reader that is woken for each of them does little else.
    package func spread(_ deliveries: [Delivery], of topic: Topic) {
        let listeners = listeners(to: topic)
        for subscription in listeners.subscriptions { subscription.push(contentsOf: deliveries) }
        for served in listeners.hearing {
            for delivery in deliveries { served.submit(delivery) }
        }
    }

    private func admit(_ state: inout State) throws {
        if state.isClosed { throw CastnetError(.stopped, "the node has stopped") }
        if state.topicCount >= topicsMax {
            counters.add(.limitTopicsHit)
            throw CastnetError(
                .limitReached, "limits.topics: \(topicsMax) topics are served or subscribed here")
        }
    }
}
