/// Why bytes from the network are refused: a closed set, so that each reason is a counter.
package enum WireError: String, Error, Hashable, Sendable, CaseIterable {
    /// It does not start with Castnet's magic number.
    case magic
    /// Its version is none we speak.
    case version
    /// Its authentication key is none we have.
    case key
    /// It ends before its content does.
    case truncated
    /// It goes on after its content.
    case trailing
    /// It is longer than allowed.
    case tooLong = "too-long"
    /// A kind that must be understood and is not.
    case unknownKind = "unknown-kind"
    /// A number outside its range.
    case range
    /// A name that breaks the naming rules.
    case name
    /// Text that is not UTF-8.
    case text
    /// Headers past their limits.
    case headers
    /// A length that contradicts another.
    case inconsistent
}
