#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "COpenPGM.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

int castnet_interfaces(castnet_interface *out, int capacity) {
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0) return -errno;
    int query = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int count = 0;
    for (struct ifaddrs *entry = list; entry && count < capacity; entry = entry->ifa_next) {
        if (!entry->ifa_addr || entry->ifa_addr->sa_family != AF_INET) continue;
        castnet_interface *slot = &out[count++];
        memset(slot, 0, sizeof *slot);
        snprintf(slot->name, sizeof slot->name, "%s", entry->ifa_name);
        /* A second address of an interface may carry a label ("eth0:1"); the interface precedes it. */
        slot->name[strcspn(slot->name, ":")] = 0;
        struct sockaddr_in address;
        memcpy(&address, entry->ifa_addr, sizeof address);
        slot->address = ntohl(address.sin_addr.s_addr);
        slot->index = if_nametoindex(slot->name);
        slot->up = (entry->ifa_flags & IFF_UP) != 0;
        slot->loopback = (entry->ifa_flags & IFF_LOOPBACK) != 0;
        slot->multicast = (entry->ifa_flags & IFF_MULTICAST) != 0;
        struct ifreq request;
        memset(&request, 0, sizeof request);
        memcpy(request.ifr_name, slot->name, sizeof slot->name);
        if (query >= 0 && ioctl(query, SIOCGIFMTU, &request) == 0 && request.ifr_mtu > 0)
            slot->mtu = (uint32_t)request.ifr_mtu;
    }
    if (query >= 0) close(query);
    freeifaddrs(list);
    return count;
}

int castnet_epoll_create(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int castnet_epoll_set(int epoll, int fd, uint64_t tag, bool readable, bool writable) {
    struct epoll_event event = {
        .events = (readable ? EPOLLIN : 0u) | (writable ? EPOLLOUT : 0u), .data.u64 = tag};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0) return 0;
    if (errno != ENOENT) return -errno;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int castnet_epoll_remove(int epoll, int fd) {
    struct epoll_event ignored = {0};
    return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &ignored) == 0 ? 0 : -errno;
}

/* The millisecond form, rounded up so that a deadline has passed when the wait is over. */
static int wait_coarsely(int epoll, struct epoll_event *events, int capacity, int64_t timeout_ns) {
    int64_t milliseconds = timeout_ns < 0 ? -1 : timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
    return epoll_wait(epoll, events, capacity, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

int castnet_epoll_wait(int epoll, castnet_ready *out, int capacity, int64_t timeout_ns) {
    static _Thread_local bool coarse;
    struct epoll_event events[64];
    if (capacity > 64) capacity = 64;
    int count;
    if (coarse) {
        count = wait_coarsely(epoll, events, capacity, timeout_ns);
    } else {
        struct timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
        count = epoll_pwait2(epoll, events, capacity, timeout_ns < 0 ? NULL : &timeout, NULL);
        if (count < 0 && (errno == ENOSYS || errno == EPERM)) {
            coarse = true;
            count = wait_coarsely(epoll, events, capacity, timeout_ns);
        }
    }
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        out[i].tag = events[i].data.u64;
        out[i].readable = (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
        out[i].writable = (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0;
    }
    return count;
}

int castnet_eventfd_create(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void castnet_eventfd_signal(int fd) {
    uint64_t one = 1;
    /* A full counter means that the wake-up is already due. */
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {}
}

void castnet_eventfd_drain(int fd) {
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {}
}

void castnet_rest(int fd, int64_t nanoseconds) {
    struct pollfd wake = {.fd = fd, .events = POLLIN};
    struct timespec pause = {
        .tv_sec = nanoseconds / 1000000000, .tv_nsec = (long)(nanoseconds % 1000000000)};
    (void)ppoll(&wake, 1, &pause, NULL);
}

int64_t castnet_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void castnet_keep_heap(void) {
#ifdef __GLIBC__
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
#endif
}

void castnet_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }

int castnet_udp_open(uint32_t address, int receive_buffer, uint16_t *port) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    socklen_t length = sizeof local;
    /* A smaller buffer than wished is no failure: reports repeat. */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (bind(fd, (struct sockaddr *)&local, sizeof local) != 0
        || getsockname(fd, (struct sockaddr *)&local, &length) != 0) {
        int code = errno;
        close(fd);
        return -code;
    }
    *port = ntohs(local.sin_port);
    return fd;
}

int castnet_udp_receive(int fd, uint8_t *bytes, size_t slot, castnet_datagram *out, int slots) {
    struct mmsghdr messages[32];
    struct iovec vectors[32];
    struct sockaddr_in sources[32];
    if (slots > 32) slots = 32;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < slots; i++) {
        vectors[i] = (struct iovec){.iov_base = bytes + (size_t)i * slot, .iov_len = slot};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &sources[i];
        messages[i].msg_hdr.msg_namelen = sizeof sources[i];
    }
    int count = recvmmsg(fd, messages, (unsigned)slots, MSG_DONTWAIT, NULL);
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        out[i].address = ntohl(sources[i].sin_addr.s_addr);
        out[i].port = ntohs(sources[i].sin_port);
        out[i].length = messages[i].msg_len;
        out[i].truncated = (messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0;
    }
    return count;
}

int castnet_udp_send(int fd, const void *bytes, size_t length, uint32_t address, uint16_t port) {
    struct sockaddr_in target = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    ssize_t sent;
    do {
        sent = sendto(
            fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&target, sizeof target);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int64_t castnet_socket_drops(int fd) {
    uint32_t values[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof values;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, &length) != 0) return -1;
    return length > SK_MEMINFO_DROPS * sizeof values[0] ? (int64_t)values[SK_MEMINFO_DROPS] : -1;
}

int castnet_statistics_open(void) {
    int fd = open("/proc/thread-self/net/snmp", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int64_t castnet_receive_errors(int fd) {
    char text[8192];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);
    if (length <= 0) return -1;
    text[length] = 0;
    /* Two lines, names and values; the fifth value of "Udp:" is RcvbufErrors (RFC 4113 and Linux's own). */
    char *names = strstr(text, "\nUdp: ");
    char *values = names ? strstr(names + 1, "\nUdp: ") : NULL;
    long long errors;
    if (!values || sscanf(values + 6, "%*s %*s %*s %*s %lld", &errors) != 1) return -1;
    return errors;
}

void castnet_descriptor_close(int fd) {
    if (fd >= 0) close(fd);
}
