// bench.h: timing for the microbenchmarks of layers 1 and 2, and of libraries beside them.
//
// A program has a table of cases and calls bench_main(). A case is a function that does so
// many operations.
//
//     PROGRAM                 runs all cases and prints the fastest of several runs of each,
//                             because everything that disturbs a run makes it slower
//     PROGRAM --list          prints the cases: operations of a run, and the name
//     PROGRAM CASE COUNT      does so many operations once and prints the nanoseconds of
//                             processor time of one; layers.py compares and counts with this
//
// Figures are for comparing one commit with the next, or libraries, on one machine.

#ifndef BENCHMARK_BENCH_H
#define BENCHMARK_BENCH_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BENCH_RUNS 7

struct bench_case {
    const char *name;
    uint64_t count; // operations of one run
    void (*operations)(uint64_t count);
};

static inline double
bench_cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
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

// A case may call these around its work: what it does before and after is not counted then.
static double bench_begin_ns;
static double bench_end_ns;

static inline void
bench_begin(void)
{
    bench_begin_ns = bench_cpu_ns();
}

static inline void
bench_end(void)
{
    bench_end_ns = bench_cpu_ns();
}

// Nanoseconds of one of [count] operations.
static inline double
bench_time(const struct bench_case *one, uint64_t count)
{
    bench_end_ns = -1;
    bench_begin();
    one->operations(count);
    if (bench_end_ns < 0) {
        bench_end();
    }
    return (bench_end_ns - bench_begin_ns) / (double)count;
}

static inline void
bench_print_fastest(const struct bench_case *one)
{
    double best_ns = bench_time(one, one->count);
    for (int run = 1; run < BENCH_RUNS; run++) {
        double run_ns = bench_time(one, one->count);
        best_ns = run_ns < best_ns ? run_ns : best_ns;
    }
    printf("%-64s %10.2f ns\n", one->name, best_ns);
}

static inline int
bench_main(int argc, char **argv, const struct bench_case *cases, int case_count)
{
    for (int i = 0; i < case_count; i++) {
        if (argc == 1) {
            bench_print_fastest(&cases[i]);
        }
        else if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            printf("%llu %s\n", (unsigned long long)cases[i].count, cases[i].name);
        }
        else if (argc == 3 && strcmp(argv[1], cases[i].name) == 0) {
            printf("%.3f\n", bench_time(&cases[i], strtoull(argv[2], NULL, 10)));
            return 0;
        }
    }
    if (argc > 2) {
        fprintf(stderr, "%s: no such case: %s\n", argv[0], argv[1]);
        return 2;
    }
    return 0;
}

#define BENCH_MAIN(argc, argv, cases)                                                    \
    bench_main(argc, argv, cases, (int)(sizeof(cases) / sizeof *(cases)))

#endif
