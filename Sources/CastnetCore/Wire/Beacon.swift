package import NIOCore

/// One beacon datagram: what a node says of itself, or asks, on the directory's multicast group.
/// The bytes are specified in docs/wire-beacons.md.
package struct Beacon: Hashable, Sendable {
    /// ``Beacon/digest(ofCluster:)`` of the sender's cluster.
    package var cluster: UInt64
    package let sender: NodeIdentity
    package let senderDigest: UInt64
    /// The version of the sender's record when it sent this.
    package let recordVersion: UInt64
    /// ``digest(of:version:)`` of the two.
    package let stamp: UInt64
    /// The longest time until the sender's next beacon.
    package var interval: Duration { Duration(nanoseconds: Int64(intervalMilliseconds) * 1_000_000) }
    package var intervalMilliseconds: UInt32
    package var body: Body

    package enum Body: Hashable, Sendable {
        /// The sender lives and its record has the header's version.
        case digest([Head])
        /// The sender's whole record, in one datagram.
        case record(NodeRecord)
        /// A piece of the sender's record: `index` of `count`, from 0.
        case part(index: Int, count: Int, bytes: ByteBuffer)
        case request(Request)
        /// What the sender knows of others, told on their behalf.
        case table([Told])
        /// The sender stops; nothing follows in this incarnation.
        case goodbye
    }

    /// What one node knows of another.
    package struct Told: Hashable, Sendable {
        /// The record; only its identity and version where it is not ``isWhole``.
        package let record: NodeRecord
        /// Of its name, and of its incarnation and version, too.
        package let (digest, stamp): (UInt64, UInt64)
        /// False: the record is too large to be told along.
        package var isWhole: Bool
        /// The longest time between two beacons of it.
        package var interval: Duration { Duration(nanoseconds: Int64(intervalMilliseconds) * 1_000_000) }
        package var intervalMilliseconds: UInt32
        /// How long ago its last sign of life was, or its goodbye.
        package var age: Duration
        /// It said goodbye.
        package var hasLeft = false
        /// Its last sign of life is as old as that of a node that is given up.
        package var isOld: Bool { age.nanoseconds >= Int64(intervalMilliseconds) * 2_900_000 }

        package static func left(_ identity: NodeIdentity, age: Duration) -> Told {
            var told = Told(
                record: NodeRecord(identity: identity, version: 0), isWhole: false, interval: .zero, age: age)
            told.hasLeft = true
            return told
        }

        package init(record: NodeRecord, isWhole: Bool = true, interval: Duration, age: Duration) {
            self.record = record
            digest = Beacon.digest(ofName: record.identity.name)
            stamp = Beacon.digest(of: record.identity, version: record.version)
            self.isWhole = isWhole
            intervalMilliseconds = interval.wireMilliseconds
            self.age = age
        }
    }

    /// Where a stream of the sender stands: its next number and the oldest it still keeps.
    package struct Head: Hashable, Sendable {
        package var stream: UInt64
        package var next: UInt64
        package var oldest: UInt64
        package init(stream: UInt64, next: UInt64, oldest: UInt64) {
            self.stream = stream
            self.next = next
            self.oldest = oldest
        }
    }

    /// What a request asks for.
    package enum Request: Hashable, Sendable {
        /// Every record, except those with these ``Beacon/digest(of:version:)`` values.
        case everyone(except: [UInt64])
        /// The records of the nodes with these ``Beacon/digest(ofName:)`` values.
        case records([UInt64])
        /// Over a link: what the other knows, without records (``Body/table(_:)``).
        case table
        /// A sign of life (a digest) of the nodes with these ``Beacon/digest(ofName:)`` values.
        case life([UInt64])
    }

    package init(
        cluster: UInt64, sender: NodeIdentity, recordVersion: UInt64, interval: Duration, body: Body
    ) {
        self.cluster = cluster
        self.sender = sender
        senderDigest = Self.digest(ofName: sender.name)
        self.recordVersion = recordVersion
        stamp = Self.digest(of: sender, version: recordVersion)
        intervalMilliseconds = interval.wireMilliseconds
        self.body = body
    }

    package static func digest(ofCluster name: String) -> UInt64 { WireDigest(name).value }

    package static func digest(ofName name: String) -> UInt64 { WireDigest(name).value }

    /// Names one version of one incarnation's record.
    package static func digest(of identity: NodeIdentity, version: UInt64) -> UInt64 {
        var digest = WireDigest(identity.name)
        digest.add(UInt8(0))
        digest.add(identity.incarnation.value)
        digest.add(version)
        return digest.value
    }
}

extension Duration {
    /// As beacons carry it: what is less is cut off.
    var wireMilliseconds: UInt32 { UInt32(clamping: nanoseconds / 1_000_000) }
}

/// Sizes and numbers of the beacon format.
package enum BeaconFormat {
    /// "CNDB" in ASCII.
    package static let magic: UInt32 = 0x434E_4442
    package static let version: UInt8 = 1
    /// The largest datagram: it fits every path without IP fragments.
    package static let datagramSizeMax = 1200
    /// The largest beacon on a link, where records need not be cut.
    package static let linkSizeMax = 60 << 10
    /// The header without the node's name.
    package static let headerSize = 61
    package static let nameSizeMax = 64
    package static let requestEntriesMax = 128
    /// An entry of a table without name and record.
    package static let tableEntrySize = 27
    package static let headsMax = 32
    package static let partsMax = 1536
    package static let addressesMax = 16
    package static let topicsMax = 8192
    package static let channelsMax = 64
    /// Host names have at most 253 bytes, Unix socket paths 107.
    package static let hostSizeMax = 253
    package static let unixPathSizeMax = 107
    package static let intervalMax: Duration = .seconds(600)
    package static let intervalMin: Duration = .milliseconds(10)

    package enum Kind: UInt8, CaseIterable {
        case digest = 1
        case full = 2
        case request = 3
        case goodbye = 4
        case table = 5
    }

    package enum RequestMode: UInt8 {
        case everyoneExcept = 0
        case records = 1
        case life = 2
        case table = 3
    }

    /// Section type of stream heads in a digest.
    package static let headsSection: UInt8 = 1

    /// True for what a node may be called: 1–64 bytes of printable ASCII without space.
    package static func isNodeName(_ bytes: some Collection<UInt8>) -> Bool {
        (1...nameSizeMax).contains(bytes.count) && bytes.allSatisfy { (0x21...0x7E).contains($0) }
    }

    /// True for text that may be shown and compared: no control characters.
    package static func isPlain(_ text: String) -> Bool {
        text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }
    }
}

/// Why a datagram is no beacon for this node.
package enum BeaconFault: Error, Hashable, Sendable {
    /// It does not begin with the magic.
    case notBeacon
    case version(UInt8)
    case kind(UInt8)
    /// It is signed with a key this node does not have.
    case key(UInt32)
    /// It ends inside the named field.
    case truncated(Field)
    case tooLong(Int)
    /// A part's index or count is outside its range.
    case part
    /// The named field holds something outside its rules.
    case invalid(Field)
    /// The named list has more entries than allowed.
    case tooMany(Field)

    package enum Field: String, Sendable {
        case header, name, section, request, table, cluster, instance, address, unixPath, service,
            subscription,
            channel
    }

    /// The counter this fault adds to.
    package var counter: Counter {
        switch self {
        case .notBeacon, .kind, .truncated, .tooLong: .beaconRejectedForm
        case .version: .beaconRejectedVersion
        case .key: .beaconRejectedKey
        case .part: .beaconRejectedPart
        case .invalid, .tooMany: .beaconRejectedText
        }
    }
}
