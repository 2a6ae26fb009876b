internal import Glibc

/// What the system says about an errno.
func errorText(_ code: Int32) -> String {
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    return unsafe String(cString: text)
}

/// The text in a C character array, which Swift sees as a tuple.
func text<Tuple>(ofTuple tuple: Tuple) -> String {
    unsafe withUnsafeBytes(of: tuple) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
