/// Why a PGM socket refused or failed.
package enum PGMError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The option's value would abort libpgm or break a rule of the island.
    case invalid(option: String, why: String)
    /// A call into libpgm or the kernel failed; the code is an errno or libpgm's own, 0 when unknown.
    case failed(operation: String, code: Int, text: String)
    /// A packet waits to be sent again; nothing else may be sent before it.
    case busy
    /// The payload does not fit into one packet, and PGM must never fragment.
    case payload(length: Int, max: Int)

    package var description: String {
        switch self {
        case .invalid(let option, let why): "\(option) \(why)"
        case .failed(let operation, let code, let text):
            code == 0 ? "\(operation): \(text)" : "\(operation): \(text) (\(code))"
        case .busy: "a packet is still waiting to leave"
        case .payload(let length, let max): "a payload of \(length) bytes; 1 to \(max) fit into a packet"
        }
    }
}
