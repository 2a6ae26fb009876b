@main
struct CastnetCommand {
    static func main() {}
}
