#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "seam_state.h"

#ifdef CASTNET_MULTICAST

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "replacements.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

__thread castnet_seam *castnet_seam_current;

castnet_seam *castnet_seam_enter(castnet_seam *seam) {
    castnet_seam *before = castnet_seam_current;
    castnet_seam_current = seam;
    return before;
}

castnet_seam *castnet_seam_new(const castnet_seam_hooks *hooks, uint16_t mtu, uint32_t shift) {
    castnet_seam *seam = calloc(1, sizeof *seam);
    if (!seam) return NULL;
    seam->hooks = *hooks;
    seam->receive = seam->send = -1;
    seam->mtu = mtu;
    seam->shift = shift;
    seam->injected_end = &seam->injected_first;
    return seam;
}

void castnet_seam_connected(castnet_seam *seam, int receive, int send) {
    int on = 1;
    seam->receive = receive;
    seam->send = send;
    seam->segments = !seam->hooks.plain;
    seam->coalesces =
        !seam->hooks.plain && setsockopt(receive, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
}

void castnet_seam_free(castnet_seam *seam) {
    while (seam->injected_first) {
        injected *next = seam->injected_first->next;
        free(seam->injected_first);
        seam->injected_first = next;
    }
    free(seam);
}

bool castnet_seam_proven(const castnet_seam *seam) {
    return seam->send_calls > 0 && seam->receive_calls > 0;
}

void castnet_seam_close(castnet_seam *seam) { seam->closing = true; }

castnet_seam_facts castnet_seam_facts_of(const castnet_seam *seam) {
    castnet_seam_facts facts = seam->facts;
    facts.segments = seam->segments;
    facts.coalesces = seam->coalesces;
    return facts;
}

/* ---- Bytes ---- */

static uint32_t load32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void add32(uint8_t *bytes, uint32_t shift) {
    uint32_t value = load32(bytes) + shift;
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void write_checksum(uint8_t *packet, size_t length) {
    uint32_t sum = 0;
    packet[CHECKSUM_AT] = packet[CHECKSUM_AT + 1] = 0;
    for (size_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)packet[i] << 8 | packet[i + 1];
    if (length & 1) sum += (uint32_t)packet[length - 1] << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    uint16_t checksum = sum == 0xffff ? 0xffff : (uint16_t)~sum;
    packet[CHECKSUM_AT] = (uint8_t)(checksum >> 8);
    packet[CHECKSUM_AT + 1] = (uint8_t)checksum;
}

void castnet_seam_shift(uint8_t *packet, size_t length, uint32_t shift) {
    if (shift == 0 || length < BODY_AT + 8) return;
    switch (packet[TYPE_AT]) {
    case ODATA:
    case RDATA:
        add32(packet + BODY_AT, shift);
        add32(packet + BODY_AT + 4, shift);
        break;
    case SPM:
        if (length < 36) return;
        add32(packet + BODY_AT + 4, shift);
        add32(packet + BODY_AT + 8, shift);
        break;
    case NAK:
    case NCF:
        if (length < 36) return;
        add32(packet + BODY_AT, shift);
        if (packet[OPTIONS_AT] & 1)
            for (size_t at = 44; at + 4 <= length; at += 4) add32(packet + at, shift);
        break;
    default: return;
    }
    write_checksum(packet, length);
}

/* ---- Out ---- */

static bool may_join(const outgoing *run, const outgoing *last, const outgoing *next, size_t bytes,
                     unsigned count) {
    return next->address == run->address && next->port == run->port && last->length == run->length
        && next->length <= run->length && next->offset == last->offset + last->length
        && bytes + next->length <= CASTNET_SEGMENTED_BYTES_MAX && count < SEGMENTS_MAX;
}

/* How many packets from `first` on leave as one segmented send. */
static unsigned run_length(const castnet_seam *seam, unsigned first, size_t *bytes) {
    const outgoing *run = &seam->out[first];
    unsigned count = 1;
    *bytes = run->length;
    while (seam->segments && first + count < seam->out_count
        && may_join(run, run + count - 1, run + count, *bytes, count)) {
        *bytes += run[count].length;
        count++;
    }
    return count;
}

typedef struct departure {
    struct mmsghdr messages[OUT_PACKETS];
    struct iovec vectors[OUT_PACKETS];
    struct sockaddr_in names[OUT_PACKETS];
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } controls[OUT_PACKETS];
    unsigned packets[OUT_PACKETS];
    unsigned count;
} departure;

static void add_run(castnet_seam *seam, departure *departure, unsigned first, unsigned packets,
                    size_t bytes) {
    unsigned slot = departure->count++;
    const outgoing *run = &seam->out[first];
    departure->packets[slot] = packets;
    departure->vectors[slot] = (struct iovec){seam->out_buffer + run->offset, bytes};
    departure->names[slot] = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(run->address), .sin_port = htons(run->port)};
    struct msghdr *header = &departure->messages[slot].msg_hdr;
    *header = (struct msghdr){
        .msg_name = &departure->names[slot], .msg_namelen = sizeof departure->names[slot],
        .msg_iov = &departure->vectors[slot], .msg_iovlen = 1};
    if (packets < 2) return;
    header->msg_control = departure->controls[slot].bytes;
    header->msg_controllen = sizeof departure->controls[slot].bytes;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    memcpy(CMSG_DATA(control), &run->length, sizeof run->length);
}

