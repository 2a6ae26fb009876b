import CastnetCore
import Logging
import NIOCore

/// Ephemeral topics that are hot enough to be worth a persistent link.
extension Unicast {
    /// Counts a message of an ephemeral topic, which may be promoted.
    func countTopic(of entry: Outstanding) {
        let message = entry.message
        let promoted = hotTopics.promotedCount
        guard hotTopics.sent(message.topic, message.route.promote, now: now) else { return }
        entry.carrier = .persistent
        guard hotTopics.promotedCount > promoted else { return }
        counters.add(.linkTopicsPromoted)
        log.info(
            "a hot topic travels over persistent links now", metadata: ["castnet.topic": "\(message.topic)"])
        armCooling()
    }

    private func armCooling() {
        guard !isCooling else { return }
        isCooling = true
        let slot = TimeAmount.nanoseconds(HotTopics.slotTime.nanoseconds)
        loop.scheduleTask(in: slot) { [self] in
            isCooling = false
            tick()
            cool()
            flushLinks()
            if hotTopics.promotedCount > 0, !isClosing { armCooling() }
        }
    }

    /// Topics that have cooled down give their links back; idle ones, so that nothing is overtaken.
    private func cool() {
        guard hotTopics.promotedCount > 0 else { return }
        let persistent = links.values.filter { $0.key?.purpose == .persistent }
        let cooled = hotTopics.cool(now: now) { topic in
            persistent.contains { $0.key?.topic == topic && !$0.isIdle }
        }
        for topic in cooled {
            counters.add(.linkTopicsDemoted)
            log.info("a topic has cooled down", metadata: ["castnet.topic": "\(topic)"])
            for link in persistent where link.key?.topic == topic { end(link, .finished, .idle) }
        }
    }
}
