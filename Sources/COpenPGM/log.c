#include "log.h"

#ifdef CASTNET_MULTICAST

#include <pthread.h>
#include <stdio.h>

#include "COpenPGM.h"

enum { LOG_LINES = 64, LOG_LENGTH = 256 };

static struct {
    pthread_mutex_t mutex;
    struct {
        int level;
        char text[LOG_LENGTH];
    } lines[LOG_LINES];
    unsigned first;
    unsigned count;
    uint64_t dropped;
} log_ring = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void castnet_pgm_log_line(const int level, const char *restrict text, void *restrict closure) {
    (void)closure;
    pthread_mutex_lock(&log_ring.mutex);
    if (log_ring.count == LOG_LINES) {
        log_ring.dropped++;
    } else {
        unsigned slot = (log_ring.first + log_ring.count++) % LOG_LINES;
        log_ring.lines[slot].level = level;
        snprintf(log_ring.lines[slot].text, LOG_LENGTH, "%s", text ? text : "");
    }
    pthread_mutex_unlock(&log_ring.mutex);
}

bool castnet_pgm_log_take(char *text, size_t capacity, int *level) {
    pthread_mutex_lock(&log_ring.mutex);
    bool found = log_ring.count > 0;
    if (found) {
        *level = log_ring.lines[log_ring.first].level;
        snprintf(text, capacity, "%s", log_ring.lines[log_ring.first].text);
        log_ring.first = (log_ring.first + 1) % LOG_LINES;
        log_ring.count--;
    }
    pthread_mutex_unlock(&log_ring.mutex);
    return found;
}

uint64_t castnet_pgm_log_dropped(void) {
    pthread_mutex_lock(&log_ring.mutex);
    uint64_t dropped = log_ring.dropped;
    pthread_mutex_unlock(&log_ring.mutex);
    return dropped;
}

#endif
