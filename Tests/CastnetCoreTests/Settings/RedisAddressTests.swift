import CastnetCore
import Testing

@Suite struct RedisAddressTests {
    @Test func `a URL names host, port, user, password and database`() throws {
        let plain = try RedisAddress("redis://store.example")
        #expect(plain.host == "store.example" && plain.port == 6379 && plain.database == 0)
        #expect(plain.user == nil && plain.password == nil)
        let whole = try RedisAddress("redis://nodes:p%40ss%2F%25:w%C3%B6rd@10.0.0.9:6380/12")
        #expect(whole.host == "10.0.0.9" && whole.port == 6380 && whole.database == 12)
        #expect(whole.user == "nodes" && whole.password == "p@ss/%:wörd")
        let secret = try RedisAddress("redis://:secret@[fd00::9]:7000/")
        #expect(secret.host == "fd00::9" && secret.port == 7000 && secret.user == nil)
        #expect(secret.password == "secret" && secret.description == "[fd00::9]:7000/0")
        #expect(try RedisAddress("redis://[fd00::9]").port == 6379)
    }

    @Test(arguments: [
        "", "redis:", "http://h", "REDIS://h", "redis://", "redis:///3", "redis://:secret@", "redis://h:0",
        "redis://h:65536", "redis://h:x", "redis://h/x", "redis://h/-1", "redis://h/10000", "redis://h/1/2",
        "redis://user@h", "redis://user:@h", "redis://u:%zz@h", "redis://u:%+1@h", "redis://u:%F@h",
        "redis://u:%FF%FE@h", "redis://h?db=1", "redis://h#x", "redis://fd00::1", "redis://[fd00::1",
        "redis://h h",
        "redis://[::1]x:5",
    ])
    func `anything else is refused`(_ text: String) {
        #expect(throws: RedisAddress.Fault.self) { try RedisAddress(text) }
    }

    @Test func `TLS is refused in words, and no fault tells the password`() {
        let texts = ["rediss://u:secret@h", "redis://u:secret@h:x", "redis://u:secret@h/x", "x://secret"]
        for text in texts {
            do throws(RedisAddress.Fault) {
                _ = try RedisAddress(text)
                Issue.record("\(text)")
            } catch {
                #expect(!error.reason.contains("secret"))
                #expect(error.reason.contains("TLS") == text.hasPrefix("rediss"))
            }
        }
    }

    @Test func `bytes of any kind never trap`() {
        var random = SeededGenerator(seed: 4711)
        let letters = Array("redis://:@[]%/0aF.\u{e9}?#-")
        for _ in 0..<20_000 {
            let text = String(
                (0..<Int.random(in: 0...20, using: &random)).map { _ in
                    letters.randomElement(using: &random) ?? "x"
                })
            _ = try? RedisAddress("redis://" + text)
        }
    }
}
