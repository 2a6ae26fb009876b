package import NIOCore

/// What the driver of ``StoreMachine`` does next: one exchange with the store, or waiting.
package enum StoreStep: Hashable, Sendable {
    /// Opens the connections, says who it is, and subscribes to the changes;
    /// ``StoreMachine/connected(now:)`` or ``StoreMachine/failed(now:)`` follows.
    case connect
    /// Writes the own record; ``StoreMachine/stored(_:now:)`` follows.
    case put(NodeRecord)
    /// Asks for names from `cursor` on; ``StoreMachine/scanned(_:next:now:)`` follows.
    case scan(cursor: String)
    /// Reads the records of these nodes; ``StoreMachine/fetched(_:_:now:)`` follows for each.
    case fetch([String])
    /// Takes the own record back; whatever comes of that, ``end`` is next.
    case remove(NodeIdentity)
    /// Nothing is due before this instant.
    case rest(until: Instant)
    /// It is over: the connections are closed.
    case end
}

/// What the store said to the own record.
package enum StoreAnswer: Hashable, Sendable {
    case taken
    /// A newer start of the name is registered: the own record was not written.
    case superseded
    /// An error, such as a store out of memory; the connection goes on.
    case refused(String)
}

/// What the store has under a node's key.
package enum StoredValue: Hashable, Sendable {
    case absent
    case bytes(ByteBuffer)
    /// Not a string.
    case foreign
}

/// What ``StoreMachine`` has found out; its driver passes it on in order.
package enum StoreEvent: Hashable, Sendable {
    /// The node is registered, or its record changed, or it is told again.
    case found(NodeRecord)
    /// The node's record was withdrawn or has expired.
    case gone(String)
    case count(Counter)
    /// The store cannot be used; said once until everything has been read again. `age`: since all was read
    /// last, nil: never; `known`: how many nodes are kept.
    case down(age: Duration?, known: Int)
    /// Everything has been read again after an outage.
    case back(known: Int)
    /// Somebody wrote what is no record under this node's key; said once a connection.
    case unfit(name: String, why: String)
    /// A newer start of the own name is registered; said once until the own record is taken again.
    case superseded
    /// The store does not take the own record; said once until it does.
    case refused(String)
}
