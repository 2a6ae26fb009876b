/// How often each topic of an ephemeral route is sent, and which of them travel over persistent links for it.
///
/// A topic is promoted once a minute's messages reach the one rate of its policy, and sent back when they
/// fall below the other, lower one: between the two it stays what it is.
package struct HotTopics: Sendable {
    /// A topic with its messages of the last minute.
    package struct Rate: Hashable, Sendable {
        package var topic: Topic
        package var perMinute: Int
        package var isPromoted: Bool

        package init(topic: Topic, perMinute: Int, isPromoted: Bool) {
            self.topic = topic
            self.perMinute = perMinute
            self.isPromoted = isPromoted
        }
    }

    private struct Entry {
        /// Messages by slot, a minute in all; `slot` is that of the newest.
        var counts = [Int](repeating: 0, count: HotTopics.slots)
        var slot: Int64
        var sum = 0
        /// Nil: not promoted.
        var backPerMinute: Int?

        mutating func advance(to now: Int64) {
            guard now > slot else { return }
            for passed in 1...min(Int64(HotTopics.slots), now - slot) {
                let index = Int((slot + passed) % Int64(HotTopics.slots))
                sum -= counts[index]
                counts[index] = 0
            }
            slot = now
        }

        init(slot: Int64) { self.slot = slot }

        /// Counts a message; true for a promoted topic.
        mutating func count(_ now: Int64) -> Bool {
            advance(to: now)
            counts[Int(slot % Int64(counts.count))] += 1
            sum += 1
            return backPerMinute != nil
        }
    }

    private static let slots = 12
    /// A slot's time; rates are looked at again as often.
    package static let slotTime = Duration.seconds(5)
    /// The rate from which a topic is called hot where its policy does not say.
    package static let hotPerMinute = 300

    private let topicsMax: Int
    private var entries: [Topic: Entry] = [:]
    package private(set) var promotedCount = 0

    package init(topicsMax: Int) { self.topicsMax = max(1, topicsMax) }

    /// A message of `topic` is sent; true where it goes over a persistent link.
    package mutating func sent(_ topic: Topic, _ promotion: Route.Promotion?, now: Instant) -> Bool {
        if entries.count >= topicsMax, entries[topic] == nil { forgetCold(now: now) }
        let slot = Self.slot(now)
        var isPromoted = entries[topic, default: Entry(slot: slot)].count(slot)
        if !isPromoted, let promotion, let sum = entries[topic]?.sum, sum >= promotion.afterPerMinute {
            entries[topic]?.backPerMinute = promotion.backPerMinute
            promotedCount += 1
            isPromoted = true
        }
        return isPromoted
    }

    /// Topics that have cooled down are ephemeral again, but for those that are busy at this very moment.
    package mutating func cool(now: Instant, isBusy: (Topic) -> Bool) -> [Topic] {
        guard promotedCount > 0 else { return [] }
        var cooled: [Topic] = []
        for (topic, entry) in entries {
            guard let back = entry.backPerMinute else { continue }
            var entry = entry
            entry.advance(to: Self.slot(now))
            if entry.sum < max(1, back), !isBusy(topic) { cooled.append(topic) }
        }
        for topic in cooled { entries[topic]?.backPerMinute = nil }
        promotedCount -= cooled.count
        return cooled.sorted { $0.name < $1.name }
    }

    /// The hot topics, the hottest first.
    package func hot(now: Instant) -> [Rate] {
        let rates = entries.map { topic, entry in
            var entry = entry
            entry.advance(to: Self.slot(now))
            return Rate(topic: topic, perMinute: entry.sum, isPromoted: entry.backPerMinute != nil)
        }
        return rates.filter { $0.isPromoted || $0.perMinute >= Self.hotPerMinute }
            .sorted { ($1.perMinute, $0.topic.name) < ($0.perMinute, $1.topic.name) }
    }

    private static func slot(_ now: Instant) -> Int64 { now.nanoseconds / slotTime.nanoseconds }

    /// Makes room among too many topics: what was not sent for a minute goes, or everything not promoted.
    private mutating func forgetCold(now: Instant) {
        let oldest = Self.slot(now) - Int64(Self.slots)
        entries = entries.filter { $1.backPerMinute != nil || $1.slot > oldest }
        if entries.count >= topicsMax { entries = entries.filter { $1.backPerMinute != nil } }
    }
}
