#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "log.h"
#include "seam.h"

#ifdef CASTNET_MULTICAST

/* The order matters: pgm_poll_info and its kin stay hidden unless these two come first. */
#include <poll.h>
#include <sys/epoll.h>

#include <pgm/pgm.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_MULTICAST_ALL
#define IP_MULTICAST_ALL 49
#endif

enum {
    /// What stands before the payload of a data packet: PGM header and data header.
    DATA_HEADER = sizeof(struct pgm_header) + sizeof(struct pgm_data),
    /// What the MTU counts besides: IP and UDP headers.
    OUTER_HEADERS = 20 + 8,
};

struct castnet_pgm {
    pgm_sock_t *sock;
    /// The one packet that has its number but has not left; see castnet_pgm_send.
    struct pgm_sk_buff_t *pending;
    /// The buffer of the next large packet; NULL: none yet.
    struct pgm_sk_buff_t *spare;
    castnet_pgm_descriptors descriptors;
    uint32_t payload_max;
    uint64_t tsi;
    /// NULL: libpgm talks to the kernel itself; `problem` says why.
    castnet_seam *seam;
    char problem[256];
};

/* Every call of libpgm stands between these two: the seam belongs to the calling thread's socket only. */
static castnet_seam *enter(const castnet_pgm *pgm) { return castnet_seam_enter(pgm->seam); }
static void leave(castnet_seam *before) { (void)castnet_seam_enter(before); }

/* ---- Errors ---- */

__attribute__((format(printf, 3, 4)))
static void fail(castnet_pgm_error *error, int code, const char *format, ...) {
    va_list arguments;
    error->code = code;
    va_start(arguments, format);
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
}

/* Failures of the precondition kind set no error object, so `what` must say enough on its own. */
static void fail_pgm(castnet_pgm_error *error, const char *what, pgm_error_t *cause) {
    fail(error, cause ? cause->code : 0, "%s: %s", what,
        cause && cause->message ? cause->message : "libpgm gave no reason");
    if (cause) pgm_error_free(cause);
}

/* ---- Start ---- */

static pthread_once_t start_once = PTHREAD_ONCE_INIT;
static castnet_pgm_error start_error;
static bool started;

static void start(void) {
    /* The default timer is the wall clock: a step of it loses data or spins. Read once, at the first init. */
    setenv("PGM_TIMER", "CLOCK", 1);
    /* The default handler writes to standard output. */
    pgm_log_set_handler(castnet_pgm_log_line, NULL);
    pgm_error_t *error = NULL;
    started = pgm_init(&error);
    if (!started) fail_pgm(&start_error, "pgm_init", error);
}

bool castnet_pgm_start(castnet_pgm_error *error) {
    pthread_once(&start_once, start);
    if (!started) *error = start_error;
    return started;
}

/* ---- Open ---- */

static bool set(pgm_sock_t *sock, int option, const char *name, const void *value, size_t length,
                castnet_pgm_error *error) {
    errno = 0;
    if (pgm_setsockopt(sock, IPPROTO_PGM, option, value, (socklen_t)length)) return true;
    fail(error, errno, "%s was refused%s%s", name, errno ? ": " : "", errno ? strerror(errno) : "");
    return false;
}

static bool set_int(pgm_sock_t *sock, int option, const char *name, int value, castnet_pgm_error *error) {
    return set(sock, option, name, &value, sizeof value, error);
}

/* What libpgm would answer with abort(). Swift checks the same and more; this is the last door. */
static bool is_safe(const castnet_pgm_options *options, castnet_pgm_error *error) {
    if (options->window == 0 || (options->window & (options->window - 1)) != 0) {
        fail(error, EINVAL, "window %u is not a power of two", options->window);
    } else if (options->mtu < OUTER_HEADERS + DATA_HEADER + 64) {
        fail(error, EINVAL, "mtu %u is too small", options->mtu);
    } else if (options->nak_backoff < 2) {
        fail(error, EINVAL, "nak_backoff %d is too small", options->nak_backoff);
    } else if (options->heartbeat_count < 1 || options->heartbeat_count > CASTNET_PGM_HEARTBEATS) {
        fail(error, EINVAL, "heartbeat_count %d is out of range", options->heartbeat_count);
    } else {
        return true;
    }
    return false;
}

