import Testing

@testable import CastnetCLI

@Suite("SHA-256")
struct DigestTests {
    /// On any processor, and as fast as this one can.
    private func digest(_ bytes: [UInt8]) -> [UInt8] {
        let digest = SHA256.hash(bytes.span)
        #expect(SHA256.digest(bytes) == digest, "\(bytes.count) bytes")
        return digest
    }

    private func text(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test(
        "the examples of the standard",
        arguments: [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ])
    func examples(message: String, digest: String) {
        #expect(text(self.digest([UInt8](message.utf8))) == digest)
    }

    @Test("every length up to 299, wherever its last block ends: the digest of all these digests")
    func lengths() {
        let all = (0..<300).flatMap { length in digest((0..<length).map { UInt8(truncatingIfNeeded: $0 * 7) })
        }
        #expect(text(digest(all)) == "f65f14b090e805017546322e618401d41f0710c213e013a5131eb38bbe8f367f")
    }
}
