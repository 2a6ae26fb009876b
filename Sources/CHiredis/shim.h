#if !__has_include(<hiredis/hiredis.h>)
#error "Castnet's Redis trait needs hiredis: run `apt-get install libhiredis-dev`, or build with --traits Multicast or --disable-default-traits."
#endif

/* hiredis.h names struct timeval without declaring it. */
#include <sys/time.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>

/* An array says how long it will be before it comes, and hiredis makes room for it at once. This bounds that: a
 * longer one is refused as if there were no memory for it, which is an ordinary failure of the connection. */

#if HIREDIS_MAJOR >= 1
typedef size_t castnet_redis_count;
#else
typedef int castnet_redis_count;
#endif

/// What a connection's reader calls instead of hiredis' own functions; lives as long as the connection.
typedef struct castnet_redis_bound {
    redisReplyObjectFunctions functions;
    redisReplyObjectFunctions *original;
    castnet_redis_count elements_max;
} castnet_redis_bound;

static inline void *castnet_redis_array(const redisReadTask *task, castnet_redis_count elements) {
    castnet_redis_bound *bound = task->privdata;
    return elements > bound->elements_max ? NULL : bound->original->createArray(task, elements);
}

/// Bounds the arrays of a connection. Returns what is to be freed behind the connection, NULL without memory.
static inline castnet_redis_bound *_Nullable castnet_redis_bind(redisContext *_Nonnull context, int elements_max) {
    castnet_redis_bound *bound = malloc(sizeof *bound);
    if (bound == NULL) return NULL;
    bound->original = context->reader->fn;
    bound->functions = *bound->original;
    bound->functions.createArray = castnet_redis_array;
    bound->elements_max = elements_max;
    context->reader->fn = &bound->functions;
    context->reader->privdata = bound;
    return bound;
}