/* Everything that must stand before the bind. The ports come first: group requests are stamped with them. */
static bool set_before_bind(pgm_sock_t *sock, const castnet_pgm_options *options, castnet_pgm_error *error) {
    const struct {
        int option;
        const char *name;
        int value;
    } values[] = {
        /* Only one receive socket exists, at the multicast port: the unicast port must be the same. */
        {PGM_UDP_ENCAP_UCAST_PORT, "PGM_UDP_ENCAP_UCAST_PORT", options->port},
        {PGM_UDP_ENCAP_MCAST_PORT, "PGM_UDP_ENCAP_MCAST_PORT", options->port},
        {PGM_MTU, "PGM_MTU", options->mtu},
        {PGM_AMBIENT_SPM, "PGM_AMBIENT_SPM", options->ambient_spm},
        /* Windows in packets only: never a rate here, both forms together abort on the first packet. */
        {PGM_TXW_SQNS, "PGM_TXW_SQNS", (int)options->window},
        {PGM_RXW_SQNS, "PGM_RXW_SQNS", (int)options->window},
        {PGM_UNCONTROLLED_ODATA, "PGM_UNCONTROLLED_ODATA", 1},
        {PGM_UNCONTROLLED_RDATA, "PGM_UNCONTROLLED_RDATA", 1},
        {PGM_PEER_EXPIRY, "PGM_PEER_EXPIRY", options->peer_expiry},
        {PGM_SPMR_EXPIRY, "PGM_SPMR_EXPIRY", options->spmr_expiry},
        {PGM_NAK_BO_IVL, "PGM_NAK_BO_IVL", options->nak_backoff},
        {PGM_NAK_RPT_IVL, "PGM_NAK_RPT_IVL", options->nak_repeat},
        {PGM_NAK_RDATA_IVL, "PGM_NAK_RDATA_IVL", options->nak_rdata},
        {PGM_NAK_NCF_RETRIES, "PGM_NAK_NCF_RETRIES", options->nak_ncf_retries},
        {PGM_NAK_DATA_RETRIES, "PGM_NAK_DATA_RETRIES", options->nak_data_retries},
        {PGM_NOBLOCK, "PGM_NOBLOCK", 1},
        {PGM_MULTICAST_LOOP, "PGM_MULTICAST_LOOP", options->loop},
        {PGM_MULTICAST_HOPS, "PGM_MULTICAST_HOPS", options->hops},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        if (!set_int(sock, values[i].option, values[i].name, values[i].value, error)) return false;
    }
    if (options->type_of_service >= 0
        && !set_int(sock, PGM_TOS, "PGM_TOS", options->type_of_service, error)) return false;
    /* The kernel caps both silently at rmem_max and wmem_max; castnet_pgm_receive_buffer tells. */
    pgm_setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &options->receive_buffer, sizeof options->receive_buffer);
    pgm_setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &options->send_buffer, sizeof options->send_buffer);
    return set(sock, PGM_HEARTBEAT_SPM, "PGM_HEARTBEAT_SPM", options->heartbeat_spm,
        (size_t)options->heartbeat_count * sizeof(int), error);
}

/* A random 48-bit identifier and a random source port that differs from the data port: a TSI used again would
 * be silently discarded by everyone who still knows the old one. */
