/// What a configured fault does to each packet of a channel.
package struct PacketFaults: Sendable {
    package enum Fate: Hashable, Sendable {
        case pass
        case drop
        case duplicate
        case hold(Duration)
    }

    private let settings: FaultSettings
    private let types: Set<PGMPacketType>
    private var generator: SeededGenerator

    package init(_ settings: FaultSettings) {
        self.settings = settings
        generator = SeededGenerator(seed: settings.seed)
        types = Set(
            settings.types.map { type in
                switch type {
                case .odata: .odata
                case .rdata: .rdata
                case .nak: .nak
                case .ncf: .ncf
                case .spm: .spm
                }
            })
    }

    /// What becomes of a packet of `type`, the byte on the wire.
    package mutating func fate(type: UInt8, direction: FaultSettings.Direction) -> Fate {
        if let only = settings.direction, only != direction { return .pass }
        if !types.isEmpty {
            guard let type = PGMPacketType(rawValue: type), types.contains(type) else { return .pass }
        }
        if chance(settings.drop) { return .drop }
        if chance(settings.duplicate) { return .duplicate }
        // Longer than the next packet takes.
        let extra: Duration = chance(settings.reorder) ? .milliseconds(2) : .zero
        let delay = settings.delay + extra
        return delay > .zero ? .hold(delay) : .pass
    }

    private mutating func chance(_ share: Double) -> Bool {
        share > 0 && Double.random(in: 0..<1, using: &generator) < share
    }
}
