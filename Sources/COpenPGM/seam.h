#ifndef CASTNET_SEAM_H
#define CASTNET_SEAM_H

/* Inside this target only: the seam's side towards pgm.c. What Swift sees of it is in COpenPGM.h. */

#include "COpenPGM.h"

typedef struct castnet_seam castnet_seam;

/// Replaces libpgm's two calls, once a process; every open checks that they still stand. False: the seam is
/// not to be had here, and `error` says why.
bool castnet_seam_install(castnet_pgm_error *error);

castnet_seam *castnet_seam_new(const castnet_seam_hooks *hooks, uint16_t mtu, uint32_t shift);
/// Tells the descriptors, which libpgm gives away only when it is connected.
void castnet_seam_connected(castnet_seam *seam, int receive, int send);
void castnet_seam_free(castnet_seam *seam);

/// Makes `seam` the one that the calling thread's calls of libpgm go through; returns the one before.
castnet_seam *castnet_seam_enter(castnet_seam *seam);

/// Before a receive call: libpgm may be given up to `run_max` packets in it if they come in order.
void castnet_seam_begin_run(castnet_seam *seam, uint32_t run_max);
/// How many it was given in order.
uint32_t castnet_seam_run(const castnet_seam *seam);
/// True: what comes next is given only to a call for one packet.
bool castnet_seam_next_goes_alone(const castnet_seam *seam);

/// Whether libpgm's calls came here since the seam was made: the two directions of the self-test.
bool castnet_seam_proven(const castnet_seam *seam);

/// From now on every packet leaves at once: the descriptors are about to be closed.
void castnet_seam_close(castnet_seam *seam);

/// True while packets lie in the seam that libpgm has not seen.
bool castnet_seam_holds_packets(const castnet_seam *seam);
void castnet_seam_note_send_readable(castnet_seam *seam);
bool castnet_seam_emit(
    castnet_seam *seam, const void *bytes, size_t length, uint32_t address, uint16_t port);
castnet_pgm_status castnet_seam_flush(castnet_seam *seam);
bool castnet_seam_inject(
    castnet_seam *seam, const void *bytes, size_t length, uint32_t source, uint32_t destination);
castnet_seam_facts castnet_seam_facts_of(const castnet_seam *seam);

#endif
