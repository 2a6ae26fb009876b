extension PGMPacketType {
    /// What counts a packet of this kind that came.
    var countedIn: Counter {
        switch self {
        case .odata: .pgmInOdata
        case .rdata: .pgmInRdata
        case .spm: .pgmInSpm
        case .nak: .pgmInNak
        case .ncf: .pgmInNcf
        case .spmr: .pgmInSpmr
        case .poll, .polr, .nnak, .ack: .pgmInOther
        }
    }

    /// What counts a packet of this kind that left.
    var countedOut: Counter {
        switch self {
        case .odata: .pgmOutOdata
        case .rdata: .pgmOutRdata
        case .spm: .pgmOutSpm
        case .nak: .pgmOutNak
        case .ncf: .pgmOutNcf
        case .spmr: .pgmOutSpmr
        case .poll, .polr, .nnak, .ack: .pgmOutOther
        }
    }
}

extension Rejection {
    /// What counts packets refused for this reason.
    var counter: Counter {
        switch self {
        case .length: .pgmRejectedLength
        case .type: .pgmRejectedType
        case .options: .pgmRejectedOptions
        case .family: .pgmRejectedFamily
        case .checksum: .pgmRejectedChecksum
        case .port: .pgmRejectedPort
        case .tsi: .pgmRejectedTsi
        case .own: .pgmRejectedOwn
        case .alias: .pgmRejectedAlias
        case .source: .pgmRejectedSource
        case .streams: .pgmRejectedStreams
        case .destination: .pgmRejectedDestination
        case .numbers: .pgmRejectedNumbers
        case .behind: .pgmRejectedBehind
        case .jump: .pgmRejectedJump
        case .far: .pgmRejectedFar
        case .resync: .pgmRejectedResync
        case .unknown: .pgmRejectedUnknown
        case .quiet: .pgmRejectedQuiet
        case .holdoff: .pgmRejectedHoldoff
        case .rate: .pgmRejectedRate
        case .fault: .pgmRejectedFault
        case .magic: .pgmRejectedMagic
        }
    }
}
