// cpu_clock.c: how long a thread has computed. See cpu_clock.h.
//
// POSIX has a clock for each thread, but as an option, which macOS has not taken: there a
// thread can only ask for itself.

// For clock_gettime under -std=c11 with glibc.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "cpu_clock.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#if defined(_POSIX_THREAD_CPUTIME) && _POSIX_THREAD_CPUTIME >= 0
#define KNOWS_OTHER_THREADS 1
#endif

uint64_t
cpu_clock_of_thread(unsigned long thread_id)
{
    struct timespec time;
    clockid_t clock = CLOCK_THREAD_CPUTIME_ID;
    if (thread_id != (unsigned long)pthread_self()) {
#if defined(KNOWS_OTHER_THREADS)
        if (pthread_getcpuclockid((pthread_t)thread_id, &clock) != 0) {
            return 0; // not reached: hubs of ended threads are closed
        }
#else
        return 0;
#endif
    }
    if (clock_gettime(clock, &time) < 0) {
        return 0; // not reached: the clock is there
    }
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}
