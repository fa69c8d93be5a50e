// live_counts.h: how many things of each kind there are now, in a debug build.
//
// Each kind is counted up where such a thing comes into being, and down where it ends. A test
// that leaves more of them than there were has found a leak, also one that no reference
// counter and no allocator sees: a timer that stays armed, a watch nobody takes off.
//
// Without CORONET_DEBUG the macro is nothing, and live_counts.c is empty. The counters are of
// the process, not of a hub, and atomic, for hubs in threads share them.
#ifndef CORONET_LIVE_COUNTS_H
#define CORONET_LIVE_COUNTS_H

#ifdef CORONET_DEBUG

enum live_kind {
    LIVE_HUBS,
    LIVE_CONNECTIONS,
    LIVE_TASKS,
    LIVE_WORKERS,
    LIVE_WAITERS,         // those with memory of their own
    LIVE_TIMERS,          // armed ones
    LIVE_WATCHES,         // descriptors with an owner in a watch table
    LIVE_FOREIGN_WATCHES, // of descriptors that are no connection's
    LIVE_GUEST_WATCHES,
    LIVE_CALLBACKS,
    LIVE_TRANSPORTS, // stacks of layers
    LIVE_DRAINS,     // closed connections that still send
    LIVE_BLOCKS,     // memory of line buffers and layers
    LIVE_PACKETS,    // of write queues, and spare ones
    LIVE_KINDS
};

void live_counts_add(enum live_kind kind, long change);
long live_counts_get(enum live_kind kind);

// A static string such as "packets".
const char *live_counts_name(enum live_kind kind);

#define LIVE_COUNT(kind, change) live_counts_add(kind, (long)(change))

#else

#define LIVE_COUNT(kind, change) ((void)0)

#endif

#endif
