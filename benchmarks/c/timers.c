// timers.c: what a deadline costs when a million of them are armed.
//
// Through the reactor, as the hub does it: arming reads the clock. First the timers are taken
// in order, each with a later deadline than the one before; then in random order, with random
// deadlines within an hour. Each is armed, armed again while it is, and cancelled, which
// unlinks it. In order, arming again halves the delay: an earlier deadline is the dear case.
// Prints the nanoseconds of processor time of one of each as JSON.

#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "reactor.h"

#define TIMER_COUNT 1000000
#define HOUR_NS (UINT64_C(3600) * 1000 * 1000 * 1000)

static struct reactor reactor;
static struct timer *timers;
static uint32_t *order;
static uint64_t *delays_ns;

static void
die(const char *what)
{
    fprintf(stderr, "timers: %s\n", what);
    exit(1);
}

static void *
allocate(size_t size)
{
    void *memory = calloc(TIMER_COUNT, size);
    if (memory == NULL) {
        die("no memory");
    }
    return memory;
}

// Deadlines spread evenly over [span_ns], the later the later in the array.
static void
put_in_order(uint64_t span_ns)
{
    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        order[i] = i;
        delays_ns[i] = span_ns / TIMER_COUNT * (i + 1);
    }
}

static void
shuffle(uint64_t *state)
{
    for (uint32_t i = TIMER_COUNT - 1; i > 0; i--) {
        uint32_t other = (uint32_t)(bench_random(state) % (i + 1));
        uint32_t kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        delays_ns[i] = 1000000 + bench_random(state) * 1000 % HOUR_NS;
    }
}

static void
arm_all(void)
{
    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        reactor_arm(&reactor, &timers[order[i]], delays_ns[i]);
    }
}

static void
cancel_all(void)
{
    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        timer_wheel_unlink(&reactor.timers, &timers[order[i]]);
    }
}

static void
report(const char *name, void (*operations)(void), uint64_t armed_after,
       const char *behind)
{
    double start_ns = bench_cpu_ns();
    operations();
    double took_ns = bench_cpu_ns() - start_ns;
    if (reactor.timers.armed_count != armed_after) {
        die("timers were lost");
    }
    printf("\"%s\": %.2f%s", name, took_ns / TIMER_COUNT, behind);
}

int
main(void)
{
    timers = allocate(sizeof *timers);
    order = allocate(sizeof *order);
    delays_ns = allocate(sizeof *delays_ns);
    if (reactor_open(&reactor, engine_find(NULL)) < 0) {
        die("reactor_open");
    }
    for (uint32_t i = 0; i < TIMER_COUNT; i++) {
        timer_init(&timers[i], NULL);
    }
    uint64_t state = 1;
    printf("{");
    put_in_order(HOUR_NS);
    report("arm, in order", arm_all, TIMER_COUNT, ", ");
    put_in_order(HOUR_NS / 2);
    report("arm again, in order", arm_all, TIMER_COUNT, ", ");
    report("cancel, in order", cancel_all, 0, ", ");
    shuffle(&state);
    report("arm, at random", arm_all, TIMER_COUNT, ", ");
    shuffle(&state);
    report("arm again, at random", arm_all, TIMER_COUNT, ", ");
    shuffle(&state);
    report("cancel, at random", cancel_all, 0, "}\n");
    reactor_close(&reactor);
    free(timers);
    free(order);
    free(delays_ns);
    return 0;
}
