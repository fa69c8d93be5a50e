// reactor_cases.h: the reactor over the fake engine, with the engine's calls counted.
//
// Shared by the tests of the reactor: real descriptors, virtual time. Each case begins
// with set_up() and ends with tear_down(), which checks the invariants.

#ifndef CORONET_TESTS_REACTOR_CASES_H
#define CORONET_TESTS_REACTOR_CASES_H

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"
#include "nonblocking_io.h"
#include "reactor.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define DAY (86400 * SECOND)

// The fake engine, with its calls counted and its wait made to fail at will.
static struct {
    int clock_count, add_count, modify_count, remove_count, wait_count;
    int forced_wait_status; // 0: none
} calls;

static inline uint64_t
count_clock(struct engine *engine)
{
    calls.clock_count++;
    return fake_engine.now_ns(engine);
}

static inline int
count_add(struct engine *engine, int fd, uint64_t token, unsigned interest,
          enum engine_trigger trigger)
{
    calls.add_count++;
    return fake_engine.add(engine, fd, token, interest, trigger);
}

static inline int
count_modify(struct engine *engine, int fd, uint64_t token, unsigned interest,
             enum engine_trigger trigger)
{
    calls.modify_count++;
    return fake_engine.modify(engine, fd, token, interest, trigger);
}

static inline int
count_remove(struct engine *engine, int fd)
{
    calls.remove_count++;
    return fake_engine.remove(engine, fd);
}

static inline int
count_wait(struct engine *engine, struct engine_event *events, int capacity,
           int64_t timeout_ns)
{
    calls.wait_count++;
    if (calls.forced_wait_status != 0) {
        return calls.forced_wait_status;
    }
    return fake_engine.wait(engine, events, capacity, timeout_ns);
}

static struct reactor reactor;
static struct engine_operations counting;
static int owners[4]; // their addresses are owners

static inline void
set_up(void)
{
    counting = fake_engine;
    counting.now_ns = count_clock;
    counting.add = count_add;
    counting.modify = count_modify;
    counting.remove = count_remove;
    counting.wait = count_wait;
    REQUIRE(reactor_open(&reactor, &counting) == 0);
    memset(&calls, 0, sizeof(calls));
}

// In hard mode the next poll tells again what has been taken. Where a test counts events, it
// does not.
static inline void
forget_echo(void)
{
    reactor.echo.count = 0;
}

static inline void
tear_down(void)
{
    CHECK(timer_wheel_is_consistent(&reactor.timers));
    CHECK(watch_table_is_consistent(&reactor.watches));
    reactor_close(&reactor);
}

static inline void
turn(int64_t limit_ns)
{
    forget_echo();
    CHECK(reactor_poll(&reactor, reactor_wait_limit(&reactor, limit_ns)) >= 0);
    reactor_settle(&reactor);
}

static inline uint64_t
now(void)
{
    return fake_engine.now_ns(reactor.engine);
}

static inline void
make_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    REQUIRE(io_set_nonblocking(pair[0], true) == 0);
}

static inline void
close_pair(const int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

// The only event there is must be of [owner]; what is ready.
static inline unsigned
take_only_event(const void *owner)
{
    unsigned ready = 0;
    unsigned unused;
    CHECK_POINTER(reactor_take_event(&reactor, &ready), owner);
    CHECK_POINTER(reactor_take_event(&reactor, &unused), NULL);
    forget_echo();
    return ready;
}

// Runs turns until [timer] is due, and checks that it is the first whole millisecond at
// or after [deadline_ns].
static inline void
check_due_at(const struct timer *timer, uint64_t deadline_ns)
{
    struct timer *due = NULL;
    // A turn for each level of the wheel at most, and one for the timer itself.
    for (unsigned i = 0; i < WHEEL_LEVELS + 2 && due == NULL; i++) {
        turn(-1);
        due = reactor_take_due(&reactor);
    }
    CHECK_POINTER(due, timer);
    CHECK(now() >= deadline_ns);
    CHECK(now() - deadline_ns < MS);
    CHECK_POINTER(reactor_take_due(&reactor), NULL);
}

#endif
