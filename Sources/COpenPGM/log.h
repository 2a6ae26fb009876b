#ifndef CASTNET_LOG_H
#define CASTNET_LOG_H

/* Takes a line of libpgm, which calls it with a mutex held and from any thread: it only copies. */
void castnet_pgm_log_line(const int level, const char *restrict text, void *restrict closure);

#endif
