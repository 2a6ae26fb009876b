import CastnetCore
public import NIOCore

/// Messages that reached a subscription together; messages of one record are cut apart only as they are read.
public struct MessageBatch: Sequence, Sendable {
    package let deliveries: [Delivery]

    package init(_ deliveries: [Delivery]) { self.deliveries = deliveries }

    /// How many messages the batch holds.
    public var count: Int { deliveries.reduce(0) { $0 + $1.record.count } }

    /// Calls `body` with the bytes of every message, in order: the fastest way through a batch, as nothing is
    /// copied or kept. The bytes cannot outlive the call.
    public func forEachBytes(_ body: (RawSpan) throws -> Void) rethrows {
        for delivery in deliveries {
            let bytes = delivery.record.body.readableBytesSpan
            guard delivery.record.isRun else {
                try body(bytes)
                continue
            }
            var start = 0
            // The stream's decoder has checked every length, so a short body can only mean a bug: it ends
            // the run.
            while start + 2 <= bytes.byteCount {
                let end = start + 2 + Int(bytes.bigEndian(at: start, as: UInt16.self))
                guard end <= bytes.byteCount else { break }
                try body(bytes.extracting(start + 2..<end))
                start = end
            }
        }
    }

    /// Calls `body` with the payload of every message, in order; a payload shares the batch's memory.
    public func forEachPayload(_ body: (ByteBuffer) throws -> Void) rethrows {
        for delivery in deliveries {
            guard delivery.record.isRun else {
                try body(delivery.record.body)
                continue
            }
            var rest = delivery.record.body
            while let length = rest.readInteger(as: UInt16.self),
                let payload = rest.readSlice(length: Int(length))
            {
                try body(payload)
            }
        }
    }

    /// Reads the messages in order.
    public func makeIterator() -> Iterator { Iterator(deliveries: deliveries) }

    /// Reads the messages of a batch in order.
    public struct Iterator: IteratorProtocol, Sendable {
        private let deliveries: [Delivery]
        private var current = 0
        private var index = 0
        private var body = ByteBuffer()

        init(deliveries: [Delivery]) {
            self.deliveries = deliveries
            if let first = deliveries.first { body = first.record.body }
        }

        /// The next message.
        public mutating func next() -> Message? {
            while current < deliveries.count {
                if index < deliveries[current].record.count,
                    let message = deliveries[current].message(at: index, from: &body)
                {
                    index += 1
                    return message
                }
                current += 1
                index = 0
                if current < deliveries.count { body = deliveries[current].record.body }
            }
            return nil
        }
    }
}
