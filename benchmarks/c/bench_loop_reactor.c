// bench_loop_reactor.c: the parts of the reactor of this project, as the hub drives it.

#include "bench_loop.h"
#include "reactor.h"

#include <stddef.h>

struct indexed_timer {
    struct timer timer; // first: the wheel gives us its address
    int index;
};

static struct reactor reactor;
static struct indexed_timer *timers;
static bool is_asked_to_wake;

void
loop_open(int timer_count)
{
    if (reactor_open(&reactor, engine_find(NULL)) < 0) {
        die("reactor_open");
    }
    timers = allocate_records(timer_count, sizeof *timers);
    for (int i = 0; i < timer_count; i++) {
        timer_init(&timers[i].timer, NULL);
        timers[i].index = i;
    }
}

void
loop_turn(bool waits)
{
    // While a hub computes, nobody has to wake it: wake-ups of that time are seen here.
    bool was_asked = __atomic_exchange_n(&is_asked_to_wake, false, __ATOMIC_ACQ_REL);
    int64_t limit_ns = reactor_wait_limit(&reactor, waits && !was_asked ? -1 : 0);
    if (reactor_poll(&reactor, limit_ns) < 0) {
        die("reactor_poll");
    }
    reactor_settle(&reactor);
    if (was_asked || __atomic_exchange_n(&is_asked_to_wake, false, __ATOMIC_ACQ_REL)) {
        loop_woke();
    }
    unsigned ready;
    while (reactor_take_event(&reactor, &ready) != NULL) {
    }
    struct timer *timer;
    while ((timer = reactor_take_due(&reactor)) != NULL) {
        timer_expired(((struct indexed_timer *)timer)->index);
    }
}

void
loop_wake(void)
{
    __atomic_store_n(&is_asked_to_wake, true, __ATOMIC_RELEASE);
    if (reactor.operations->wake(reactor.engine) < 0) {
        die("wake");
    }
}

void
loop_watch(int fd)
{
    if (reactor_claim(&reactor, fd, &reactor) < 0 ||
        reactor_register(&reactor, fd, EVENT_READ, ENGINE_EDGE) < 0) {
        die("reactor_register");
    }
}

void
loop_unwatch(int fd)
{
    reactor_release(&reactor, fd);
}

void
loop_arm(int index, uint64_t delay_ms)
{
    reactor_arm(&reactor, &timers[index].timer, delay_ms * 1000000);
}

void
loop_cancel(int index)
{
    timer_wheel_disarm(&reactor.timers, &timers[index].timer);
}

void
loop_close(void)
{
    reactor_close(&reactor);
    free(timers);
}
