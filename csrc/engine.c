// engine.c: which backends this build has, and the clock that they share.
//
// The one place that knows the order of preference. The fake engine stands last and is
// never chosen by itself: it has to be asked for by name. What a backend needs from the
// system is not tested here but in its own file, which compiles to nothing elsewhere.

// For clock_gettime under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "engine.h"

#include <string.h>
#include <time.h>

#if defined(__APPLE__) || defined(__FreeBSD__) || defined(__NetBSD__) ||                 \
    defined(__OpenBSD__) || defined(__DragonFly__)
// Tests on other systems set this by hand, to run the kqueue engine over a stand-in.
#ifndef CORONET_HAVE_KQUEUE
#define CORONET_HAVE_KQUEUE 1
#endif
#endif

static const struct engine_operations *const backends[] = {
// First: where a system has both, kqueue is the one that somebody asked for.
#if defined(CORONET_HAVE_KQUEUE)
    &kqueue_engine,
#endif
#if defined(__linux__)
    &epoll_engine,
#endif
    &fake_engine,
};

const struct engine_operations *
engine_at(size_t index)
{
    return index < sizeof(backends) / sizeof(backends[0]) ? backends[index] : NULL;
}

const struct engine_operations *
engine_find(const char *name)
{
    if (name == NULL || name[0] == '\0') {
        // A system without a real backend gets nothing rather than virtual time.
        return backends[0] == &fake_engine ? NULL : backends[0];
    }
    const struct engine_operations *operations;
    size_t index = 0;
    while ((operations = engine_at(index)) != NULL &&
           strcmp(operations->name, name) != 0) {
        index++;
    }
    return operations;
}

uint64_t
engine_monotonic_ns(void)
{
    struct timespec now;
    // It can fail only for a bad pointer or a system without this clock.
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