static bool draw_identity(const castnet_pgm_options *options, struct pgm_sockaddr_t *address,
                          castnet_pgm_error *error) {
    memset(address, 0, sizeof *address);
    address->sa_port = options->data_port;
    do {
        uint8_t random[8];
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
            fail(error, errno, "getrandom: %s", strerror(errno));
            return false;
        }
        memcpy(&address->sa_addr.gsi, random, 6);
        memcpy(&address->sa_addr.sport, random + 6, 2);
    } while (address->sa_addr.sport == 0 || address->sa_addr.sport == options->data_port);
    return true;
}

static struct sockaddr_in inet_address(uint32_t address) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
}

static bool bind_and_join(pgm_sock_t *sock, const castnet_pgm_options *options,
                          const struct pgm_sockaddr_t *identity, castnet_pgm_error *error) {
    pgm_error_t *cause = NULL;
    struct sockaddr_in local = inet_address(options->interface_address);
    struct pgm_interface_req_t interface = {.ir_interface = options->interface_index};
    memcpy(&interface.ir_address, &local, sizeof local);
    /* Seeding its random numbers, libpgm reads /dev/urandom while errno is EINTR, and never resets it. */
    errno = 0;
    if (!pgm_bind3(sock, identity, sizeof *identity, &interface, sizeof interface, &interface,
            sizeof interface, &cause)) {
        fail_pgm(error, "bind", cause);
        return false;
    }
    struct group_req request = {.gr_interface = options->interface_index};
    struct sockaddr_in group = inet_address(options->group);
    memcpy(&request.gr_group, &group, sizeof group);
    /* Both must be set and equal: confirmations (NCF) for another group than the send group are discarded. */
    if (!set(sock, PGM_SEND_GROUP, "sending to the group", &request, sizeof request, error)) return false;
    errno = 0;
    pgm_setsockopt(sock, IPPROTO_PGM, PGM_JOIN_GROUP, &request, sizeof request);
    if (errno != 0) {
        /* A failed join returns true; only errno, and later pgm_connect, tell. */
        fail(error, errno, "joining the group: %s", strerror(errno));
        return false;
    }
    if (!pgm_connect(sock, &cause)) {
        fail_pgm(error, "connect", cause);
        return false;
    }
    return true;
}

static bool take_descriptor(pgm_sock_t *sock, int option, int *out, castnet_pgm_error *error) {
    socklen_t length = sizeof *out;
    if (pgm_getsockopt(sock, IPPROTO_PGM, option, out, &length)) return true;
    fail(error, 0, "libpgm does not tell its descriptors");
    return false;
}

/* A bus socket on a looping group hears itself as one more peer. The kernel drops what carries our own source
 * identifier and source port before it costs a read; NAKs to us carry the data port there and pass, and so does
 * a packet too short to hold them, to be counted. Offsets count from the UDP header. */
static bool refuse_own(int descriptor, const struct pgm_sockaddr_t *identity, castnet_pgm_error *error) {
    uint8_t gsi[6];
    memcpy(gsi, &identity->sa_addr.gsi, sizeof gsi);
    uint32_t upper = (uint32_t)gsi[0] << 24 | (uint32_t)gsi[1] << 16 | (uint32_t)gsi[2] << 8 | gsi[3];
    uint32_t lower = (uint32_t)gsi[4] << 8 | gsi[5];
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 8 + 14, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8 + 8),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, upper, 0, 5),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 8 + 12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, lower, 0, 3),
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 8 + 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, identity->sa_addr.sport, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0) return true;
    fail(error, errno, "attaching the filter: %s", strerror(errno));
    return false;
}

/* libpgm binds to a port of the kernel's choice. A socket of our own, bound where it should be, takes over the
 * number of libpgm's descriptor, which is all that libpgm knows of it. */
