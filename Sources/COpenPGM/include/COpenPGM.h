#ifndef CASTNET_COPENPGM_H
#define CASTNET_COPENPGM_H

/* The C shim over libpgm and over the few system calls that Swift's Glibc module lacks.
 *
 * Every C quirk ends here: no pgm type crosses into Swift. The declarations stand without the trait as well
 * (Swift's importer does not see a C target's own defines); only the definitions of pgm.c depend on it.
 */

#if defined(CASTNET_MULTICAST) && !__has_include(<pgm/pgm.h>)
#error "Castnet's Multicast trait needs OpenPGM: run `apt-get install libpgm-dev pkg-config`, or build with --disable-default-traits."
#endif

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CASTNET_SWIFT_NAME(name) __attribute__((swift_name(name)))
#define CASTNET_CLOSED_ENUM __attribute__((enum_extensibility(closed)))

/* ---- posix.c: interfaces, epoll, eventfd, datagrams. Failures are returned as -errno. ---- */

/// One network interface with its first IPv4 address, addresses in host byte order.
typedef struct castnet_interface {
    char name[16];
    uint32_t index;
    uint32_t address;
    uint32_t mtu;
    bool up;
    bool loopback;
    bool multicast;
} castnet_interface;

/// Lists up to `capacity` interface addresses (IPv4 only) in the kernel's order; returns how many.
int castnet_interfaces(castnet_interface *_Nonnull out, int capacity);

/// A descriptor that became ready, by the tag it was registered with.
typedef struct castnet_ready {
    uint64_t tag;
    bool readable;
    bool writable;
} castnet_ready;

int castnet_epoll_create(void);
/// Registers `fd` or changes what it waits for; level-triggered.
int castnet_epoll_set(int epoll, int fd, uint64_t tag, bool readable, bool writable);
int castnet_epoll_remove(int epoll, int fd);
/// Waits at most `timeout_ns` (negative: for ever) with nanosecond resolution where the kernel has it; an
/// interrupted wait returns 0.
int castnet_epoll_wait(int epoll, castnet_ready *_Nonnull out, int capacity, int64_t timeout_ns);

int castnet_eventfd_create(void);
void castnet_eventfd_signal(int fd);
void castnet_eventfd_drain(int fd);

/// The CLOCK_MONOTONIC time in nanoseconds.
int64_t castnet_now(void);
/// Names the calling thread (15 characters at most).
void castnet_thread_name(const char *_Nonnull name);

/// Where one datagram came from and how long it is; host byte order.
typedef struct castnet_datagram {
    uint32_t address;
    uint32_t length;
    uint16_t port;
    bool truncated;
} castnet_datagram;

/// A non-blocking UDP socket bound to `address` at a port of the kernel's choice.
int castnet_udp_open(uint32_t address, int receive_buffer, uint16_t *_Nonnull port);
/// Receives up to `slots` (at most 32) datagrams, each into its `slot` bytes of `bytes`; returns how many.
int castnet_udp_receive(
    int fd, uint8_t *_Nonnull bytes, size_t slot, castnet_datagram *_Nonnull out, int slots);
int castnet_udp_send(int fd, const void *_Nonnull bytes, size_t length, uint32_t address, uint16_t port);
/// Packets the kernel dropped at this socket, for a full buffer or by its filter; -1: unknown.
int64_t castnet_socket_drops(int fd);
/// Opens the calling thread's network namespace's protocol statistics, for castnet_receive_errors.
int castnet_statistics_open(void);
/// Datagrams the namespace dropped for a full receive buffer; -1: unknown.
int64_t castnet_receive_errors(int fd);
void castnet_descriptor_close(int fd);

/* ---- pgm.c: one PGM bus socket. Every function but start and the log ones belongs to one thread. ---- */

/// What happened to a pgm call.
typedef enum CASTNET_CLOSED_ENUM castnet_pgm_status {
    /// Sent, or a packet was received.
    CASTNET_PGM_DONE CASTNET_SWIFT_NAME("done") = 0,
    /// Send: the kernel's buffer is full, wait until the send descriptor is writable, then resend.
    CASTNET_PGM_WOULD_BLOCK CASTNET_SWIFT_NAME("wouldBlock"),
    /// Send: wait a moment, then resend. Receive: a NAK, repair or SPM could not leave, call again soon.
    CASTNET_PGM_LIMITED CASTNET_SWIFT_NAME("limited"),
    /// Receive: nothing now; wait for the descriptors or the time remaining.
    CASTNET_PGM_IDLE CASTNET_SWIFT_NAME("idle"),
    /// Receive: packets of one stream are gone for good; the stream goes on behind them.
    CASTNET_PGM_RESET CASTNET_SWIFT_NAME("reset"),
    /// Receive: an empty datagram; it means nothing.
    CASTNET_PGM_EMPTY CASTNET_SWIFT_NAME("empty"),
    /// Misuse or a failed system call; the error says more when it has a text.
    CASTNET_PGM_FAILED CASTNET_SWIFT_NAME("failed"),
} castnet_pgm_status;