static void drop_first(castnet_seam *seam, unsigned packets) {
    seam->out_first += packets;
    seam->facts.packets_failed += packets;
    seam->facts.last_errno = errno;
}

/* After a failed send. True: go on with what is left. */
static bool recover(castnet_seam *seam, unsigned packets, bool *retried) {
    switch (errno) {
    case EINTR: return true;
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
    case ENOBUFS:
        seam->blocked = true;
        return false;
    case EIO:
    case EINVAL:
    case EMSGSIZE:
        if (packets > 1) {
            /* This interface does not cut packets: from now on one by one. */
            seam->segments = false;
            seam->facts.segments_refused++;
            return true;
        }
        break;
    default:
        /* What an earlier packet caused is told to a later one, once. */
        if (!*retried) {
            *retried = true;
            return true;
        }
    }
    /* libpgm must not hear of it: it would wait for half a second. Whoever misses the packet asks again. */
    drop_first(seam, packets);
    *retried = false;
    return true;
}

static castnet_pgm_status leave(castnet_seam *seam, int fd) {
    bool retried = false;
    seam->blocked = false;
    while (seam->out_first < seam->out_count) {
        departure departure;
        departure.count = 0;
        for (unsigned at = seam->out_first; at < seam->out_count;) {
            size_t bytes;
            unsigned packets = run_length(seam, at, &bytes);
            add_run(seam, &departure, at, packets, bytes);
            at += packets;
        }
        int sent = sendmmsg(fd, departure.messages, departure.count, MSG_DONTWAIT);
        if (sent <= 0) {
            if (!recover(seam, departure.packets[0], &retried)) return CASTNET_PGM_WOULD_BLOCK;
            continue;
        }
        retried = false;
        seam->facts.send_calls++;
        for (int i = 0; i < sent; i++) {
            seam->out_first += departure.packets[i];
            seam->facts.packets_out += departure.packets[i];
            seam->facts.batches_out += departure.packets[i] > 1;
            in_addr_t to = ntohl(departure.names[i].sin_addr.s_addr);
            seam->facts.group_messages_out += IN_MULTICAST(to);
        }
    }
    seam->out_first = seam->out_count = 0;
    seam->out_bytes = 0;
    return CASTNET_PGM_DONE;
}

castnet_pgm_status castnet_seam_flush(castnet_seam *seam) {
    return seam->out_count == 0 ? CASTNET_PGM_DONE : leave(seam, seam->send);
}

static bool has_room(const castnet_seam *seam, size_t length) {
    return seam->out_count + COPIES_MAX <= OUT_PACKETS && seam->out_bytes + length <= OUT_BYTES;
}

ssize_t castnet_seam_sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to,
                            socklen_t to_length) {
    castnet_seam *seam = castnet_seam_current;
    if (!seam || !to || to->sa_family != AF_INET || to_length < sizeof(struct sockaddr_in)
        || length > OUT_BYTES / 2) {
        return sendto(fd, bytes, length, flags, to, to_length);
    }
    seam->send_calls++;
    int out = seam->send >= 0 ? seam->send : fd;
    if (!has_room(seam, length) && (leave(seam, out) != CASTNET_PGM_DONE || !has_room(seam, length))) {
        errno = EAGAIN;
        return -1;
    }
    struct sockaddr_in destination;
    memcpy(&destination, to, sizeof destination);
    outgoing packet = {
        .offset = (uint32_t)seam->out_bytes, .length = (uint16_t)length,
        .address = ntohl(destination.sin_addr.s_addr), .port = ntohs(destination.sin_port)};
    uint8_t *copy = seam->out_buffer + seam->out_bytes;
    memcpy(copy, bytes, length);
    if (length > TYPE_AT && copy[TYPE_AT] != NAK) castnet_seam_shift(copy, length, seam->shift);
    uint16_t steered = 0, port = packet.port;
    int copies = seam->hooks.sending(seam->hooks.context, copy, length, packet.address, port, &steered);
    if (copies <= 0) return (ssize_t)length;
    seam->out_bytes += length;
    for (int i = 0; i < copies && i < 2; i++) {
        packet.port = port;
        seam->out[seam->out_count++] = packet;
        if (steered == 0 || steered == port) continue;
        packet.port = steered;
        seam->out[seam->out_count++] = packet;
    }
    if (seam->send < 0 || seam->closing) (void)leave(seam, out);
    return (ssize_t)length;
}

bool castnet_seam_emit(
    castnet_seam *seam, const void *bytes, size_t length, uint32_t address, uint16_t port) {
    if (length > UINT16_MAX || seam->send < 0) return false;
    if (!has_room(seam, length)
        && (leave(seam, seam->send) != CASTNET_PGM_DONE || !has_room(seam, length))) return false;
    memcpy(seam->out_buffer + seam->out_bytes, bytes, length);
    seam->out[seam->out_count++] = (outgoing){
        .offset = (uint32_t)seam->out_bytes, .length = (uint16_t)length, .address = address, .port = port};
    seam->out_bytes += length;
    return true;
}

#endif
