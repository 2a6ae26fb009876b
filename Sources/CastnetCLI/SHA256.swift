internal import CDigest

/// SHA-256 (FIPS 180-4) of what is in memory: `castnet` prints it, so that whoever compares what was sent
/// with what arrived needs no payloads. No secret is kept with it.
///
/// A library for this one function took longer to build than all the rest of the command.
struct SHA256 {
    private var state: [8 of UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
        0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    private var schedule = [64 of UInt32](repeating: 0)

    /// The digest, 32 bytes: by the processor's own instructions where it has them, six times as fast.
    static func digest(_ bytes: [UInt8]) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        return castnet_sha256(bytes, bytes.count, &digest) ? digest : hash(bytes.span)
    }

    /// The digest, 32 bytes, on any processor.
    static func hash(_ bytes: Span<UInt8>) -> [UInt8] {
        var hasher = SHA256()
        let whole = bytes.count / 64 * 64
        hasher.update(bytes.extracting(first: whole))
        // The rest, a one bit, zeros, and the length in bits end on a block.
        var tail = (whole..<bytes.count).map { bytes[$0] }
        tail.append(0x80)
        tail.append(contentsOf: repeatElement(0, count: (120 - tail.count) % 64))
        let bits = UInt64(bytes.count * 8)
        for shift in stride(from: 56, through: 0, by: -8) {
            tail.append(UInt8(truncatingIfNeeded: bits >> shift))
        }
        hasher.update(tail.span)
        return (0..<32).map { UInt8(truncatingIfNeeded: hasher.state[$0 / 4] >> (24 - $0 % 4 * 8)) }
    }

    /// Takes whole blocks of 64 bytes.
    private mutating func update(_ blocks: Span<UInt8>) {
        for block in stride(from: 0, to: blocks.count, by: 64) {
            for word in 0..<16 {
                let at = block + 4 * word
                schedule[word] =
                    UInt32(blocks[at]) << 24 | UInt32(blocks[at + 1]) << 16 | UInt32(blocks[at + 2]) << 8
                    | UInt32(blocks[at + 3])
            }
            expand()
            compress()
        }
    }

    private mutating func expand() {
        for word in 16..<64 {
            let (early, late) = (schedule[word - 15], schedule[word - 2])
            let first = Self.rotated(early, 7) ^ Self.rotated(early, 18) ^ (early >> 3)
            let second = Self.rotated(late, 17) ^ Self.rotated(late, 19) ^ (late >> 10)
            schedule[word] = schedule[word - 16] &+ first &+ schedule[word - 7] &+ second
        }
    }

    private mutating func compress() {
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        // Eight at a time: what would move from name to name stays where it is.
        for at in stride(from: 0, to: 64, by: 8) {
            Self.round(a, b, c, &d, e, f, g, &h, schedule[at + 0] &+ Self.constants[at + 0])
            Self.round(h, a, b, &c, d, e, f, &g, schedule[at + 1] &+ Self.constants[at + 1])
            Self.round(g, h, a, &b, c, d, e, &f, schedule[at + 2] &+ Self.constants[at + 2])
            Self.round(f, g, h, &a, b, c, d, &e, schedule[at + 3] &+ Self.constants[at + 3])
            Self.round(e, f, g, &h, a, b, c, &d, schedule[at + 4] &+ Self.constants[at + 4])
            Self.round(d, e, f, &g, h, a, b, &c, schedule[at + 5] &+ Self.constants[at + 5])
            Self.round(c, d, e, &f, g, h, a, &b, schedule[at + 6] &+ Self.constants[at + 6])
            Self.round(b, c, d, &e, f, g, h, &a, schedule[at + 7] &+ Self.constants[at + 7])
        }
        state = [
            state[0] &+ a, state[1] &+ b, state[2] &+ c, state[3] &+ d,
            state[4] &+ e, state[5] &+ f, state[6] &+ g, state[7] &+ h,
        ]
    }

    @inline(__always)
    private static func round(
        _ a: UInt32, _ b: UInt32, _ c: UInt32, _ d: inout UInt32, _ e: UInt32, _ f: UInt32, _ g: UInt32,
        _ h: inout UInt32, _ word: UInt32
    ) {
        h &+= (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) &+ (g ^ (e & (f ^ g))) &+ word
        d &+= h
        h &+= (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) &+ ((a & b) | (c & (a | b)))
    }

    @inline(__always)
    private static func rotated(_ word: UInt32, _ count: UInt32) -> UInt32 {
        (word &>> count) | (word &<< (32 &- count))
    }

    /// The first 32 bits of the fractions of the cube roots of the first 64 primes.
    private static let constants: [64 of UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5,
        0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3,
        0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc,
        0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7,
        0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13,
        0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3,
        0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5,
        0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208,
        0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]
}
