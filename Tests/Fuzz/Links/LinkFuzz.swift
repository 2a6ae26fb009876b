// What libFuzzer calls with each input of a link target, which the command line names: `--target=hello`.

private let target: LinkRules.Target = {
    for target in LinkRules.Target.allCases where CommandLine.arguments.contains("--target=\(target)") {
        return target
    }
    fatalError("--target=NAME is missing")
}()

@_cdecl("LLVMFuzzerTestOneInput")
func fuzzLinks(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var reached = LinkRules.Reached()
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    do { try LinkRules.check(target, input, &reached) } catch { fatalError(error.description) }
    return 0
}
