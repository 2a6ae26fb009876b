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

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

void castnet_seam_begin_run(castnet_seam *seam, uint32_t run_max) {
    seam->run = 0;
    seam->run_max = run_max;
    seam->run_ended = false;
}

uint32_t castnet_seam_run(const castnet_seam *seam) { return seam->run; }

bool castnet_seam_holds_packets(const castnet_seam *seam) {
    return seam->in_count > 0 || seam->injected_first;
}

bool castnet_seam_next_goes_alone(const castnet_seam *seam) {
    return seam->injected_first || (seam->in_count > 0 && seam->in_judged);
}

static bool is_data(const uint8_t *bytes, size_t length) {
    return length > TYPE_AT && (bytes[TYPE_AT] == ODATA || bytes[TYPE_AT] == RDATA);
}

void castnet_seam_note_send_readable(castnet_seam *seam) { seam->send_readable = true; }

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
    size_t room = seam->coalesces ? COALESCED_MESSAGE : (size_t)seam->mtu + 1;
    unsigned slots = IN_BYTES_WORTH / (seam->in_expected + 1);
    if (slots < 1) slots = 1;
    if (slots > IN_MESSAGES) slots = IN_MESSAGES;
    for (unsigned i = 0; i < slots; i++) {
        arrival.vectors[i] = (struct iovec){seam->in_buffer + (size_t)i * IN_STRIDE, room};
        arrival.messages[i].msg_hdr = (struct msghdr){
            .msg_name = &arrival.names[i], .msg_namelen = sizeof arrival.names[i],
            .msg_iov = &arrival.vectors[i], .msg_iovlen = 1,
            .msg_control = arrival.controls[i].bytes,
            .msg_controllen = sizeof arrival.controls[i].bytes};
    }
    int count = recvmmsg(fd, arrival.messages, slots, MSG_DONTWAIT, NULL);
    seam->facts.receive_calls++;
    if (count <= 0) return count;
    uint32_t bytes = 0;
    for (int i = 0; i < count; i++) {
        struct msghdr *header = &arrival.messages[i].msg_hdr;
        uint32_t length = arrival.messages[i].msg_len;
        bytes += length;
        if ((header->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || length == 0
            || arrival.names[i].sin_family != AF_INET) {
            /* Judged by its length, which nothing of PGM's has. */
            length = 0;
        }
        incoming *message = &seam->in[seam->in_count++];
        *message = (incoming){
            .offset = (uint32_t)i * IN_STRIDE, .length = length, .segment = length,
            .source = ntohl(arrival.names[i].sin_addr.s_addr), .port = ntohs(arrival.names[i].sin_port),
            .on_send = on_send};
        read_controls(header, message);
        if (message->segment < length) seam->facts.batches_in++;
    }
    seam->in_expected = bytes / (uint32_t)count;
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
    seam->in_judged = seam->in_has_made = seam->in_is_made_only = false;
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
        castnet_seam_shift(message->msg_iov[0].iov_base, length, 0u - seam->shift);
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

/* Judges the packet at the cursor, unless that was done; false: it is refused. */
static bool judge(castnet_seam *seam, const uint8_t *bytes, const incoming *packet, bool *is_next) {
    *is_next = false;
    if (seam->in_judged) return true;
    seam->facts.packets_in++;
    castnet_seam_verdict verdict = seam->hooks.received(seam->hooks.context, bytes, packet->length,
        packet->source, packet->port, packet->destination, packet->on_send, seam->in_made);
    switch (verdict) {
    case CASTNET_SEAM_REJECT: advance(seam); return false;
    case CASTNET_SEAM_ADMIT: break;
    case CASTNET_SEAM_ADMIT_NEXT: *is_next = true; break;
    case CASTNET_SEAM_ADMIT_AFTER_SPM: seam->in_has_made = true; break;
    case CASTNET_SEAM_ONLY_SPM:
        seam->in_has_made = true;
        seam->in_is_made_only = true;
        break;
    }
    seam->in_judged = true;
    return true;
}

/* Gives libpgm the packet at the cursor, or what was made to go before it. -1: not in this call. Within one call
 * libpgm gets several packets of data only while nothing is missing: it would lose a stream for good if it met a
 * loss behind something it has delivered in the same call. Any other data waits for a call for one packet. */
static ssize_t give_judged(castnet_seam *seam, struct msghdr *message, const uint8_t *bytes,
                           const incoming *packet, bool is_next) {
    if (is_next && seam->run < seam->run_max) {
        seam->run++;
        advance(seam);
        return give(seam, message, bytes, packet->length, packet->source, packet->port, packet->destination);
    }
    bool goes_alone = is_data(bytes, packet->length);
    if (seam->run > 0 || (goes_alone && seam->run_max > 1)) {
        seam->run_ended = true;
        return -1;
    }
    if (seam->in_has_made) {
        seam->in_has_made = false;
        uint8_t made[CASTNET_SEAM_SPM];
        memcpy(made, seam->in_made, sizeof made);
        if (seam->in_is_made_only) advance(seam);
        return give(seam, message, made, sizeof made, packet->source, packet->port, packet->destination);
    }
    seam->run_ended = goes_alone;
    advance(seam);
    return give(seam, message, bytes, packet->length, packet->source, packet->port, packet->destination);
}

ssize_t castnet_seam_recvmsg(int fd, struct msghdr *message, int flags) {
    castnet_seam *seam = castnet_seam_current;
    if (!seam || message->msg_iovlen < 1) return recvmsg(fd, message, flags);
    seam->receive_calls++;
    int refills = 0;
    while (seam->receive >= 0 && !seam->run_ended) {
        if (seam->injected_first) {
            if (seam->run > 0) break;
            seam->run_ended = true;
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
        /* libpgm's buffer holds one packet of the MTU. */
        if (packet.length > message->msg_iov[0].iov_len) packet.length = 0;
        const uint8_t *bytes = seam->in_buffer + packet.offset;
        bool is_next;
        if (!judge(seam, bytes, &packet, &is_next)) continue;
        ssize_t length = give_judged(seam, message, bytes, &packet, is_next);
        if (length >= 0) return length;
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