static bool pin_send_port(int descriptor, const castnet_pgm_options *options, castnet_pgm_error *error) {
    if (options->send_port == 0) return true;
    struct sockaddr_in address = inet_address(options->interface_address);
    address.sin_port = htons(options->send_port);
    struct ip_mreqn interface = {
        .imr_address = address.sin_addr, .imr_ifindex = (int)options->interface_index};
    int hops = options->hops, loop = options->loop, service = options->type_of_service;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stands = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0
        && setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &interface, sizeof interface) == 0
        && setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops) == 0
        && setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &loop, sizeof loop) == 0
        && (service < 0 || setsockopt(fd, IPPROTO_IP, IP_TOS, &service, sizeof service) == 0)
        && dup3(fd, descriptor, O_CLOEXEC) >= 0;
    if (!stands) fail(error, errno, "send-port %u: %s", options->send_port, strerror(errno));
    else (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &options->send_buffer, sizeof options->send_buffer);
    if (fd >= 0) close(fd);
    return stands;
}

/* After connect, since the descriptors are told only then. */
static bool finish(castnet_pgm *pgm, const castnet_pgm_options *options,
                   const struct pgm_sockaddr_t *identity, castnet_pgm_error *error) {
    castnet_pgm_descriptors *descriptors = &pgm->descriptors;
    if (!take_descriptor(pgm->sock, PGM_RECV_SOCK, &descriptors->receive, error)
        || !take_descriptor(pgm->sock, PGM_PENDING_SOCK, &descriptors->pending, error)
        || !take_descriptor(pgm->sock, PGM_REPAIR_SOCK, &descriptors->repair, error)
        || !take_descriptor(pgm->sock, PGM_SEND_SOCK, &descriptors->send, error)) return false;
    /* Without this a socket hears every group that any process of the host has joined. */
    int off = 0;
    if (setsockopt(descriptors->receive, IPPROTO_IP, IP_MULTICAST_ALL, &off, sizeof off) != 0) {
        fail(error, errno, "IP_MULTICAST_ALL: %s", strerror(errno));
        return false;
    }
    if (!refuse_own(descriptors->receive, identity, error)
        || !pin_send_port(descriptors->send, options, error)) return false;
    /* Privileged processes may pass rmem_max; for the others the capped size stands. */
    (void)setsockopt(descriptors->receive, SOL_SOCKET, SO_RCVBUFFORCE, &options->receive_buffer,
        sizeof options->receive_buffer);
    pgm->payload_max = (uint32_t)options->mtu - OUTER_HEADERS - DATA_HEADER;
    for (int i = 0; i < 6; i++) pgm->tsi = pgm->tsi << 8 | ((const uint8_t *)&identity->sa_addr.gsi)[i];
    pgm->tsi = pgm->tsi << 16 | identity->sa_addr.sport;
    return true;
}

/* Both of libpgm's calls must have come through: connecting has sent, and now it receives. */
static void prove_seam(castnet_pgm *pgm) {
    if (!pgm->seam) return;
    castnet_pgm_packet packet;
    castnet_pgm_run run = {.packets = &packet};
    castnet_pgm_error ignored;
    (void)castnet_pgm_receive(pgm, false, &run, &ignored);
    const char *wish = getenv("CASTNET_SEAM");
    bool must_fail = wish && strcmp(wish, "fail-self-test") == 0;
    if (castnet_seam_proven(pgm->seam) && !must_fail) {
        castnet_seam_connected(pgm->seam, pgm->descriptors.receive, pgm->descriptors.send);
        return;
    }
    snprintf(pgm->problem, sizeof pgm->problem, "%s",
        must_fail ? "CASTNET_SEAM=fail-self-test" : "libpgm's calls do not come through");
    castnet_seam_free(pgm->seam);
    pgm->seam = NULL;
}

static void make_seam(castnet_pgm *pgm, const castnet_pgm_options *options,
                      const castnet_seam_hooks *hooks) {
    castnet_pgm_error error = {0};
    if (!hooks) {
        snprintf(pgm->problem, sizeof pgm->problem, "nobody judges");
    } else if (!castnet_seam_install(&error)) {
        snprintf(pgm->problem, sizeof pgm->problem, "%s", error.text);
    } else if (!(pgm->seam = castnet_seam_new(hooks, options->mtu, hooks->shift))) {
        snprintf(pgm->problem, sizeof pgm->problem, "out of memory");
    }
}