/// Why a call failed: an errno where there was one, and a text.
typedef struct castnet_pgm_error {
    int code;
    char text[256];
} castnet_pgm_error;

#define CASTNET_PGM_HEARTBEATS 8

/// A bus socket's options; times in microseconds, addresses and ports in host byte order.
typedef struct castnet_pgm_options {
    uint32_t group;
    uint32_t interface_address;
    uint32_t interface_index;
    uint16_t port;
    uint16_t data_port;
    uint16_t mtu;
    uint8_t hops;
    bool loop;
    /// The IP type-of-service byte; negative: the kernel's default.
    int type_of_service;
    uint32_t window;
    int receive_buffer;
    int send_buffer;
    int ambient_spm;
    int heartbeat_spm[CASTNET_PGM_HEARTBEATS];
    int heartbeat_count;
    int peer_expiry;
    int spmr_expiry;
    int nak_backoff;
    int nak_repeat;
    int nak_rdata;
    int nak_ncf_retries;
    int nak_data_retries;
} castnet_pgm_options;

/// A received packet. The bytes are borrowed: they live until the next call on the socket.
typedef struct castnet_pgm_packet {
    const uint8_t *_Nullable bytes;
    uint32_t length;
    /// Whose stream: 48 bits of source identifier, 16 bits of source port.
    uint64_t tsi;
    /// True when the packet came as repair data.
    bool repaired;
} castnet_pgm_packet;

/// The descriptors to wait for; they stay libpgm's.
typedef struct castnet_pgm_descriptors {
    int receive;
    int pending;
    int repair;
    int send;
} castnet_pgm_descriptors;

typedef struct castnet_pgm castnet_pgm;

/// Starts libpgm once per process: monotonic timer, silent log. Any thread; later calls return the first
/// result.
bool castnet_pgm_start(castnet_pgm_error *_Nonnull error);
/// Opens a bus socket with a fresh random source identifier; NULL on failure.
castnet_pgm *_Nullable castnet_pgm_open(
    const castnet_pgm_options *_Nonnull options, castnet_pgm_error *_Nonnull error);
/// The largest payload of one packet.
uint32_t castnet_pgm_payload_max(const castnet_pgm *_Nonnull pgm);
uint64_t castnet_pgm_tsi(const castnet_pgm *_Nonnull pgm);
/// The kernel's size of the receive buffer, which may be less than was asked for.
int castnet_pgm_receive_buffer(const castnet_pgm *_Nonnull pgm);
castnet_pgm_descriptors castnet_pgm_descriptors_of(const castnet_pgm *_Nonnull pgm);
/// Sends a copy of `bytes` as one packet. After WOULD_BLOCK or LIMITED the packet is pending: it has its
/// number and must be sent again before any other. Refused as FAILED while one is pending, or when it is
/// too long.
castnet_pgm_status castnet_pgm_send(castnet_pgm *_Nonnull pgm, const void *_Nonnull bytes, size_t length);
/// Sends the pending packet again; DONE when there is none.
castnet_pgm_status castnet_pgm_resend(castnet_pgm *_Nonnull pgm);
bool castnet_pgm_has_pending(const castnet_pgm *_Nonnull pgm);
/// Serves timers, repairs and peers, and takes one packet if there is one. At most one repair leaves per
/// call.
castnet_pgm_status castnet_pgm_receive(
    castnet_pgm *_Nonnull pgm, castnet_pgm_packet *_Nonnull packet, castnet_pgm_error *_Nonnull error);
/// Microseconds until receive must be called even if nothing arrives, at least 1,000.
int64_t castnet_pgm_time_remaining(castnet_pgm *_Nonnull pgm);
/// Closes and frees; the descriptors must have left every epoll set. `flush` says goodbye in three SPMs.
void castnet_pgm_close(castnet_pgm *_Nonnull pgm, bool flush);

/// Takes the oldest waiting log line of libpgm; its level is 0 (debug) to 6 (fatal). False: none. Any thread.
bool castnet_pgm_log_take(char *_Nonnull text, size_t capacity, int *_Nonnull level);
/// How many lines were dropped because nobody took them.
uint64_t castnet_pgm_log_dropped(void);

#endif
