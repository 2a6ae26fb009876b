package import CastnetCore
import Synchronization

/// Who hears which topic, as the directory said last; kept where any thread can read it.
///
/// The loop forgets a view whenever the membership changes; a reader that finds none asks the loop for it.
package final class MembershipView: Sendable {
    /// The members of one topic at one version of the membership, the own node left out.
    package final class Topical: Sendable {
        package let version: UInt64
        package let members: [Member]
        /// Channels each member hears, by name.
        private let channels: [NodeIdentity: Set<String>]

        package init(version: UInt64, members: [Member], channels: [NodeIdentity: Set<String>]) {
            self.version = version
            self.members = members
            self.channels = channels
        }

        /// The members that hear `channel`, and those that must be served another way.
        package func split(by channel: String) -> (hearing: [Member], deaf: [Member]) {
            var hearing: [Member] = []
            var deaf: [Member] = []
            for member in members {
                if channels[member.identity]?.contains(channel) == true {
                    hearing.append(member)
                } else {
                    deaf.append(member)
                }
            }
            return (hearing, deaf)
        }
    }

    private struct State {
        var views: [Topic: Topical] = [:]
        var version: UInt64 = 1
    }
    private let topicsMax: Int
    private let state = Mutex(State())

    package init(topicsMax: Int) { self.topicsMax = topicsMax }

    package subscript(topic: Topic) -> Topical? { state.withLock { $0.views[topic] } }

    /// The version of what the directory knows now.
    package var version: UInt64 { state.withLock { $0.version } }

    package func keep(_ view: Topical, for topic: Topic) {
        state.withLock { state in
            guard view.version == state.version, state.views.count < topicsMax else { return }
            state.views[topic] = view
        }
    }

    /// Forgets everything: the membership has changed.
    package func changed() {
        state.withLock { state in
            state.version += 1
            state.views.removeAll(keepingCapacity: true)
        }
    }
}
