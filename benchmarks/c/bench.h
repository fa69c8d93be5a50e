// bench.h: timing for the microbenchmarks of the plain C structures.
//
// A benchmark is a function that does `count` operations; bench_run() calls it several
// times and prints the fastest, because everything that disturbs a run makes it slower.
// Figures are for comparing one commit with the next on one machine.

#ifndef BENCHMARK_BENCH_H
#define BENCHMARK_BENCH_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define BENCH_RUNS 7

static inline double
bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

// Keeps the compiler from dropping work whose result nobody reads.
static inline void
bench_use(uint64_t value)
{
    volatile uint64_t sink = value;
    (void)sink;
}

// A small generator of scattered numbers; the same ones in each run.
static inline uint64_t
bench_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 33;
}

static inline void
bench_run(const char *name, uint64_t count, void (*operations)(uint64_t count))
{
    double best_ns = 0;
    for (int run = 0; run < BENCH_RUNS; run++) {
        double start_ns = bench_now_ns();
        operations(count);
        double run_ns = bench_now_ns() - start_ns;
        if (run == 0 || run_ns < best_ns) {
            best_ns = run_ns;
        }
    }
    printf("%-58s %8.2f ns\n", name, best_ns / (double)count);
}

#endif
