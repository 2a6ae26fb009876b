package import NIOCore

extension Beacon {
    /// Reads one whole datagram, which came from anybody: every fault is a thrown ``BeaconFault``.
    /// `sizeMax`: how large it may be where it came.
    package init(
        decoding datagram: ByteBuffer, sizeMax: Int = BeaconFormat.datagramSizeMax
    ) throws(BeaconFault) {
        var buffer = datagram
        guard buffer.readableBytes <= sizeMax else {
            throw .tooLong(buffer.readableBytes)
        }
        guard buffer.readInteger(as: UInt32.self) == BeaconFormat.magic else { throw .notBeacon }
        let version: UInt8 = try buffer.number(.header)
        guard version == BeaconFormat.version else { throw .version(version) }
        let kindByte: UInt8 = try buffer.number(.header)
        guard let kind = BeaconFormat.Kind(rawValue: kindByte) else { throw .kind(kindByte) }
        let _: UInt16 = try buffer.number(.header)
        let key: UInt32 = try buffer.number(.header)
        guard key == 0 else { throw .key(key) }
        guard buffer.readSlice(length: 16) != nil else { throw .truncated(.header) }
        let cluster: UInt64 = try buffer.number(.header)
        let incarnation: UInt64 = try buffer.number(.header)
        let recordVersion: UInt64 = try buffer.number(.header)
        let milliseconds: UInt32 = try buffer.number(.header)
        let index: UInt16 = try buffer.number(.header)
        let count: UInt16 = try buffer.number(.header)
        guard count >= 1, index < count, count <= BeaconFormat.partsMax, kind == .full || count == 1 else {
            throw .part
        }
        let sender = NodeIdentity(name: try buffer.nodeName(), incarnation: Incarnation(incarnation))
        let interval = Self.interval(milliseconds)
        let body: Body
        switch kind {
        case .digest: body = .digest(try Self.heads(in: &buffer))
        case .request: body = .request(try Self.request(in: &buffer))
        case .goodbye: body = .goodbye
        case .table: body = .table(try Self.table(in: &buffer, cluster: cluster))
        case .full where count > 1:
            body = .part(index: Int(index), count: Int(count), bytes: buffer)
        case .full:
            let record = try NodeRecord(decodingBody: &buffer, of: sender, version: recordVersion)
            guard Beacon.digest(ofCluster: record.cluster) == cluster else { throw .invalid(.cluster) }
            body = .record(record)
        }
        self.init(
            cluster: cluster, sender: sender, recordVersion: recordVersion, interval: interval, body: body)
    }

    private static func interval(_ milliseconds: UInt32) -> Duration {
        max(BeaconFormat.intervalMin, min(BeaconFormat.intervalMax, .milliseconds(Int64(milliseconds))))
    }

    private static func table(
        in buffer: inout ByteBuffer, cluster: UInt64
    ) throws(BeaconFault) -> [Told] {
        let count: UInt16 = try buffer.number(.table)
        var table: [Told] = []
        // A hostile count reserves nothing.
        table.reserveCapacity(min(Int(count), buffer.readableBytes / BeaconFormat.tableEntrySize))
        for _ in 0..<count {
            let name = try buffer.nodeName()
            let (incarnation, version): (UInt64, UInt64) = (
                try buffer.number(.table), try buffer.number(.table)
            )
            let (interval, age): (UInt32, UInt32) = (try buffer.number(.table), try buffer.number(.table))
            let length: UInt16 = try buffer.number(.table)
            guard var body = buffer.readSlice(length: Int(length)) else { throw .truncated(.table) }
            let identity = NodeIdentity(name: name, incarnation: Incarnation(incarnation))
            var record = NodeRecord(identity: identity, version: version)
            if length > 0 {
                record = try NodeRecord(decodingBody: &body, of: identity, version: version)
                guard Beacon.digest(ofCluster: record.cluster) == cluster else { throw .invalid(.cluster) }
            }
            guard interval > 0 else {
                table.append(.left(identity, age: .milliseconds(Int64(age))))
                continue
            }
            table.append(
                Told(
                    record: record, isWhole: length > 0, interval: Self.interval(interval),
                    age: .milliseconds(Int64(age))))
        }
        return table
    }

    /// Sections this version does not know are stepped over.
    private static func heads(in buffer: inout ByteBuffer) throws(BeaconFault) -> [Head] {
        var heads: [Head] = []
        while buffer.readableBytes > 0 {
            let type: UInt8 = try buffer.number(.section)
            let length: UInt16 = try buffer.number(.section)
            guard var section = buffer.readSlice(length: Int(length)) else { throw .truncated(.section) }
            guard type == BeaconFormat.headsSection else { continue }
            guard length % 24 == 0 else { throw .truncated(.section) }
            guard heads.count + Int(length) / 24 <= BeaconFormat.headsMax else { throw .tooMany(.section) }
            while section.readableBytes > 0 {
                heads.append(
                    Head(
                        stream: try section.number(.section), next: try section.number(.section),
                        oldest: try section.number(.section)))
            }
        }
        return heads
    }

