/// Everything a node counts: one fixed list that status, CLI and metrics all read.
public enum Counter: Int, CaseIterable, Sendable {
    case pgmInData, pgmOutData, pgmInReset, pgmRejectedMalformed, pgmRejectedStreamLimit, kernelDropped
    case pgmRejectedMagic, pgmRejectedVersion, pgmRejectedKey, pgmRejectedTruncated, pgmRejectedTrailing
    case pgmRejectedRange, pgmRejectedName, pgmRejectedHeaders, pgmRejectedInconsistent
    case pgmInOdata, pgmInRdata, pgmInSpm, pgmInNak, pgmInNcf, pgmInSpmr, pgmInOther, pgmOutOdata
    case pgmOutRdata, pgmOutSpm, pgmOutNak, pgmOutNcf, pgmOutSpmr, pgmOutOther, pgmRejectedLength
    case pgmRejectedType, pgmRejectedOptions, pgmRejectedFamily, pgmRejectedChecksum, pgmRejectedPort
    case pgmRejectedTsi, pgmRejectedOwn, pgmRejectedAlias, pgmRejectedSource, pgmRejectedStreams
    case pgmRejectedDestination, pgmRejectedNumbers, pgmRejectedBehind, pgmRejectedJump, pgmRejectedFar
    case pgmRejectedResync, pgmRejectedUnknown, pgmRejectedQuiet, pgmRejectedHoldoff, pgmRejectedRate
    case pgmRejectedFault, seamBatches, seamFailed, seamSegmentsRefused, seamAbsent
    case streamGaps, streamRepairedPGM, streamRepairedTCP, streamLost, streamDuplicates
    case streamMessagesSent, streamMessagesReceived, streamMessagesCut, streamReportsSent,
        streamReportsReceived
    case streamReportsMalformed, streamMembersStalled, streamMembersSlow, streamMembersEvicted
    case streamOverruns, streamJoinsUnanswered
    case streamHeadsSent, streamHeadsReceived, streamChunksOrphaned, streamWindowWaits
    case streamRepairsAsked, streamRepairsServed, streamRepairsResent, streamRepairsDeferred
    case streamRepairsGone, streamRepairsRefused, streamRepairsBytes, streamRepairsSessions
    case linkOpened, linkAccepted
    case linkClosedFinished, linkClosedIdle, linkClosedStopping, linkClosedRefused, linkClosedProtocol
    case linkClosedVersion, linkClosedCluster, linkClosedWrongNode, linkClosedOwnNode, linkClosedLimit
    case linkClosedHelloDeadline, linkClosedDead, linkClosedFailed
    case linkDialFailed, linkPacketsUnknown, linkRepliesLate, linkChunksStray
    case linkAcceptsPaused, linkDescriptorsShort, linkCreditWaits, linkMessagesAgain, linkRepliesUnsent
    case linkMemoriesDropped, linkDialsPaced
    case linkTopicsPromoted, linkTopicsDemoted
    case messagesExpiredInQueue, messagesRetried, messagesTurnedAway, messagesUnclaimed
    case beaconIn, beaconOut, beaconOutBytes, beaconRejectedForm, beaconRejectedVersion
    case beaconRejectedKey, beaconRejectedText, beaconRejectedPart, beaconRejectedCluster, beaconStale
    case beaconPartsTimeout, beaconRequests, beaconAnswers, beaconTables, directoryJoined
    case directorySuspected, directoryRefuted, directoryDied, directoryLeft, directorySuperseded
    case directoryNameConflicts, directoryChannelDiffers, directoryExchanges, directoryExchangesCut
    case directoryWordsDropped
    case redisConnects, redisFailures, redisScans, redisNotifications
    case redisRecordsStored, redisRecordsRefused, redisRecordsRead, redisRecordsRejected
    case limitConnectionsHit, limitPerPeerHit, limitPerAddressHit, limitDialsHit, limitMessageHit,
        limitMemoryHit
    case limitPendingCallsHit, limitMembersHit, limitTopicsHit, limitSubscriptionBacklogHit, limitBacklogHit
    case limitStreamsHit, limitReorderHit, limitRepairsHit, limitHellosHit
    case limitBeaconPartsHit, limitBeaconRequestsHit

