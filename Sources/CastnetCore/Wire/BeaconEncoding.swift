package import NIOCore

extension Beacon {
    /// Appends the datagram. Lists longer than the format allows are cut; a record must have been checked
    /// with ``NodeRecord/beaconFault``.
    package func encode(into buffer: inout ByteBuffer) {
        var (kind, index, count): (BeaconFormat.Kind, UInt16, UInt16)
        switch body {
        case .digest: (kind, index, count) = (.digest, 0, 1)
        case .record: (kind, index, count) = (.full, 0, 1)
        case .part(let at, let of, _):
            (kind, index, count) = (.full, UInt16(clamping: at), UInt16(clamping: of))
        case .request: (kind, index, count) = (.request, 0, 1)
        case .goodbye: (kind, index, count) = (.goodbye, 0, 1)
        case .table: (kind, index, count) = (.table, 0, 1)
        }
        buffer.writeInteger(BeaconFormat.magic)
        buffer.writeInteger(BeaconFormat.version)
        buffer.writeInteger(kind.rawValue)
        buffer.writeInteger(UInt16(0))
        buffer.writeInteger(UInt32(0))
        buffer.writeRepeatingByte(0, count: 16)
        buffer.writeInteger(cluster)
        buffer.writeInteger(sender.incarnation.value)
        buffer.writeInteger(recordVersion)
        buffer.writeInteger(intervalMilliseconds)
        buffer.writeInteger(index)
        buffer.writeInteger(count)
        buffer.writeText(sender.name)
        encodeBody(into: &buffer)
    }

    private func encodeBody(into buffer: inout ByteBuffer) {
        switch body {
        case .digest(let heads):
            guard !heads.isEmpty else { return }
            let heads = heads.prefix(BeaconFormat.headsMax)
            buffer.writeInteger(BeaconFormat.headsSection)
            buffer.writeInteger(UInt16(heads.count * 24))
            for head in heads {
                buffer.writeInteger(head.stream)
                buffer.writeInteger(head.next)
                buffer.writeInteger(head.oldest)
            }
        case .record(let record): record.encodeBeaconBody(into: &buffer)
        case .part(_, _, let bytes): buffer.writeImmutableBuffer(bytes)
        case .request(let request):
            switch request {
            case .everyone(let known): Self.encode(.everyoneExcept, known, into: &buffer)
            case .records(let names): Self.encode(.records, names, into: &buffer)
            case .life(let names): Self.encode(.life, names, into: &buffer)
            case .table: Self.encode(.table, [], into: &buffer)
            }
        case .goodbye: break
        case .table(let table):
            buffer.writeInteger(UInt16(clamping: table.count))
            for told in table { told.encode(into: &buffer) }
        }
    }

    private static func encode(
        _ mode: BeaconFormat.RequestMode, _ entries: [UInt64], into buffer: inout ByteBuffer
    ) {
        let entries = entries.prefix(BeaconFormat.requestEntriesMax)
        buffer.writeInteger(mode.rawValue)
        buffer.writeInteger(UInt16(entries.count))
        for entry in entries { buffer.writeInteger(entry) }
    }
}

extension Beacon.Told {
    /// The bytes it takes; a larger record is not told along.
    package mutating func fit(recordMax: Int) -> Int {
        var bytes = ByteBuffer()
        if isWhole { record.encodeBeaconBody(into: &bytes) }
        isWhole = isWhole && bytes.readableBytes <= recordMax
        let body = isWhole ? bytes.readableBytes : 0
        return BeaconFormat.tableEntrySize + record.identity.name.utf8.count + body
    }

    fileprivate func encode(into buffer: inout ByteBuffer) {
        buffer.writeText(record.identity.name)
        buffer.writeInteger(record.identity.incarnation.value)
        buffer.writeInteger(record.version)
        buffer.writeInteger(hasLeft ? 0 : max(1, intervalMilliseconds))
        buffer.writeInteger(age.wireMilliseconds)
        var body = ByteBuffer()
        if isWhole { record.encodeBeaconBody(into: &body) }
        buffer.writeInteger(UInt16(clamping: body.readableBytes))
        buffer.writeImmutableBuffer(body)
    }
}

