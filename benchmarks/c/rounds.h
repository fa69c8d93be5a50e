// rounds.h: how the load programs are told what to do, and how they answer.
//
// A program prints {"ready": true, ...} when it is. Then each line on standard input is a
// round:
//     seconds 0.6      as many requests as go into that time
//     requests 10000   about that many
// and each round answers with one line {"requests": n, "seconds": t}, until standard input
// ends. What a request is, is the program's business: it includes this file once, counts in
// a struct round and gives rounds_obey() the function that does one.

#ifndef BENCHMARK_ROUNDS_H
#define BENCHMARK_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define REPLY_PATIENCE_SECONDS 10

struct round {
    uint64_t started;   // requests begun in this round
    uint64_t completed; // that are over
    uint64_t wanted;    // begin no more than this many
    double end_seconds; // begin none after this time
};

static inline _Noreturn void
fail(const char *message)
{
    fprintf(stderr, "load: %s\n", message);
    exit(1);
}

static inline double
now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline bool
round_may_start(const struct round *round)
{
    return round->started < round->wanted && now_seconds() < round->end_seconds;
}

static inline struct round
read_round(const char *line)
{
    struct round round = {.wanted = UINT64_MAX, .end_seconds = 1e300};
    double seconds;
    unsigned long long requests;
    if (sscanf(line, "seconds %lf", &seconds) == 1) {
        round.end_seconds = now_seconds() + seconds;
    }
    else if (sscanf(line, "requests %llu", &requests) == 1) {
        round.wanted = requests;
    }
    else {
        fail("a round is 'seconds S' or 'requests N'");
    }
    return round;
}

// Obeys until standard input ends. [run] returns when all it has started is over, so that
// the server is idle again when its processor time is read.
static inline void
rounds_obey(struct round *round, void (*run)(void *load), void *load)
{
    char line[128];
    while (fgets(line, sizeof line, stdin) != NULL) {
        *round = read_round(line);
        double start_seconds = now_seconds();
        run(load);
        printf("{\"requests\": %llu, \"seconds\": %.6f}\n",
               (unsigned long long)round->completed, now_seconds() - start_seconds);
        fflush(stdout);
    }
}

#endif
