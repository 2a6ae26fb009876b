internal import NIOCore

/// Puts records back together that needed more than one datagram.
///
/// Parts of one record version may come in any order and from any of its repetitions. Memory is bounded by
/// the number of records in the making, by their bytes and by time; what does not fit is refused and counted.
package struct BeaconAssembler: Sendable {
    package static let recordsMax = 64
    package static let bytesMax = 8 << 20
    package static let age: Duration = .seconds(2)

    private struct Partial: Sendable {
        var sender: NodeIdentity
        var version: UInt64
        var parts: [ByteBuffer?]
        var missing: Int
        var bytes: Int
        var touched: Instant

        /// False when the part was known; nil when it does not belong to this record.
        mutating func add(_ part: ByteBuffer, at index: Int, of count: Int) -> Bool? {
            guard parts.count == count, parts.indices.contains(index) else { return nil }
            guard parts[index] == nil else { return false }
            parts[index] = part
            missing -= 1
            bytes += part.readableBytes
            return true
        }
    }
    private var partials: [String: Partial] = [:]
    package private(set) var bytes = 0

    package enum Result: Sendable {
        /// More parts are needed, or this one was known.
        case waiting
        case complete(NodeRecord)
        /// The counter says why the part was of no use.
        case refused(Counter)
    }

    package init() {}

    package var isEmpty: Bool { partials.isEmpty }

    /// How many records are in the making.
    package var count: Int { partials.count }

    package mutating func add(_ beacon: Beacon, now: Instant) -> Result {
        guard case .part(let index, let count, let part) = beacon.body else { return .waiting }
        let name = beacon.sender.name
        if let known = partials[name], known.sender != beacon.sender || known.version != beacon.recordVersion
        {
            let newer =
                (known.sender.incarnation, known.version) < (beacon.sender.incarnation, beacon.recordVersion)
            guard newer else { return .refused(.beaconStale) }
            discard(name)
        }
        if partials[name] == nil {
            guard partials.count < Self.recordsMax else { return .refused(.limitBeaconPartsHit) }
            partials[name] = Partial(
                sender: beacon.sender, version: beacon.recordVersion,
                parts: Array(repeating: nil, count: count), missing: count, bytes: 0, touched: now)
        }
        guard bytes + part.readableBytes <= Self.bytesMax else { return .refused(.limitBeaconPartsHit) }
        // Copied: a slice would keep the whole receive buffer alive.
        guard let added = partials[name]?.add(ByteBuffer(bytes: part.readableBytesView), at: index, of: count)
        else { return .refused(.beaconRejectedPart) }
        guard added else { return .waiting }
        bytes += part.readableBytes
        partials[name]?.touched = now
        guard let partial = partials[name], partial.missing == 0 else { return .waiting }
        return finish(partial, cluster: beacon.cluster)
    }

    private mutating func finish(_ partial: Partial, cluster: UInt64) -> Result {
        discard(partial.sender.name)
        var whole = ByteBuffer()
        whole.reserveCapacity(partial.bytes)
        for part in partial.parts { if let part { whole.writeImmutableBuffer(part) } }
        do throws(BeaconFault) {
            let record = try NodeRecord(decodingBody: &whole, of: partial.sender, version: partial.version)
            guard Beacon.digest(ofCluster: record.cluster) == cluster else {
                throw .invalid(.cluster)
            }
            return .complete(record)
        } catch {
            return .refused(error.counter)
        }
    }

    /// Gives up on records that got no new part for ``age``; returns how many.
    package mutating func expire(now: Instant) -> Int {
        let old = partials.filter { now - $0.value.touched >= Self.age }.keys
        for name in old { discard(name) }
        return old.count
    }

    /// Drops what was collected of `name`.
    package mutating func discard(_ name: String) {
        guard let partial = partials.removeValue(forKey: name) else { return }
        bytes -= partial.bytes
    }
}
