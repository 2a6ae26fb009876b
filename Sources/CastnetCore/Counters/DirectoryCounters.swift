/// What the directory counts: a fixed set, each with its label and the sentence that explains it.
package enum DirectoryCounter: Int, CaseIterable, Sendable {
    case received, sent, sentBytes
    case rejectedForm, rejectedVersion, rejectedKey, rejectedText, rejectedPart, foreignCluster
    case assemblyTimeout, assemblyFull
    case joined, suspected, refuted, died, left, superseded, conflicts, channelDiffers
    case stale, membersLimit, wantsLimit, requestsSent, answersSent, tablesTold, exchanges

    /// The counter's fixed name.
    package var label: String {
        switch self {
        case .received: "directory.received"
        case .sent: "directory.sent"
        case .sentBytes: "directory.sent-bytes"
        case .rejectedForm: "directory.rejected.form"
        case .rejectedVersion: "directory.rejected.version"
        case .rejectedKey: "directory.rejected.key"
        case .rejectedText: "directory.rejected.text"
        case .rejectedPart: "directory.rejected.part"
        case .foreignCluster: "directory.rejected.cluster"
        case .assemblyTimeout: "directory.assembly.timeout"
        case .assemblyFull: "limit.beacon-assembly.hit"
        case .joined: "directory.joined"
        case .suspected: "directory.suspected"
        case .refuted: "directory.refuted"
        case .died: "directory.died"
        case .left: "directory.left"
        case .superseded: "directory.superseded"
        case .conflicts: "directory.name-conflicts"
        case .channelDiffers: "directory.channel-differs"
        case .stale: "directory.stale"
        case .membersLimit: "limit.members.hit"
        case .wantsLimit: "limit.beacon-requests.hit"
        case .requestsSent: "directory.requests"
        case .answersSent: "directory.answers"
        case .tablesTold: "directory.tables"
        case .exchanges: "directory.exchanges"
        }
    }

    /// What one count means.
    package var help: String {
        switch self {
        case .received: "beacon datagrams that decoded"
        case .sent: "beacon datagrams sent"
        case .sentBytes: "bytes of beacon datagrams sent"
        case .rejectedForm: "datagrams that are no beacon, too short, too long or of an unknown kind"
        case .rejectedVersion: "beacons of another format version"
        case .rejectedKey: "beacons under a key this node does not have"
        case .rejectedText: "beacons with a name, topic or address outside its rules"
        case .rejectedPart: "beacon parts that do not fit together"
        case .foreignCluster: "beacons of another cluster on the same group and port"
        case .assemblyTimeout: "records whose missing parts did not come in time"
        case .assemblyFull: "parts refused because too many records were being put together"
        case .joined: "nodes seen for the first time"
        case .suspected: "nodes that became suspect"
        case .refuted: "suspect or dead nodes that turned out to be alive"
        case .died: "nodes given up after three silent intervals"
        case .left: "nodes that said goodbye"
        case .superseded: "nodes replaced by a newer incarnation of their name"
        case .conflicts: "names found in use by two running nodes"
        case .channelDiffers: "channels that a peer has with another group, port or MTU"
        case .stale: "beacons of incarnations already replaced or gone"
        case .membersLimit: "nodes not taken in because limits.members was reached"
        case .wantsLimit: "records not asked for because too many were asked for already"
        case .requestsSent: "requests for other nodes' records"
        case .answersSent: "full records sent because somebody asked"
        case .exchanges: "times this node compared its table with another's over a link"
        case .tablesTold: "times this node told a large group all it knows"
        }
    }
}

/// One number per ``DirectoryCounter``; adding never traps.
package struct DirectoryCounters: Hashable, Sendable {
    private var values = [UInt64](repeating: 0, count: DirectoryCounter.allCases.count)

    package init() {}

    package subscript(counter: DirectoryCounter) -> UInt64 { values[counter.rawValue] }

    package mutating func add(_ counter: DirectoryCounter, _ amount: Int = 1) {
        values[counter.rawValue] &+= UInt64(max(0, amount))
    }
}
