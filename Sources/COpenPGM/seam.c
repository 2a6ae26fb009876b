#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "seam.h"

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

enum {
    /// Packets that wait to leave together, and their bytes.
    OUT_PACKETS = 128,
    /// A packet leaves at most twice, for two ports each time.
    COPIES_MAX = 4,
    OUT_BYTES = 192 * 1024,
    /// What the kernel takes as one segmented send.
    SEGMENTS_MAX = 64,
    SEGMENTED_BYTES_MAX = 65000,
    /// What one receive call may fill.
    IN_BYTES = 1024 * 1024,
    IN_MESSAGES = 64,
    COALESCED_MESSAGE = 64 * 1024,
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
    /// The packet at the cursor was judged already: only what goes before it has been handed over.
    bool in_judged;
    uint8_t in_buffer[IN_BYTES];

    injected *injected_first, **injected_end;
    unsigned injected_count;

    castnet_seam_facts facts;
};

static __thread castnet_seam *current;

castnet_seam *castnet_seam_enter(castnet_seam *seam) {
    castnet_seam *before = current;
    current = seam;
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

bool castnet_seam_holds_packets(const castnet_seam *seam) {
    return seam->in_count > 0 || seam->injected_first;
}

void castnet_seam_note_send_readable(castnet_seam *seam) { seam->send_readable = true; }

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

/* Adds `shift` to the numbers of this node's own stream, so that a test can start next to their end. */
static void shift_numbers(uint8_t *packet, size_t length, uint32_t shift) {
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
        && bytes + next->length <= SEGMENTED_BYTES_MAX && count < SEGMENTS_MAX;
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
    castnet_seam *seam = current;
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
    if (length > TYPE_AT && copy[TYPE_AT] != NAK) shift_numbers(copy, length, seam->shift);
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

/* ---- In ---- */

typedef struct arrival {
    struct mmsghdr messages[IN_MESSAGES];
    struct iovec vectors[IN_MESSAGES];
    struct sockaddr_in names[IN_MESSAGES];
    union {
        char bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int)) + 64];
        struct cmsghdr align;
    } controls[IN_MESSAGES];
} arrival;

static void read_controls(struct msghdr *header, incoming *message) {
    for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control;
        control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(control), sizeof info);
            message->destination = ntohl(info.ipi_addr.s_addr);
        } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(control), sizeof segment);
            if (segment > 0) message->segment = (uint32_t)segment;
        }
    }
}

static int fill_from(castnet_seam *seam, int fd, bool on_send) {
    arrival arrival;
    size_t slot = seam->coalesces ? COALESCED_MESSAGE : (size_t)seam->mtu + 1;
    unsigned slots = (unsigned)(IN_BYTES / slot);
    if (slots > IN_MESSAGES) slots = IN_MESSAGES;
    for (unsigned i = 0; i < slots; i++) {
        arrival.vectors[i] = (struct iovec){seam->in_buffer + i * slot, slot};
        arrival.messages[i].msg_hdr = (struct msghdr){
            .msg_name = &arrival.names[i], .msg_namelen = sizeof arrival.names[i],
            .msg_iov = &arrival.vectors[i], .msg_iovlen = 1,
            .msg_control = arrival.controls[i].bytes,
            .msg_controllen = sizeof arrival.controls[i].bytes};
    }
    int count = recvmmsg(fd, arrival.messages, slots, MSG_DONTWAIT, NULL);
    seam->facts.receive_calls++;
    if (count <= 0) return count;
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &arrival.messages[i].msg_hdr;
        uint32_t length = arrival.messages[i].msg_len;
        if ((header->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || length == 0
            || arrival.names[i].sin_family != AF_INET) {
            /* Judged by its length, which nothing of PGM's has. */
            length = 0;
        }
        incoming *message = &seam->in[seam->in_count++];
        *message = (incoming){
            .offset = (uint32_t)(i * slot), .length = length, .segment = length,
            .source = ntohl(arrival.names[i].sin_addr.s_addr), .port = ntohs(arrival.names[i].sin_port),
            .on_send = on_send};
        read_controls(header, message);
        if (message->segment < length) seam->facts.batches_in++;
    }
    return count;
}

/* Asks the kernel for more; false: there is none now. */
static bool refill(castnet_seam *seam) {
    seam->in_first = seam->in_count = 0;
    if (fill_from(seam, seam->receive, false) > 0) return true;
    if (!seam->send_readable || seam->send < 0) return false;
    seam->send_readable = false;
    return fill_from(seam, seam->send, true) > 0;
}

