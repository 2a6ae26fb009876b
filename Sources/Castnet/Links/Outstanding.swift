import CastnetCore
import NIOCore

extension Outcome {
    /// True where the message certainly was not executed.
    var saysNotExecuted: Bool { self == .released || self == .unroutable }
}

extension Unicast {
    /// Where a free handler is waited for.
    struct Door: Hashable {
        var member: NodeIdentity
        var topic: Topic
    }

    /// A message that has not ended. A class: it is looked at many times on its way and never copied.
    final class Outstanding {
        let message: OutboundMessage
        let completion: Completion
        /// The only member it may go to; nil: any that serves the topic.
        let pinned: Member?
        let startedAt: Instant
        /// The policy's, or persistent for a topic that is promoted.
        @exclusivity(unchecked) var carrier: Carrier
        @exclusivity(unchecked) var member: Member?
        @exclusivity(unchecked) var link: Link?
        @exclusivity(unchecked) var attempts = Attempts()
        /// The member that may have it, and gets it again until that is certain.
        @exclusivity(unchecked) var replayTo: Member?
        /// When it went to `member`.
        @exclusivity(unchecked) var sentAt: Instant
        /// True while it waits for room in `limits.pending-calls`.
        @exclusivity(unchecked) var isParked = false
        /// True where only a member with a free handler takes it.
        var isPrompt: Bool { message.route.balance == .capacity && pinned == nil }
        /// True where another member may get it as long as the first, which asks, has not started it.
        var isClaimed: Bool {
            let route = message.route
            guard route.retry == .otherMember, !route.idempotent, route.attempts > 1, pinned == nil else {
                return false
            }
            return message.kind == .call || message.settle == .processed
        }
        var target: Target {
            Target(message.topic, server: message.server, instance: message.instance)
        }

        init(_ message: OutboundMessage, _ completion: Completion, pinned: Member?, startedAt: Instant) {
            self.message = message
            carrier = message.route.carrier
            self.completion = completion
            self.pinned = pinned
            self.startedAt = startedAt
            sentAt = startedAt
        }
    }
}
