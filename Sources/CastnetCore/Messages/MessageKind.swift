/// What a message asks for.
public enum MessageKind: String, Hashable, Sendable, CaseIterable {
    /// A request with a reply, to one member that serves the topic.
    case call
    /// One message to one member that serves the topic.
    case cast
    /// One message to every member that serves or subscribes the topic.
    case fanout
}

/// When a message counts as settled at a member.
public enum Settlement: String, Hashable, Sendable, CaseIterable {
    /// It is in the receiving library's memory.
    case received
    /// The handler returned.
    case processed
}

/// How a message ended; every message ends in exactly one of these.
public enum Outcome: String, Hashable, Sendable, CaseIterable {
    /// A member took it, as its settlement says.
    case accepted
    /// The handler refused it.
    case rejected
    /// It certainly was not executed; it may go to another member.
    case released
    /// Its deadline passed before it was settled.
    case expired
    /// Nobody serves its topic and the sender would not wait.
    case unroutable
    /// Its fate is unknown: it may have been executed.
    case lost
}

/// The way a message travelled.
public enum Carrier: String, Hashable, Sendable, CaseIterable {
    /// Reliable multicast: OpenPGM over UDP.
    case multicast
    /// A TCP connection kept open per topic and peer.
    case persistent
    /// A TCP connection opened for the message, kept for a short linger, then closed.
    case ephemeral
    /// Memory: the member is the sender's own node. Never written in a policy.
    case local
}

/// Names and values that travel with a message (trace context among them), in sending order.
///
/// At most 64 headers; a name has 1–255 bytes, a value at most 4,096, all together at most 16 KiB
/// (checked where a message is sent).
public struct Headers: Hashable, Sendable, ExpressibleByDictionaryLiteral {
    /// The entries, in sending order.
    public private(set) var entries: [Entry]

    /// One name with its value.
    public struct Entry: Hashable, Sendable {
        /// The header's name, case-sensitive.
        public var name: String
        /// The header's value.
        public var value: String
        package init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// No headers.
    public init() { entries = [] }

    package init(entries: [Entry]) { self.entries = entries }

    /// Headers in the order of the literal.
    public init(dictionaryLiteral elements: (String, String)...) {
        entries = elements.map { Entry(name: $0.0, value: $0.1) }
    }

    /// True when there is none.
    public var isEmpty: Bool { entries.isEmpty }

    /// The first value under `name`; setting replaces all of them, setting nil removes them.
    public subscript(name: String) -> String? {
        get { entries.first { $0.name == name }?.value }
        set {
            entries.removeAll { $0.name == name }
            if let newValue { entries.append(Entry(name: name, value: newValue)) }
        }
    }

    /// What makes these headers unfit to send, or nil.
    package var fault: String? {
        if entries.count > 64 { return "\(entries.count) headers; at most 64 are allowed" }
        var total = 0
        for entry in entries {
            let (name, value) = (entry.name.utf8.count, entry.value.utf8.count)
            if !(1...255).contains(name) { return "header name of \(name) bytes; allowed are 1 to 255" }
            if value > 4096 {
                return "header \(quoted(entry.name)) has \(value) bytes; at most 4096 are allowed"
            }
            total += name + value
        }
        return total > 16_384 ? "headers of \(total) bytes; at most 16384 are allowed" : nil
    }
}