castnet_pgm *castnet_pgm_open(const castnet_pgm_options *options, const castnet_seam_hooks *hooks,
                              castnet_pgm_error *error) {
    memset(error, 0, sizeof *error);
    if (!castnet_pgm_start(error) || !is_safe(options, error)) return NULL;
    castnet_pgm *pgm = calloc(1, sizeof *pgm);
    if (!pgm) {
        fail(error, ENOMEM, "out of memory");
        return NULL;
    }
    pgm_error_t *cause = NULL;
    struct pgm_sockaddr_t identity;
    if (!pgm_socket(&pgm->sock, AF_INET, SOCK_SEQPACKET, IPPROTO_UDP, &cause)) {
        fail_pgm(error, "socket", cause);
        free(pgm);
        return NULL;
    }
    make_seam(pgm, options, hooks);
    castnet_seam *before = enter(pgm);
    bool stands = set_before_bind(pgm->sock, options, error) && draw_identity(options, &identity, error)
        && bind_and_join(pgm->sock, options, &identity, error) && finish(pgm, options, &identity, error);
    leave(before);
    if (stands) {
        prove_seam(pgm);
        return pgm;
    }
    pgm_close(pgm->sock, false);
    if (pgm->seam) castnet_seam_free(pgm->seam);
    free(pgm);
    return NULL;
}

uint32_t castnet_pgm_payload_max(const castnet_pgm *pgm) { return pgm->payload_max; }

uint64_t castnet_pgm_tsi(const castnet_pgm *pgm) { return pgm->tsi; }

int castnet_pgm_receive_buffer(const castnet_pgm *pgm) {
    int size = 0;
    socklen_t length = sizeof size;
    (void)getsockopt(pgm->descriptors.receive, SOL_SOCKET, SO_RCVBUF, &size, &length);
    return size;
}

castnet_pgm_descriptors castnet_pgm_descriptors_of(const castnet_pgm *pgm) { return pgm->descriptors; }

void castnet_pgm_version(uint32_t *parts) {
    parts[0] = pgm_major_version;
    parts[1] = pgm_minor_version;
    parts[2] = pgm_micro_version;
}

/* ---- The seam ---- */

bool castnet_pgm_has_seam(const castnet_pgm *pgm) { return pgm->seam; }

const char *castnet_pgm_seam_problem(const castnet_pgm *pgm) { return pgm->problem; }

castnet_seam_facts castnet_pgm_seam_facts(const castnet_pgm *pgm) {
    return pgm->seam ? castnet_seam_facts_of(pgm->seam) : (castnet_seam_facts){0};
}

castnet_pgm_status castnet_pgm_flush(castnet_pgm *pgm) {
    return pgm->seam ? castnet_seam_flush(pgm->seam) : CASTNET_PGM_DONE;
}

bool castnet_pgm_holds_packets(const castnet_pgm *pgm) {
    return pgm->seam && castnet_seam_holds_packets(pgm->seam);
}

void castnet_pgm_note_send_readable(castnet_pgm *pgm) {
    if (pgm->seam) castnet_seam_note_send_readable(pgm->seam);
}

bool castnet_pgm_emit(
    castnet_pgm *pgm, const void *bytes, size_t length, uint32_t address, uint16_t port) {
    return pgm->seam && castnet_seam_emit(pgm->seam, bytes, length, address, port);
}

bool castnet_pgm_inject(
    castnet_pgm *pgm, const void *bytes, size_t length, uint32_t source, uint32_t destination) {
    return pgm->seam && castnet_seam_inject(pgm->seam, bytes, length, source, destination);
}

/* ---- Send ---- */

