#include "CDigest.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define WITH_SHA __attribute__((target("sha,ssse3,sse4.1")))

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static bool find_sha(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/// To ask costs microseconds on a virtual machine: it is asked once.
static bool has_sha(void) {
    static _Atomic int known;
    int has = known;
    if (has == 0) known = has = find_sha() ? 1 : -1;
    return has > 0;
}

/// The state as the instructions want it: words a, b, e, f, and c, d, g, h, each from the highest lane down.
typedef struct {
    __m128i abef, cdgh;
} State;

WITH_SHA static State block(State state, const uint8_t *bytes) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    const State before = state;
    // The schedule's last sixteen words, four a register.
    __m128i words[4];
    for (int group = 0; group < 16; group++) {
        __m128i *now = &words[group % 4];
        if (group < 4) {
            *now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(bytes + 16 * group)), big_endian);
        } else {
            const __m128i last = words[(group + 3) % 4];
            const __m128i sevenBack = _mm_alignr_epi8(last, words[(group + 2) % 4], 4);
            const __m128i early = _mm_sha256msg1_epu32(*now, words[(group + 1) % 4]);
            *now = _mm_sha256msg2_epu32(_mm_add_epi32(early, sevenBack), last);
        }
        const __m128i added = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(constants + 4 * group)));
        state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, added);
        state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32(added, 0x0e));
    }
    state.abef = _mm_add_epi32(state.abef, before.abef);
    state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    return state;
}

static void put(uint8_t *digest, int word, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(digest + 4 * word, &value, 4);
}

WITH_SHA static void sha256(const uint8_t *bytes, size_t count, uint8_t *digest) {
    State state = {
        _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c),
        _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19),
    };
    size_t at = 0;
    for (; count - at >= 64; at += 64) state = block(state, bytes + at);
    // The rest, a one bit, zeros, and the length in bits end on a block.
    uint8_t tail[128] = {0};
    const size_t rest = count - at;
    const size_t length = rest < 56 ? 64 : 128;
    if (rest > 0) memcpy(tail, bytes + at, rest);
    tail[rest] = 0x80;
    const uint64_t bits = __builtin_bswap64((uint64_t)count * 8);
    memcpy(tail + length - 8, &bits, 8);
    for (size_t place = 0; place < length; place += 64) state = block(state, tail + place);
    uint32_t abef[4], cdgh[4];
    _mm_storeu_si128((__m128i *)abef, state.abef);
    _mm_storeu_si128((__m128i *)cdgh, state.cdgh);
    for (int word = 0; word < 2; word++) {
        put(digest, word, abef[3 - word]);
        put(digest, 2 + word, cdgh[3 - word]);
        put(digest, 4 + word, abef[1 - word]);
        put(digest, 6 + word, cdgh[1 - word]);
    }
}

bool castnet_sha256(const uint8_t *bytes, size_t count, uint8_t *digest) {
    if (!has_sha()) return false;
    sha256(bytes, count, digest);
    return true;
}

#else

bool castnet_sha256(const uint8_t *bytes, size_t count, uint8_t *digest) {
    (void)bytes, (void)count, (void)digest;
    return false;
}

#endif
