import Castnet

/// One thing that every carrier must do. Checks only use the public API of ``Node``.
public enum ConformanceCheck: String, Sendable, CaseIterable {
    /// Every message arrives once, in sending order for each sender and topic.
    case inOrder
    /// Messages of every size arrive as they were sent.
    case sizes
    /// Headers arrive as they were sent, with small and large payloads.
    case headers
    /// Each of several members gets every fanout once.
    case severalMembers
    /// What receipts say of every member is true.
    case receipts
    /// A message nobody answers ends at its deadline.
    case deadline
    /// A cancelled subscription gets nothing more; others go on.
    case cancelledSubscription
    /// A message over `limits.message` is refused with `tooLarge` and leaves no trace.
    case tooLarge
    /// A reader slower than the sender gets everything, in order.
    case slowReader

    /// False where the carrier does not carry what the check is about.
    public func isFor(_ carrier: CarrierUnderTest) -> Bool {
        switch self {
        case .deadline: carrier.kinds.contains(.call)
        case .severalMembers, .cancelledSubscription, .slowReader: carrier.kinds.contains(.fanout)
        case .inOrder, .sizes, .headers, .receipts, .tooLarge: true
        }
    }

    /// Runs the check with nodes in this process on the loopback interface.
    ///
    /// `port` is the first of ten UDP ports that nothing else uses. Throws ``ConformanceFailure`` with what
    /// the carrier did wrong.
    public func run(_ carrier: CarrierUnderTest, port: Int) async throws {
        let backlog = self == .slowReader ? 64 << 10 : 16 << 20
        let others = self == .severalMembers || self == .receipts ? 3 : 1
        try await ConformanceNodes.run(carrier, others: others, port: port, backlog: backlog) { nodes in
            switch self {
            case .inOrder: try await nodes.checkInOrder()
            case .sizes: try await nodes.checkSizes()
            case .headers: try await nodes.checkHeaders()
            case .severalMembers: try await nodes.checkSeveralMembers()
            case .receipts: try await nodes.checkReceipts()
            case .deadline: try await nodes.checkDeadline()
            case .cancelledSubscription: try await nodes.checkCancelledSubscription()
            case .tooLarge: try await nodes.checkTooLarge()
            case .slowReader: try await nodes.checkSlowReader()
            }
        }
    }
}
