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
/// Sleeps for `nanoseconds`, or until `fd` is readable.
void castnet_rest(int fd, int64_t nanoseconds);

/// The CLOCK_MONOTONIC time in nanoseconds.
int64_t castnet_now(void);
/// Tells the allocator to keep freed memory, up to 256 MiB, instead of giving it back to the kernel.
void castnet_keep_heap(void);
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
    /// The UDP port that packets leave from; 0: the kernel's choice.
    uint16_t send_port;
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
    /// The packet's number.
    uint32_t sequence;
    /// True when the packet came as repair data.
    bool repaired;
} castnet_pgm_packet;

/// What one receive call took, borrowed until the next one.
typedef struct castnet_pgm_run {
    castnet_pgm_packet *_Nonnull packets;
    uint32_t count;
    bool lacks;
} castnet_pgm_run;

/// The descriptors to wait for; they stay libpgm's.
typedef struct castnet_pgm_descriptors {
    int receive;
    int pending;
    int repair;
    int send;
} castnet_pgm_descriptors;

typedef struct castnet_pgm castnet_pgm;

/* ---- seam.c: libpgm's sendto and recvmsg for our own sockets, in batches and judged packet by packet. ---- */

/// What becomes of an arrived packet.
typedef enum CASTNET_CLOSED_ENUM castnet_seam_verdict {
    CASTNET_SEAM_REJECT CASTNET_SWIFT_NAME("reject") = 0,
    CASTNET_SEAM_ADMIT CASTNET_SWIFT_NAME("admit"),
    /// Data that libpgm can deliver at once: nothing is missing before it, in its stream or in any other.
    CASTNET_SEAM_ADMIT_NEXT CASTNET_SWIFT_NAME("admitNext"),
    /// libpgm gets the SPM that was written, then the packet.
    CASTNET_SEAM_ADMIT_AFTER_SPM CASTNET_SWIFT_NAME("admitAfterSPM"),
    /// libpgm gets the SPM that was written instead of the packet.
    CASTNET_SEAM_ONLY_SPM CASTNET_SWIFT_NAME("onlySPM"),
} castnet_seam_verdict;

#define CASTNET_SEAM_SPM 36
/// The bytes of UDP payload that the seam hands the kernel as one segmented send.
#define CASTNET_SEGMENTED_BYTES_MAX 65000

/// Who judges the packets of one socket, on its thread, inside its calls. Addresses and ports in host byte
/// order.
typedef struct castnet_seam_hooks {
    void *_Nullable context;
    /// Judges an arrived packet; `destination` is 0 where the kernel did not tell; `on_send` when it came to
    /// the descriptor that this socket sends from. `spm` has room for CASTNET_SEAM_SPM bytes.
    castnet_seam_verdict (*_Nullable received)(
        void *_Nullable context, const uint8_t *_Nonnull bytes, size_t length, uint32_t source,
        uint16_t port, uint32_t destination, bool on_send, uint8_t *_Nonnull spm);
    /// Judges a leaving packet: how often it leaves (0 to 2). A port written to `steered` gets it as well.
    int (*_Nullable sending)(
        void *_Nullable context, const uint8_t *_Nonnull bytes, size_t length, uint32_t destination,
        uint16_t port, uint16_t *_Nonnull steered);
    /// True: neither segmented sends nor coalesced receives.
    bool plain;
    /// Added to the numbers of the own stream on the wire.
    uint32_t shift;
} castnet_seam_hooks;

/// What the seam did, in packets and calls.
typedef struct castnet_seam_facts {
    uint64_t packets_in, packets_out;
    uint64_t receive_calls, send_calls;
    /// Kernel messages that held more than one packet.
    uint64_t batches_in, batches_out;
    /// Kernel messages to a group: a group that is looped back brings as many back.
    uint64_t group_messages_out;
    /// Packets the kernel refused for good.
    uint64_t packets_failed;
    /// Times the kernel refused a segmented send; from then on packets leave one by one.
    uint64_t segments_refused;
    int last_errno;
    bool segments, coalesces;
} castnet_seam_facts;

/// libpgm's version: major, minor, micro.
void castnet_pgm_version(uint32_t *_Nonnull parts);
/// Starts libpgm once per process: monotonic timer, silent log. Any thread; later calls return the first
/// result.
bool castnet_pgm_start(castnet_pgm_error *_Nonnull error);
/// Opens a bus socket with a fresh random source identifier; NULL on failure. With `hooks` its packets go
/// through the seam where that is to be had.
castnet_pgm *_Nullable castnet_pgm_open(
    const castnet_pgm_options *_Nonnull options, const castnet_seam_hooks *_Nullable hooks,
    castnet_pgm_error *_Nonnull error);
/// Whether the socket's packets go through the seam; if not, why.
bool castnet_pgm_has_seam(const castnet_pgm *_Nonnull pgm);
const char *_Nonnull castnet_pgm_seam_problem(const castnet_pgm *_Nonnull pgm);
castnet_seam_facts castnet_pgm_seam_facts(const castnet_pgm *_Nonnull pgm);
/// Lets the collected packets go. WOULD_BLOCK: the rest waits until the send descriptor is writable.
castnet_pgm_status castnet_pgm_flush(castnet_pgm *_Nonnull pgm);
/// True while packets lie in the seam that libpgm has not seen: receive must be called before any sleep.
bool castnet_pgm_holds_packets(const castnet_pgm *_Nonnull pgm);
/// The send descriptor is readable: the next receive looks there too.
void castnet_pgm_note_send_readable(castnet_pgm *_Nonnull pgm);
/// Collects a packet that was judged before; it leaves with the next flush. False: no room.
bool castnet_pgm_emit(
    castnet_pgm *_Nonnull pgm, const void *_Nonnull bytes, size_t length, uint32_t address, uint16_t port);
/// Hands libpgm a packet as if it had come from `source` for `destination`, unjudged; false: no room.
bool castnet_pgm_inject(
    castnet_pgm *_Nonnull pgm, const void *_Nonnull bytes, size_t length, uint32_t source,
    uint32_t destination);
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
/// The most packets of one receive call.
#define CASTNET_PGM_RUN_MAX 64

/// Serves timers, repairs and peers, and takes packets: as DONE tells, those in `run`. That is one, or, where
/// `is_whole` says that libpgm misses nothing of any stream, as many as come in order. At most one repair
/// leaves per call. DONE with `run->lacks`: libpgm did not deliver all that the seam gave it in order.
castnet_pgm_status castnet_pgm_receive(
    castnet_pgm *_Nonnull pgm, bool is_whole, castnet_pgm_run *_Nonnull run,
    castnet_pgm_error *_Nonnull error);
/// Microseconds until receive must be called even if nothing arrives, at least 1,000.
int64_t castnet_pgm_time_remaining(castnet_pgm *_Nonnull pgm);
/// Closes and frees; the descriptors must have left every epoll set. `flush` says goodbye in three SPMs.
void castnet_pgm_close(castnet_pgm *_Nonnull pgm, bool flush);

/// Takes the oldest waiting log line of libpgm; its level is 0 (debug) to 6 (fatal). False: none. Any thread.
bool castnet_pgm_log_take(char *_Nonnull text, size_t capacity, int *_Nonnull level);
/// How many lines were dropped because nobody took them.
uint64_t castnet_pgm_log_dropped(void);

#endif
