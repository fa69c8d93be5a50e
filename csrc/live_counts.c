// live_counts.c: see live_counts.h. Empty but in a debug build.

#include "live_counts.h"

#ifdef CORONET_DEBUG

#include <assert.h>

static long counts[LIVE_KINDS];

static const char *const names[LIVE_KINDS] = {
    [LIVE_HUBS] = "hubs",
    [LIVE_CONNECTIONS] = "connections",
    [LIVE_TASKS] = "tasks",
    [LIVE_WORKERS] = "workers",
    [LIVE_WAITERS] = "waiters",
    [LIVE_TIMERS] = "timers",
    [LIVE_WATCHES] = "watches",
    [LIVE_FOREIGN_WATCHES] = "foreign_watches",
    [LIVE_GUEST_WATCHES] = "guest_watches",
    [LIVE_CALLBACKS] = "callbacks",
    [LIVE_TRANSPORTS] = "transports",
    [LIVE_DRAINS] = "drains",
    [LIVE_BLOCKS] = "blocks",
    [LIVE_PACKETS] = "packets",
};

void
live_counts_add(enum live_kind kind, long change)
{
    long count = __atomic_add_fetch(&counts[kind], change, __ATOMIC_RELAXED);
    assert(count >= 0); // something ended twice
    (void)count;
}

long
live_counts_get(enum live_kind kind)
{
    return __atomic_load_n(&counts[kind], __ATOMIC_RELAXED);
}

const char *
live_counts_name(enum live_kind kind)
{
    return names[kind];
}

#else

typedef int live_counts_unused; // ISO C wants a declaration in every file

#endif