    /// The counter's fixed name.
    public var label: String { Self.facts[rawValue].label }
    /// What one unit of it is.
    public var unit: String { Self.facts[rawValue].unit }
    /// What it counts.
    public var help: String { Self.facts[rawValue].help }

    private static let facts: [(label: String, unit: String, help: String)] = [
        ("pgm.in.data", "frames", "Frames received from the group."),
        ("pgm.out.data", "frames", "Frames sent to the group."),
        ("pgm.in.reset", "events", "Times PGM gave up on packets."),
        ("pgm.rejected.malformed", "frames", "Frames refused because they do not decode."),
        ("pgm.rejected.stream-limit", "frames", "Frames of streams past the limit of streams."),
        ("kernel.dropped", "packets", "Datagrams the kernel dropped at a full receive buffer."),
        ("pgm.rejected.magic", "frames", "Datagrams refused because they are no frames."),
        ("pgm.rejected.version", "frames", "Frames refused because of their version."),
        ("pgm.rejected.key", "frames", "Frames refused because of their authentication key."),
        ("pgm.rejected.truncated", "frames", "Frames refused because they end too early."),
        ("pgm.rejected.trailing", "frames", "Frames refused because they go on after their content."),
        ("pgm.rejected.range", "frames", "Frames refused because a number is out of its range."),
        ("pgm.rejected.name", "frames", "Frames refused because a topic or node name breaks the rules."),
        ("pgm.rejected.headers", "messages", "Messages lost because their headers do not decode."),
        ("pgm.rejected.inconsistent", "frames", "Frames refused because two of their fields disagree."),
        ("pgm.in.odata", "packets", "Data packets received."),
        ("pgm.in.rdata", "packets", "Repair packets received."),
        ("pgm.in.spm", "packets", "Source path messages received."),
        ("pgm.in.nak", "packets", "Requests for repair received."),
        ("pgm.in.ncf", "packets", "Confirmations of requests received."),
        ("pgm.in.spmr", "packets", "Requests for a source path message received."),
        ("pgm.in.other", "packets", "PGM packets of other kinds received."),
        ("pgm.out.odata", "packets", "Data packets sent."),
        ("pgm.out.rdata", "packets", "Repair packets sent."),
        ("pgm.out.spm", "packets", "Source path messages sent."),
        ("pgm.out.nak", "packets", "Requests for repair sent."),
        ("pgm.out.ncf", "packets", "Confirmations of requests sent."),
        ("pgm.out.spmr", "packets", "Requests for a source path message sent."),
        ("pgm.out.other", "packets", "PGM packets of other kinds sent."),
        ("pgm.rejected.length", "packets", "Packets refused because their length is wrong."),
        ("pgm.rejected.type", "packets", "Packets refused because PGM packets of their kind are not used."),
        ("pgm.rejected.options", "packets", "Packets refused because of their options."),
        ("pgm.rejected.family", "packets", "Packets refused because they name an address that is not IPv4."),
        ("pgm.rejected.checksum", "packets", "Packets refused because of their checksum."),
        ("pgm.rejected.port", "packets", "Packets refused because they belong to another session."),
        ("pgm.rejected.tsi", "packets", "Packets refused because their stream identifier is zero."),
        ("pgm.rejected.own", "packets", "Own packets that came back."),
        (
            "pgm.rejected.alias", "packets",
            "Packets refused because libpgm would take their stream for another."
        ),
        (
            "pgm.rejected.source", "packets",
            "Packets refused because their stream comes from another address."
        ),
        ("pgm.rejected.streams", "packets", "Packets refused because too many streams are known."),
        ("pgm.rejected.destination", "packets", "Packets refused because they are not for the group."),
        ("pgm.rejected.numbers", "packets", "Packets refused because their numbers contradict each other."),
        ("pgm.rejected.behind", "packets", "Packets refused because nobody waits for them any more."),
        ("pgm.rejected.jump", "packets", "Packets refused because they skip too many numbers."),
        ("pgm.rejected.far", "packets", "Packets refused because they jump past the window."),
        ("pgm.rejected.resync", "packets", "Packets dropped while a stream was taken up again."),
        ("pgm.rejected.unknown", "packets", "Packets refused because they are about a stream nobody knows."),
        (
            "pgm.rejected.quiet", "packets",
            "Source path messages dropped because their stream has sent no data."
        ),
        ("pgm.rejected.holdoff", "packets", "Requests dropped because the repair has just left."),
        ("pgm.rejected.rate", "packets", "Requests dropped because too many came."),
        ("pgm.rejected.fault", "packets", "Packets dropped by a fault that was configured."),
        ("seam.batches", "batches", "Kernel messages that held more than one packet, in and out."),
        ("seam.failed", "packets", "Packets the kernel refused to send."),
        ("seam.segments-refused", "events", "Times the kernel refused to cut a batch into packets."),
        ("seam.absent", "channels", "Channels whose packets go to libpgm unjudged and one by one."),
        ("stream.gaps", "gaps", "Holes noticed in streams."),
        ("stream.repaired.pgm", "frames", "Frames that came as PGM repairs."),
        ("stream.repaired.tcp", "frames", "Frames repaired over TCP."),
        ("stream.lost", "frames", "Frames declared lost."),
        ("stream.duplicates", "frames", "Frames that came again and were dropped."),
        ("stream.messages.sent", "messages", "Messages cut into frames."),
        ("stream.messages.received", "messages", "Messages delivered from frames."),
        ("stream.messages.cut", "messages", "Large messages given up because a part of them was lost."),
        ("stream.reports.sent", "datagrams", "Position reports sent."),
        ("stream.reports.received", "datagrams", "Position reports received."),
        ("stream.reports.malformed", "datagrams", "Position reports that do not decode."),
        (
            "stream.members.stalled", "events",
            "Times a member stopped reporting and was no longer waited for."
        ),
        (
            "stream.members.slow", "events",
            "Times a member that held up the others was no longer waited for."
        ),
        (
            "stream.members.evicted", "events",
            "Times a slow or silent member lost its claim to what was sent before."
        ),
        (
            "stream.overruns", "frames",
            "Frames dropped to be asked for later: a subscription is full and the group went on."
        ),
        ("stream.joins.unanswered", "streams", "Streams joined without their sender's word from where."),
        ("stream.heads.sent", "frames", "Heads sent after the last numbered frame."),
        ("stream.heads.received", "frames", "Heads heard."),
        ("stream.chunks.orphaned", "chunks", "Chunks skipped because their message's start is not here."),
        ("stream.window.waits", "events", "Times the smallest budget of the members stopped a sender."),
        ("stream.repairs.asked", "requests", "Requests for missing frames sent over TCP."),
        ("stream.repairs.served", "frames", "Frames sent again over TCP to a member that asked."),
        ("stream.repairs.resent", "frames", "Frames sent again to the group because several asked."),
        ("stream.repairs.deferred", "requests", "Requests told to come later: too many were being served."),
        ("stream.repairs.gone", "frames", "Frames asked for that were kept no longer."),
        ("stream.repairs.refused", "packets", "Repair packets that make no sense, dropped."),
        ("stream.repairs.bytes", "bytes", "Bytes of frames sent again, over TCP and to the group."),
        ("stream.repairs.sessions", "members", "Members served over TCP at the same time, at most so far."),
        ("link.opened", "links", "Links dialled."),
        ("link.accepted", "links", "Links accepted."),
        ("link.closed.finished", "links", "Links closed after their last message."),
        ("link.closed.idle", "links", "Links closed by the peer after their last message."),
        ("link.closed.stopping", "links", "Links closed because a node stopped."),
        ("link.closed.refused", "links", "Links the peer refused."),
        ("link.closed.protocol", "links", "Links closed because the peer broke the protocol."),
        ("link.closed.version", "links", "Links closed because no common version exists."),
        ("link.closed.cluster", "links", "Links closed because the peer is of another cluster."),
        ("link.closed.wrong-node", "links", "Links closed because another node answered."),
        ("link.closed.own-node", "links", "Links closed because the node dialled itself."),
        ("link.closed.limit", "links", "Links closed at a limit."),
        ("link.closed.hello-deadline", "links", "Links closed because no hello came in time."),
        ("link.closed.dead", "links", "Links closed because the peer went silent."),
        ("link.closed.failed", "links", "Links the network cut."),
        ("link.dials.failed", "dials", "Dials that failed."),
        ("link.packets.unknown", "packets", "Packets of unknown kinds, skipped."),
        ("link.replies.late", "replies", "Replies nobody waited for any more."),
        ("link.chunks.stray", "packets", "Chunks of messages that were given up."),
        (
            "link.accepts.paused", "events",
            "Times connections past the limits stopped the listener for 10 ms."
        ),
        ("link.descriptors.short", "events", "Times the process could open no socket for a link."),
        (
            "link.credit.waits", "messages",
            "Messages that waited because their member takes no more of the topic."
        ),
        (
            "link.messages.again", "messages",
            "Messages that came again after a link broke, not handled twice."
        ),
        ("link.replies.unsent", "replies", "Replies whose link had ended."),
        (
            "link.memories.dropped", "peers",
            "Peers whose messages were forgotten early, as too many had gone."
        ),
        ("link.dials.paced", "links", "Links whose busy peer said when to come back."),
        ("link.topics.promoted", "topics", "Hot ephemeral topics that became persistent."),
        ("link.topics.demoted", "topics", "Promoted topics that cooled down."),
        ("messages.expired-in-queue", "messages", "Messages whose deadline passed in this node's queue."),
        ("messages.retried", "messages", "Messages sent again."),
        ("messages.turned-away", "messages", "Messages for which there was no room, or no free handler."),
        ("messages.unclaimed", "messages", "Messages given back whose sender did not let them start in 1 s."),
        ("beacon.in", "datagrams", "Beacons of this cluster received, own ones too."),
        ("beacon.out", "datagrams", "Beacons sent by multicast."),
        ("beacon.out-bytes", "bytes", "Of beacons sent by multicast."),
        ("beacon.rejected.form", "datagrams", "No beacons, or of a wrong size or unknown kind."),
        ("beacon.rejected.version", "datagrams", "Beacons of another format version."),
        ("beacon.rejected.key", "datagrams", "Beacons under a key this node does not have."),
        ("beacon.rejected.text", "datagrams", "Beacons with a name, topic or address out of rule."),
        ("beacon.rejected.part", "datagrams", "Parts of records that do not fit together."),
        ("beacon.rejected.cluster", "datagrams", "Beacons of another cluster on the same group and port."),
        ("beacon.stale", "datagrams", "Beacons of incarnations already replaced or gone."),
        ("beacon.parts.timeout", "records", "Records whose missing parts did not come in time."),
        ("beacon.requests", "datagrams", "Requests for the records of other nodes."),
        ("beacon.answers", "records", "Own record sent because somebody asked."),
        ("beacon.tables", "events", "Times this node told a large group all it knows."),
        ("directory.joined", "nodes", "Seen for the first time."),
        ("directory.suspected", "nodes", "Became suspect."),
        ("directory.refuted", "nodes", "Suspect or dead, and alive after all."),
        ("directory.died", "nodes", "Given up after three silent intervals."),
        ("directory.left", "nodes", "Said goodbye, or were taken back by their last source."),
        ("directory.superseded", "nodes", "Replaced by a newer incarnation of their name."),
        ("directory.name-conflicts", "names", "Found in use by two running nodes."),
        ("directory.channel-differs", "channels", "Of a peer, with another group, port or MTU."),
        ("directory.exchanges", "events", "Tables compared with another node's over a link."),
        ("directory.exchanges.cut", "events", "Tables told over a link in part: they are too large."),
        ("directory.words-dropped", "beacons", "Not said over a link that did not open or was not read."),
        ("redis.connects", "connections", "Times this node connected to the store."),
        ("redis.failures", "events", "Times the store was not there, did not answer, or answered no."),
        ("redis.scans", "looks", "Looks at the names of all nodes in the store."),
        ("redis.notifications", "messages", "Notifications of changes in the store."),
        ("redis.records.stored", "records", "Times the own record was written, or refreshed."),
        ("redis.records.refused", "records", "Own records not written over those of a newer start."),
        ("redis.records.read", "records", "Records of other nodes read."),
        ("redis.records.rejected", "records", "Values in the store that are no records, skipped."),
        ("limit.connections.hit", "events", "Links refused or delayed at limits.connections."),
        ("limit.per-peer.hit", "events", "Links refused or delayed at limits.per-peer."),
        ("limit.per-address.hit", "events", "Links refused at limits.per-address."),
        ("limit.dials.hit", "events", "Dials delayed at limits.dials."),
        ("limit.message.hit", "messages", "Messages refused at limits.message."),
        ("limit.memory.hit", "messages", "Messages refused because their parts would pass limits.memory."),
        ("limit.pending-calls.hit", "messages", "Messages refused at limits.pending-calls."),
        ("limit.members.hit", "nodes", "Nodes not taken in at limits.members."),
        ("limit.topics.hit", "topics", "Topics refused at limits.topics."),
        ("limit.subscription-backlog.hit", "events", "Times a full subscription held back its senders."),
        ("limit.backlog.hit", "messages", "Messages released because a backlog was full."),
        ("limit.streams.hit", "streams", "Streams not followed because too many were active."),
        ("limit.reorder.hit", "frames", "Frames dropped because too many waited behind holes."),
        ("limit.repairs.hit", "requests", "Requests for repair forgotten because too many came at once."),
        ("limit.hellos.hit", "links", "Links told to come back later at limits.hellos."),
        ("limit.beacon-parts.hit", "datagrams", "Parts refused: too many records are put together."),
        ("limit.beacon-requests.hit", "records", "Not asked for because too many were asked for already."),
    ]
}

