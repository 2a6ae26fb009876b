#ifndef CASTNET_REPLACEMENTS_H
#define CASTNET_REPLACEMENTS_H

/* What libpgm calls instead of the kernel. */

#include <sys/socket.h>
#include <sys/types.h>

ssize_t castnet_seam_sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to,
                            socklen_t to_length);
ssize_t castnet_seam_recvmsg(int fd, struct msghdr *message, int flags);

#endif
