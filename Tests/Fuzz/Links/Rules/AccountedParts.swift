import CastnetCore
import NIOCore

/// An assembler beside a plain account of what it should hold.
struct AccountedParts: ~Copyable {
    private var assembler = PartAssembler<UInt64>()
    private var begun: [UInt64: (total: Int, bytes: [UInt8], since: Instant)] = [:]

    var isEmpty: Bool { begun.isEmpty }

    mutating func begin(
        _ id: UInt64, _ first: ByteBuffer, total: Int, now: Instant
    ) throws(BrokenRule) -> Bool {
        let isNew = begun[id] == nil
        let isBegun = assembler.begin(id, id, first: first, total: total, now: now)
        try rule(isBegun == isNew, "\(id) is begun: \(isBegun)")
        if isNew { begun[id] = (total, Array(first.readableBytesView), now) }
        try judge()
        return isNew
    }

    mutating func chunk(
        _ id: UInt64, _ bytes: ByteBuffer
    ) throws(BrokenRule) -> PartAssembler<UInt64>.Result {
        let result = assembler.chunk(id, bytes)
        let entry = begun.removeValue(forKey: id)
        let have = (entry?.bytes ?? []) + bytes.readableBytesView
        switch (result, entry) {
        case (.stray, nil): break
        case (.inconsistent, let entry?) where have.count > entry.total: break
        case (.more, let entry?) where have.count < entry.total:
            begun[id] = (entry.total, have, entry.since)
        case (.whole(let head, let payload, let since), let entry?) where have.count == entry.total:
            let isSame = head == id && since == entry.since && have.elementsEqual(payload.readableBytesView)
            try rule(isSame, "\(id) is mixed up")
        default:
            throw BrokenRule(description: "\(result) for \(have.count) of \(entry?.total ?? 0) bytes")
        }
        try judge()
        return result
    }

    mutating func forget(_ id: UInt64) throws(BrokenRule) {
        let wasBegun = begun.removeValue(forKey: id) != nil
        let head = assembler.forget(id)
        try rule(head == (wasBegun ? id : nil), "\(id) is forgotten: \(head as Any)")
        try judge()
    }

    mutating func forgetAll() throws(BrokenRule) {
        assembler.forgetAll()
        begun = [:]
        try judge()
    }

    private func judge() throws(BrokenRule) {
        let due = begun.values.reduce(0) { $0 + $1.bytes.count }
        let (held, isEmpty) = (assembler.heldBytes, assembler.isEmpty)
        try rule(held == due, "\(held) bytes are held, \(due) came")
        try rule(isEmpty == begun.isEmpty, "\(begun.count) are begun")
    }
}
