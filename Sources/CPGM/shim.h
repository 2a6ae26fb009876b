/* The order matters: pgm_poll_info and pgm_epoll_ctl stay hidden unless these two come first. */
#include <poll.h>
#include <sys/epoll.h>
#include <pgm/pgm.h>
