#ifndef CASTNET_SEAM_STATE_H
#define CASTNET_SEAM_STATE_H

/* What the two directions of the seam share: seam.c sends, seam_in.c receives. */

#include "seam.h"

#ifdef CASTNET_MULTICAST

#include <stdbool.h>
#include <stddef.h>

enum {
    /// Packets that wait to leave together, and their bytes.
    OUT_PACKETS = 128,
    /// A packet leaves at most twice, for two ports each time.
    COPIES_MAX = 4,
    OUT_BYTES = 192 * 1024,
    /// What the kernel takes as one segmented send; bytes: CASTNET_SEGMENTED_BYTES_MAX.
    SEGMENTS_MAX = 64,
    /// What one receive call may fill.
    IN_MESSAGES = 32,
    COALESCED_MESSAGE = 64 * 1024,
    /// A little more than a message, or the beginnings of all would share a few lines of the cache.
    IN_STRIDE = COALESCED_MESSAGE + 1536,
    /// What one call should bring: little enough to stay in the processor's own cache until libpgm has it.
    IN_BYTES_WORTH = 96 * 1024,
    /// Receive calls to the kernel within one call of libpgm: a flood of refused packets ends the turn.
    REFILLS_MAX = 4,
    INJECTED_MAX = 1024,
    /// Offsets in a PGM packet.
    TYPE_AT = 4, OPTIONS_AT = 5, CHECKSUM_AT = 6, BODY_AT = 16,
};

enum { SPM = 0x00, ODATA = 0x04, RDATA = 0x05, NAK = 0x08, NCF = 0x0a };

/// A packet in the outgoing buffer, in the order in which it leaves.
typedef struct outgoing {
    uint32_t offset;
    uint32_t address;
    uint16_t port;
    uint16_t length;
} outgoing;

/// What one kernel message held: packets of `segment` bytes, the last one shorter.
typedef struct incoming {
    uint32_t offset;
    uint32_t length;
    uint32_t segment;
    uint32_t source;
    uint32_t destination;
    uint16_t port;
    bool on_send;
} incoming;

/// A packet that this side made or kept: libpgm gets it next, unjudged.
typedef struct injected {
    struct injected *next;
    uint32_t source;
    uint32_t destination;
    uint32_t length;
    uint8_t bytes[];
} injected;

struct castnet_seam {
    castnet_seam_hooks hooks;
    int receive, send;
    uint16_t mtu;
    uint32_t shift;
    bool segments, coalesces, closing, send_readable, blocked;
    uint32_t send_calls, receive_calls;

    outgoing out[OUT_PACKETS];
    unsigned out_first, out_count;
    size_t out_bytes;
    uint8_t out_buffer[OUT_BYTES];

    incoming in[IN_MESSAGES];
    unsigned in_first, in_count;
    /// The packet at the cursor was judged already; what goes before it may still have to be handed over.
    bool in_judged, in_has_made, in_is_made_only;
    uint8_t in_made[CASTNET_SEAM_SPM];
    /// Packets given in order in this receive call, and how many may be; ended: no other in this call.
    uint32_t run, run_max;
    bool run_ended;
    /// Bytes a message of the last call had on average.
    uint32_t in_expected;
    /// Touched only as far as messages fill it.
    uint8_t in_buffer[IN_MESSAGES * IN_STRIDE];

    injected *injected_first, **injected_end;
    unsigned injected_count;

    castnet_seam_facts facts;
};

/// The seam that the calling thread's calls of libpgm go through.
extern __thread castnet_seam *castnet_seam_current;

/// Adds `shift` to the numbers in a packet of this node's own stream, so that a test can start next to their end.
void castnet_seam_shift(uint8_t *packet, size_t length, uint32_t shift);

#endif
#endif