static void advance(castnet_seam *seam) {
    incoming *message = &seam->in[seam->in_first];
    seam->in_judged = false;
    if (message->length > message->segment) {
        message->offset += message->segment;
        message->length -= message->segment;
    } else if (++seam->in_first == seam->in_count) {
        seam->in_first = seam->in_count = 0;
    }
}

/* Gives libpgm one packet as the kernel would have done. */
static ssize_t give(castnet_seam *seam, struct msghdr *message, const uint8_t *bytes, size_t length,
                    uint32_t source, uint16_t port, uint32_t destination) {
    memcpy(message->msg_iov[0].iov_base, bytes, length);
    if (seam->shift && length > TYPE_AT && bytes[TYPE_AT] == NAK)
        shift_numbers(message->msg_iov[0].iov_base, length, 0u - seam->shift);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(source), .sin_port = htons(port)};
    if (message->msg_name && message->msg_namelen >= sizeof name) {
        memcpy(message->msg_name, &name, sizeof name);
        message->msg_namelen = sizeof name;
    }
    message->msg_flags = 0;
    struct in_pktinfo info = {.ipi_addr.s_addr = htonl(destination)};
    if (message->msg_control && message->msg_controllen >= CMSG_SPACE(sizeof info)) {
        struct cmsghdr *control = CMSG_FIRSTHDR(message);
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
        message->msg_controllen = CMSG_SPACE(sizeof info);
    }
    return (ssize_t)length;
}

static ssize_t give_injected(castnet_seam *seam, struct msghdr *message) {
    injected *packet = seam->injected_first;
    seam->injected_first = packet->next;
    if (!packet->next) seam->injected_end = &seam->injected_first;
    seam->injected_count--;
    ssize_t length = (ssize_t)packet->length;
    if (packet->length <= message->msg_iov[0].iov_len)
        give(seam, message, packet->bytes, packet->length, packet->source, 0, packet->destination);
    else
        length = -1;
    free(packet);
    return length;
}

ssize_t castnet_seam_recvmsg(int fd, struct msghdr *message, int flags) {
    castnet_seam *seam = current;
    if (!seam || message->msg_iovlen < 1) return recvmsg(fd, message, flags);
    seam->receive_calls++;
    int refills = 0;
    while (seam->receive >= 0) {
        if (seam->injected_first) {
            ssize_t length = give_injected(seam, message);
            if (length >= 0) return length;
            continue;
        }
        if (seam->in_count == 0) {
            if (refills++ >= REFILLS_MAX || !refill(seam)) break;
            continue;
        }
        incoming packet = seam->in[seam->in_first];
        if (packet.length > packet.segment) packet.length = packet.segment;
        const uint8_t *bytes = seam->in_buffer + packet.offset;
        castnet_seam_verdict verdict = CASTNET_SEAM_ADMIT;
        uint8_t made[CASTNET_SEAM_SPM];
        /* libpgm's buffer holds one packet of the MTU. */
        if (packet.length > message->msg_iov[0].iov_len) packet.length = 0;
        if (!seam->in_judged) {
            verdict = seam->hooks.received(seam->hooks.context, bytes, packet.length, packet.source,
                packet.port, packet.destination, packet.on_send, made);
            seam->facts.packets_in++;
        }
        if (verdict == CASTNET_SEAM_ADMIT_AFTER_SPM) seam->in_judged = true;
        else advance(seam);
        switch (verdict) {
        case CASTNET_SEAM_REJECT: continue;
        case CASTNET_SEAM_ADMIT:
            return give(seam, message, bytes, packet.length, packet.source, packet.port,
                packet.destination);
        case CASTNET_SEAM_ADMIT_AFTER_SPM:
        case CASTNET_SEAM_ONLY_SPM:
            return give(seam, message, made, sizeof made, packet.source, packet.port,
                packet.destination);
        }
    }
    errno = EAGAIN;
    return -1;
}

bool castnet_seam_inject(
    castnet_seam *seam, const void *bytes, size_t length, uint32_t source, uint32_t destination) {
    if (seam->injected_count >= INJECTED_MAX || length > seam->mtu) return false;
    injected *packet = malloc(sizeof *packet + length);
    if (!packet) return false;
    *packet = (injected){.source = source, .destination = destination, .length = (uint32_t)length};
    memcpy(packet->bytes, bytes, length);
    *seam->injected_end = packet;
    seam->injected_end = &packet->next;
    seam->injected_count++;
    return true;
}

#endif