extension NodeRecord {
    /// The bodies of the beacons that carry this record: one ``Beacon/Body/record(_:)`` where it fits one
    /// datagram, else parts of equal size.
    package func beaconBodies() -> [Beacon.Body] {
        var bytes = ByteBuffer()
        encodeBeaconBody(into: &bytes)
        let room = BeaconFormat.datagramSizeMax - BeaconFormat.headerSize - identity.name.utf8.count
        guard bytes.readableBytes > room else { return [.record(self)] }
        let count = (bytes.readableBytes + room - 1) / room
        var bodies: [Beacon.Body] = []
        bodies.reserveCapacity(count)
        while let slice = bytes.readSlice(length: min(room, bytes.readableBytes)), slice.readableBytes > 0 {
            bodies.append(.part(index: bodies.count, count: count, bytes: slice))
        }
        return bodies
    }

    /// Appends everything the header does not say.
    func encodeBeaconBody(into buffer: inout ByteBuffer) { fields.encodeBody(into: &buffer) }

    /// What makes this record unfit for a beacon, or nil. A node checks its own before it announces it.
    package var beaconFault: String? {
        if let fault = fields.beaconFault { return fault }
        let parts = beaconBodies().count
        return parts > BeaconFormat.partsMax
            ? "a record of \(parts) datagrams; at most \(BeaconFormat.partsMax) are allowed" : nil
    }
}

extension NodeRecord.Fields {
    fileprivate func encodeBody(into buffer: inout ByteBuffer) {
        buffer.writeText(cluster)
        buffer.writeText(instance ?? "")
        buffer.writeInteger(UInt8(clamping: addresses.count))
        for address in addresses {
            buffer.writeText(address.host)
            buffer.writeInteger(address.port)
        }
        buffer.writeText(unixPath ?? "")
        buffer.writeInteger(hostID)
        buffer.writeInteger(UInt16(clamping: services.count))
        for service in services {
            buffer.writeText(service.topic.name)
            // Most services are named after their node: an empty name says so in one byte.
            buffer.writeText(service.server == identity.name ? "" : service.server)
        }
        buffer.writeInteger(UInt16(clamping: subscriptions.count))
        for pattern in subscriptions { buffer.writeText(pattern.text) }
        buffer.writeInteger(UInt8(clamping: channels.count))
        for channel in channels {
            buffer.writeText(channel.name)
            buffer.writeInteger(channel.digest)
            buffer.writeInteger(channel.streamID)
            buffer.writeInteger(channel.mtu)
            buffer.writeInteger(UInt8(channel.joined ? 1 : 0))
        }
    }

    fileprivate var beaconFault: String? {
        if !BeaconFormat.isNodeName(identity.name.utf8) {
            return
                "node name \(quoted(identity.name)); allowed are 1 to 64 bytes of printable ASCII, no space"
        }
        if cluster.isEmpty || !Self.fits(cluster) {
            return "cluster \(quoted(cluster)); allowed are 1 to 255 bytes"
        }
        if let instance, instance.isEmpty || !Self.fits(instance) {
            return "instance \(quoted(instance)); allowed are 1 to 255 bytes"
        }
        if addresses.count > BeaconFormat.addressesMax {
            return "\(addresses.count) addresses; at most \(BeaconFormat.addressesMax) are allowed"
        }
        if let address = addresses.first(where: { !Self.fits($0.host, max: BeaconFormat.hostSizeMax) }) {
            return "address \(quoted(address.host)); allowed are at most \(BeaconFormat.hostSizeMax) bytes"
        }
        if let unixPath, unixPath.isEmpty || !Self.fits(unixPath, max: BeaconFormat.unixPathSizeMax) {
            return "socket path \(quoted(unixPath)); allowed are 1 to \(BeaconFormat.unixPathSizeMax) bytes"
        }
        if services.count + subscriptions.count > BeaconFormat.topicsMax {
            return
                "\(services.count + subscriptions.count) topics; allowed are \(BeaconFormat.topicsMax)"
        }
        if let service = services.first(where: { $0.server.isEmpty || !Self.fits($0.server) }) {
            return "server name \(quoted(service.server)); allowed are 1 to 255 bytes"
        }
        if channels.count > BeaconFormat.channelsMax {
            return "\(channels.count) channels; at most \(BeaconFormat.channelsMax) are allowed"
        }
        if let channel = channels.first(where: { $0.name.isEmpty || !Self.fits($0.name) }) {
            return "channel name \(quoted(channel.name)); allowed are 1 to 255 bytes"
        }
        return nil
    }

    private static func fits(_ text: String, max: Int = 255) -> Bool {
        text.utf8.count <= max && BeaconFormat.isPlain(text)
    }
}

extension ByteBuffer {
    /// Writes a length byte and the text; what is longer than 255 bytes is cut (checked long before).
    fileprivate mutating func writeText(_ text: String) {
        let bytes = text.utf8.prefix(255)
        writeInteger(UInt8(clamping: bytes.count))
        writeBytes(bytes)
    }
}