    private static func request(in buffer: inout ByteBuffer) throws(BeaconFault) -> Request {
        let modeByte: UInt8 = try buffer.number(.request)
        guard let mode = BeaconFormat.RequestMode(rawValue: modeByte) else { throw .invalid(.request) }
        let count: UInt16 = try buffer.number(.request)
        guard count <= BeaconFormat.requestEntriesMax else { throw .tooMany(.request) }
        var entries: [UInt64] = []
        entries.reserveCapacity(Int(count))
        for _ in 0..<count { entries.append(try buffer.number(.request)) }
        return switch mode {
        case .everyoneExcept: .everyone(except: entries)
        case .records: .records(entries)
        case .life: .life(entries)
        case .table: .table
        }
    }
}

extension NodeRecord {
    /// Reads what ``NodeRecord/encodeBeaconBody(into:)`` wrote. Bytes behind the known fields belong to
    /// later versions and are ignored.
    package init(decodingBody buffer: inout ByteBuffer, of identity: NodeIdentity, version: UInt64)
        throws(BeaconFault)
    {
        self.init(try Fields(decodingBody: &buffer, of: identity, version: version))
    }
}

extension NodeRecord.Fields {
    fileprivate init(decodingBody buffer: inout ByteBuffer, of identity: NodeIdentity, version: UInt64)
        throws(BeaconFault)
    {
        let cluster = try buffer.text(.cluster)
        guard !cluster.isEmpty else { throw .invalid(.cluster) }
        self.init(identity: identity, version: version, cluster: cluster)
        let instance = try buffer.text(.instance)
        self.instance = instance.isEmpty ? nil : instance
        let addressCount: UInt8 = try buffer.number(.address)
        guard addressCount <= BeaconFormat.addressesMax else { throw .tooMany(.address) }
        for _ in 0..<addressCount {
            let host = try buffer.text(.address, max: BeaconFormat.hostSizeMax)
            guard !host.isEmpty else { throw .invalid(.address) }
            addresses.append(HostPort(host: host, port: try buffer.number(.address)))
        }
        let path = try buffer.text(.unixPath, max: BeaconFormat.unixPathSizeMax)
        unixPath = path.isEmpty ? nil : path
        hostID = try buffer.number(.unixPath)
        try decodeTopics(from: &buffer)
        try decodeChannels(from: &buffer)
    }

    private mutating func decodeTopics(from buffer: inout ByteBuffer) throws(BeaconFault) {
        let serviceCount: UInt16 = try buffer.number(.service)
        guard serviceCount <= BeaconFormat.topicsMax else { throw .tooMany(.service) }
        // A hostile count reserves nothing: each entry has at least two bytes.
        services.reserveCapacity(min(Int(serviceCount), buffer.readableBytes / 2))
        for _ in 0..<serviceCount {
            let name = try buffer.text(.service)
            guard Topic.fault(in: name, wildcards: false) == nil else { throw .invalid(.service) }
            let server = try buffer.text(.service)
            services.append(
                NodeRecord.Service(
                    topic: Topic(unchecked: name), server: server.isEmpty ? identity.name : server))
        }
        let patternCount: UInt16 = try buffer.number(.subscription)
        guard Int(patternCount) + services.count <= BeaconFormat.topicsMax else {
            throw .tooMany(.subscription)
        }
        subscriptions.reserveCapacity(min(Int(patternCount), buffer.readableBytes))
        for _ in 0..<patternCount {
            let text = try buffer.text(.subscription)
            guard Topic.fault(in: text, wildcards: true) == nil else { throw .invalid(.subscription) }
            subscriptions.append(TopicPattern(unchecked: text))
        }
    }

    private mutating func decodeChannels(from buffer: inout ByteBuffer) throws(BeaconFault) {
        let count: UInt8 = try buffer.number(.channel)
        guard count <= BeaconFormat.channelsMax else { throw .tooMany(.channel) }
        for _ in 0..<count {
            let name = try buffer.text(.channel)
            guard !name.isEmpty else { throw .invalid(.channel) }
            let (digest, stream): (UInt64, UInt64) = (
                try buffer.number(.channel), try buffer.number(.channel)
            )
            let mtu: UInt16 = try buffer.number(.channel)
            let flags: UInt8 = try buffer.number(.channel)
            channels.append(
                NodeRecord.Channel(
                    name: name, digest: digest, streamID: stream, mtu: mtu, joined: flags & 1 == 1))
        }
    }
}

extension ByteBuffer {
    fileprivate mutating func number<T: FixedWidthInteger>(
        _ field: BeaconFault.Field
    ) throws(BeaconFault) -> T {
        guard let value = readInteger(as: T.self) else { throw .truncated(field) }
        return value
    }

    fileprivate mutating func nodeName() throws(BeaconFault) -> String {
        let name = try text(.name, max: BeaconFormat.nameSizeMax)
        guard BeaconFormat.isNodeName(name.utf8) else { throw .invalid(.name) }
        return name
    }

    fileprivate mutating func text(
        _ field: BeaconFault.Field, max: Int = 255
    ) throws(BeaconFault) -> String {
        let length: UInt8 = try number(field)
        guard length <= max else { throw .invalid(field) }
        guard let bytes = readBytes(length: Int(length)) else { throw .truncated(field) }
        guard let text = String(validating: bytes, as: UTF8.self), BeaconFormat.isPlain(text) else {
            throw .invalid(field)
        }
        return text
    }
}
