/// The one error type of the public API.
public struct CastnetError: Error, Sendable, CustomStringConvertible {
    /// What kind of failure this is; compare with the static members.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Value: String, Sendable {
            case invalidTopic, invalidConfiguration, invalidArgument, unroutable, rejected, released, expired,
                lost
            case limitReached, notRunning, stopped, unreachable, multicastUnavailable, protocolViolation,
                tooLarge
        }
        private let value: Value

        /// A topic or pattern breaks the naming rules.
        public static let invalidTopic = Code(value: .invalidTopic)
        /// The configuration does not parse; the message holds every error with its position.
        public static let invalidConfiguration = Code(value: .invalidConfiguration)
        /// An argument of an API call is out of its range.
        public static let invalidArgument = Code(value: .invalidArgument)
        /// Nobody serves the topic and the policy or the caller asked for an answer at once.
        public static let unroutable = Code(value: .unroutable)
        /// The handler refused the message.
        public static let rejected = Code(value: .rejected)
        /// The message certainly was not executed and may go to another member.
        public static let released = Code(value: .released)
        /// The deadline passed.
        public static let expired = Code(value: .expired)
        /// The fate of the message is unknown: it may have been executed.
        public static let lost = Code(value: .lost)
        /// A configured limit refused the work; the message names the limit.
        public static let limitReached = Code(value: .limitReached)
        /// The node is not running yet.
        public static let notRunning = Code(value: .notRunning)
        /// The node has stopped.
        public static let stopped = Code(value: .stopped)
        /// A peer or a local address cannot be reached or bound.
        public static let unreachable = Code(value: .unreachable)
        /// The multicast carrier cannot work here; the message says why.
        public static let multicastUnavailable = Code(value: .multicastUnavailable)
        /// A peer broke the wire protocol.
        public static let protocolViolation = Code(value: .protocolViolation)
        /// The message is larger than `limits.message`.
        public static let tooLarge = Code(value: .tooLarge)

        /// The code's name.
        public var description: String { value.rawValue }
    }

    /// What kind of failure this is.
    public var code: Code
    /// What happened, naming what and where.
    public var message: String
    /// The failure below this one, if any.
    public var underlying: (any Error)?
    /// The source file that raised the error.
    public var file: String
    /// The source line that raised the error.
    public var line: Int

    /// Makes an error that remembers where it was raised.
    public init(
        _ code: Code, _ message: String, underlying: (any Error)? = nil,
        file: String = #fileID, line: Int = #line
    ) {
        self.code = code
        self.message = message
        self.underlying = underlying
        self.file = file
        self.line = line
    }

    /// `code: message`, and the failure below it.
    public var description: String {
        underlying.map { "\(code): \(message) (\($0))" } ?? "\(code): \(message)"
    }
}