/* A buffer was last used a window ago, so it is in no cache: the next one is fetched while its frame is cut. */
static void fetch_spare(castnet_pgm *pgm) {
    pgm->spare = pgm_alloc_skb((uint16_t)(DATA_HEADER + pgm->payload_max));
    const char *data = pgm->spare->data, *end = data + DATA_HEADER + pgm->payload_max;
    for (; data < end; data += 64) __builtin_prefetch(data, 1);
}

/* An empty packet for `length` bytes. */
static struct pgm_sk_buff_t *take_packet(castnet_pgm *pgm, size_t length, bool is_large) {
    struct pgm_sk_buff_t *spare = is_large ? pgm->spare : NULL;
    if (spare) pgm->spare = NULL;
    return spare ? spare : pgm_alloc_skb((uint16_t)(DATA_HEADER + length));
}

castnet_pgm_status castnet_pgm_send(castnet_pgm *pgm, const void *bytes, size_t length) {
    /* libpgm asserts on an oversized packet, and crashes where one must be fragmented. */
    if (pgm->pending || length == 0 || length > pgm->payload_max) return CASTNET_PGM_FAILED;
    /* Not pgm_send: it copies with aligned stores and dies of any other alignment. */
    bool is_large = length >= pgm->payload_max / 2;
    struct pgm_sk_buff_t *packet = take_packet(pgm, length, is_large);
    pgm_skb_reserve(packet, DATA_HEADER);
    memcpy(pgm_skb_put(packet, (uint16_t)length), bytes, length);
    pgm->pending = packet;
    castnet_pgm_status status = castnet_pgm_resend(pgm);
    if (is_large && !pgm->spare) fetch_spare(pgm);
    return status;
}

castnet_pgm_status castnet_pgm_resend(castnet_pgm *pgm) {
    if (!pgm->pending) return CASTNET_PGM_DONE;
    size_t sent = 0;
    castnet_seam *before = enter(pgm);
    int status = pgm_send_skbv(pgm->sock, &pgm->pending, 1, true, &sent);
    leave(before);
    switch (status) {
    case PGM_IO_STATUS_NORMAL:
        /* The window owns it now. */
        pgm->pending = NULL;
        return CASTNET_PGM_DONE;
    case PGM_IO_STATUS_WOULD_BLOCK:
        return CASTNET_PGM_WOULD_BLOCK;
    case PGM_IO_STATUS_RATE_LIMITED:
    case PGM_IO_STATUS_CONGESTION:
        return CASTNET_PGM_LIMITED;
    default:
        /* Refused before it was numbered, so it is still ours. */
        pgm_free_skb(pgm->pending);
        pgm->pending = NULL;
        return CASTNET_PGM_FAILED;
    }
}

bool castnet_pgm_has_pending(const castnet_pgm *pgm) { return pgm->pending != NULL; }

/* ---- Receive ---- */

static uint64_t tsi_value(const pgm_tsi_t *tsi) {
    uint64_t value = 0;
    for (int i = 0; i < 6; i++) value = value << 8 | ((const uint8_t *)&tsi->gsi)[i];
    return value << 16 | ntohs(tsi->sport);
}

static void took(const struct pgm_msgv_t *messages, uint32_t max, castnet_pgm_run *run) {
    for (run->count = 0; run->count < max && messages[run->count].msgv_len > 0; run->count++) {
        const struct pgm_sk_buff_t *part = messages[run->count].msgv_skb[0];
        run->packets[run->count] = (castnet_pgm_packet){
            .bytes = part->data, .length = part->len, .tsi = tsi_value(&part->tsi),
            .sequence = part->sequence,
            .repaired = part->pgm_header && part->pgm_header->pgm_type == PGM_RDATA};
    }
}

