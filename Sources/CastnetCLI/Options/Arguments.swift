internal import ArgumentParser
internal import Castnet

/// `call`, `cast` or `fanout` as an argument.
struct KindArgument: ExpressibleByArgument {
    let kind: MessageKind

    init?(argument: String) {
        guard let kind = MessageKind(rawValue: argument) else { return nil }
        self.kind = kind
    }

    static var allValueStrings: [String] { MessageKind.allCases.map(\.rawValue) }
}

/// A size as an argument: plain bytes, or an amount with a unit.
struct ByteCount: ExpressibleByArgument {
    let bytes: Int

    init?(argument: String) {
        guard let bytes = (try? Quantity.count(argument)) ?? (try? Quantity.bytes(argument)) else {
            return nil
        }
        self.bytes = bytes
    }
}

/// A time as an argument: `250ms`, `2s`, `1min`.
struct TimeArgument: ExpressibleByArgument {
    let duration: Duration

    init?(argument: String) {
        guard let duration = try? Quantity.duration(argument) else { return nil }
        self.duration = duration
    }
}
