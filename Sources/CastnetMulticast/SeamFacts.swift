#if Multicast
    internal import COpenPGM

    /// What the seam did for one socket, in packets and calls.
    package struct SeamFacts: Hashable, Sendable {
        package var packetsIn: UInt64
        package var packetsOut: UInt64
        package var receiveCalls: UInt64
        package var sendCalls: UInt64
        /// Kernel messages that held more than one packet.
        package var batchesIn: UInt64
        package var batchesOut: UInt64
        /// Kernel messages to the group.
        package var groupMessagesOut: UInt64
        /// Packets the kernel refused for good.
        package var failed: UInt64
        package var segmentsRefused: UInt64
        package var segments: Bool
        package var coalesces: Bool

        init(_ raw: castnet_seam_facts) {
            packetsIn = raw.packets_in
            packetsOut = raw.packets_out
            receiveCalls = raw.receive_calls
            sendCalls = raw.send_calls
            batchesIn = raw.batches_in
            batchesOut = raw.batches_out
            groupMessagesOut = raw.group_messages_out
            failed = raw.packets_failed
            segmentsRefused = raw.segments_refused
            segments = raw.segments
            coalesces = raw.coalesces
        }
    }
#endif