/// A value per counter; plain memory, confined to its owner.
package struct CounterSet: Sendable {
    package private(set) var values = [UInt64](repeating: 0, count: Counter.allCases.count)

    package init() {}

    package subscript(counter: Counter) -> UInt64 { values[counter.rawValue] }

    package mutating func add(_ counter: Counter, _ amount: Int = 1) {
        values[counter.rawValue] &+= UInt64(max(0, amount))
    }

    /// Sets a counter that somebody else keeps.
    package mutating func set(_ counter: Counter, _ value: UInt64) { values[counter.rawValue] = value }

    /// Adds another set's values to this one's.
    package mutating func merge(_ other: CounterSet) {
        for index in values.indices { values[index] &+= other.values[index] }
    }
}

extension WireError {
    /// The counter of a frame refused for this reason.
    package var frameCounter: Counter {
        switch self {
        case .magic: .pgmRejectedMagic
        case .version: .pgmRejectedVersion
        case .key: .pgmRejectedKey
        case .truncated: .pgmRejectedTruncated
        case .trailing: .pgmRejectedTrailing
        case .range: .pgmRejectedRange
        case .name: .pgmRejectedName
        case .headers: .pgmRejectedHeaders
        case .inconsistent: .pgmRejectedInconsistent
        case .tooLong, .unknownKind, .text: .pgmRejectedMalformed
        }
    }
}