/* Up to `max` packets; more than one only while nothing is missing. */
static castnet_pgm_status receive_run(
    castnet_pgm *pgm, uint32_t max, castnet_pgm_run *run, castnet_pgm_error *error) {
    struct pgm_msgv_t messages[CASTNET_PGM_RUN_MAX];
    size_t length = 0;
    pgm_error_t *cause = NULL;
    for (uint32_t i = 0; i < max; i++) messages[i].msgv_len = 0;
    if (pgm->seam) castnet_seam_begin_run(pgm->seam, max);
    castnet_seam *before = enter(pgm);
    int status = pgm_recvmsgv(pgm->sock, messages, max, MSG_ERRQUEUE, &length, &cause);
    leave(before);
    run->count = 0;
    run->lacks = false;
    switch (status) {
    case PGM_IO_STATUS_NORMAL:
        took(messages, max, run);
        run->lacks = pgm->seam && run->count < castnet_seam_run(pgm->seam);
        return CASTNET_PGM_DONE;
    case PGM_IO_STATUS_RESET:
        run->packets[0] = (castnet_pgm_packet){.tsi = tsi_value(&messages[0].msgv_skb[0]->tsi)};
        /* An error packet of its own, not a borrowed one. Its count is always wrong, so nobody reads it. */
        pgm_free_skb(messages[0].msgv_skb[0]);
        if (cause) pgm_error_free(cause);
        return CASTNET_PGM_RESET;
    case PGM_IO_STATUS_WOULD_BLOCK:
    case PGM_IO_STATUS_TIMER_PENDING:
        run->lacks = pgm->seam && castnet_seam_run(pgm->seam) > 0;
        return CASTNET_PGM_IDLE;
    case PGM_IO_STATUS_RATE_LIMITED:
    case PGM_IO_STATUS_CONGESTION:
        return CASTNET_PGM_LIMITED;
    case PGM_IO_STATUS_EOF:
    case PGM_IO_STATUS_FIN:
        return CASTNET_PGM_EMPTY;
    default:
        fail_pgm(error, "receive", cause);
        return CASTNET_PGM_FAILED;
    }
}

/* A vector of exactly one where anything is missing: with more, scattered loss wedges a peer's window for good.
 * Without the seam nobody knows. One also for what goes alone: libpgm keeps a sender, and 16 KiB, for ever
 * unless the call that delivered its last packet was full. */
castnet_pgm_status castnet_pgm_receive(
    castnet_pgm *pgm, bool is_whole, castnet_pgm_run *run, castnet_pgm_error *error) {
    if (!pgm->seam || !is_whole || castnet_seam_next_goes_alone(pgm->seam))
        return receive_run(pgm, 1, run, error);
    castnet_pgm_status status = receive_run(pgm, CASTNET_PGM_RUN_MAX, run, error);
    bool found_one = status == CASTNET_PGM_IDLE && !run->lacks && castnet_seam_next_goes_alone(pgm->seam);
    return found_one ? receive_run(pgm, 1, run, error) : status;
}

int64_t castnet_pgm_time_remaining(castnet_pgm *pgm) {
    struct timeval remaining = {0};
    socklen_t length = sizeof remaining;
    if (!pgm_getsockopt(pgm->sock, IPPROTO_PGM, PGM_TIME_REMAIN, &remaining, &length)) return 1000;
    int64_t microseconds = (int64_t)remaining.tv_sec * 1000000 + remaining.tv_usec;
    return microseconds < 1000 ? 1000 : microseconds;
}

/* ---- Close ---- */

void castnet_pgm_close(castnet_pgm *pgm, bool flush) {
    if (pgm->seam) castnet_seam_close(pgm->seam);
    castnet_seam *before = enter(pgm);
    pgm_close(pgm->sock, flush);
    leave(before);
    if (pgm->seam) castnet_seam_free(pgm->seam);
    /* A pending packet had two references, the window's and the blocked send's; the window is gone. */
    if (pgm->pending) pgm_free_skb(pgm->pending);
    if (pgm->spare) pgm_free_skb(pgm->spare);
    free(pgm);
}

#endif
