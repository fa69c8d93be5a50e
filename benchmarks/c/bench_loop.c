// bench_loop.c: what the parts of an event loop cost: turns, timers, watches, wake-ups.
//
// Linked with one library's bench_loop_*.c. Timers are measured among ten thousand that are
// armed for far later, as connections arm them whose peers are quiet. pycoronet reads the
// clock whenever it arms a timer, and so does libevent; libev and libuv reckon from the time
// at which their last turn began.

#define _GNU_SOURCE
#include "bench.h"
#include "bench_loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#define OTHER_TIMERS 10000
#define DUE_AT_ONCE 10000
#define MAX_SHORT_DELAY_MS 10
#define HOUR_MS 3600000

static uint64_t expired;
static uint64_t woken;
static sem_t woken_is_seen;
static bool has_waker;

void
timer_expired(int index)
{
    bench_use((uint64_t)index);
    expired++;
}

void
loop_woke(void)
{
    woken++;
    if (has_waker) {
        sem_post(&woken_is_seen);
    }
}

static uint64_t
choose_delay_ms(uint64_t *state)
{
    return HOUR_MS + bench_random(state) % HOUR_MS;
}

static void
open_with_timers(int more_timers, uint64_t *state)
{
    loop_open(OTHER_TIMERS + more_timers);
    for (int i = 0; i < OTHER_TIMERS; i++) {
        loop_arm(i, choose_delay_ms(state));
    }
}

static void
open_pipe(int ends[2])
{
    if (pipe(ends) < 0) {
        die("pipe");
    }
}

static void
turn_without_events(uint64_t count)
{
    int ends[2];
    open_pipe(ends);
    loop_open(0);
    loop_watch(ends[0]); // a loop without anything to watch need not ask the kernel
    bench_begin();
    for (uint64_t i = 0; i < count; i++) {
        loop_turn(false);
    }
    bench_end();
    loop_unwatch(ends[0]);
    loop_close();
    close(ends[0]);
    close(ends[1]);
}

static void
arm_and_cancel(uint64_t count)
{
    uint64_t state = 1;
    open_with_timers(1, &state);
    bench_begin();
    for (uint64_t i = 0; i < count; i++) {
        loop_arm(OTHER_TIMERS, choose_delay_ms(&state));
        loop_cancel(OTHER_TIMERS);
    }
    bench_end();
    loop_close();
}

static void
arm_again(uint64_t count)
{
    uint64_t state = 1;
    open_with_timers(0, &state);
    bench_begin();
    for (uint64_t i = 0; i < count; i++) {
        loop_arm((int)(i % OTHER_TIMERS), choose_delay_ms(&state));
    }
    bench_end();
    loop_close();
}

// Sleeps until all are due, which takes no processor time: a turn then finds them.
static void
arm_and_expire(uint64_t count)
{
    const struct timespec pause = {.tv_nsec = (MAX_SHORT_DELAY_MS + 2) * 1000000};
    uint64_t state = 1;
    open_with_timers(DUE_AT_ONCE, &state);
    bench_begin();
    for (uint64_t done = 0; done < count; done += DUE_AT_ONCE) {
        expired = 0;
        for (int i = 0; i < DUE_AT_ONCE; i++) {
            loop_arm(OTHER_TIMERS + i, 1 + bench_random(&state) % MAX_SHORT_DELAY_MS);
        }
        nanosleep(&pause, NULL);
        while (expired < DUE_AT_ONCE) {
            loop_turn(false);
        }
    }
    bench_end();
    loop_close();
}

// A turn after each: there are libraries that tell the kernel only then.
static void
watch_and_unwatch(uint64_t count)
{
    int ends[2];
    open_pipe(ends);
    loop_open(0);
    bench_begin();
    for (uint64_t i = 0; i < count; i++) {
        loop_watch(ends[0]);
        loop_turn(false);
        loop_unwatch(ends[0]);
        loop_turn(false);
    }
    bench_end();
    loop_close();
    close(ends[0]);
    close(ends[1]);
}

static void
wake_by_itself(uint64_t count)
{
    loop_open(0);
    woken = 0;
    bench_begin();
    for (uint64_t i = 1; i <= count; i++) {
        loop_wake();
        while (woken < i) {
            loop_turn(false);
        }
    }
    bench_end();
    loop_close();
}

static void *
wake_often(void *count)
{
    for (uint64_t i = 0; i < *(const uint64_t *)count; i++) {
        loop_wake();
        sem_wait(&woken_is_seen);
    }
    return NULL;
}

// The waker waits for each wake-up to be seen, so that no two become one.
static void
wake_from_a_thread(uint64_t count)
{
    pthread_t waker;
    loop_open(0);
    woken = 0;
    sem_init(&woken_is_seen, 0, 0);
    has_waker = true;
    if (pthread_create(&waker, NULL, wake_often, &count) != 0) {
        die("pthread_create");
    }
    bench_begin();
    while (woken < count) {
        loop_turn(true);
    }
    pthread_join(waker, NULL);
    bench_end();
    has_waker = false;
    sem_destroy(&woken_is_seen);
    loop_close();
}

int
main(int argc, char **argv)
{
    static const struct bench_case cases[] = {
        {"timer: arm and cancel, among 10,000", 1000000, arm_and_cancel},
        {"timer: arm again, one of 10,000", 1000000, arm_again},
        {"timer: arm and expire, 10,000 within 10 ms", 200000, arm_and_expire},
        {"turn: nothing is ready", 500000, turn_without_events},
        {"watch: begin and end, a turn after each", 100000, watch_and_unwatch},
        {"wake: itself, and a turn", 200000, wake_by_itself},
        {"wake: by another thread, out of a wait", 20000, wake_from_a_thread},
    };
    return BENCH_MAIN(argc, argv, cases);
}
