// bench_loop_libev.c: the parts of libev.

#include "bench_loop.h"

#include <ev.h>

struct indexed_timer {
    ev_timer timer; // first: libev gives us its address
    int index;
};

static struct ev_loop *loop;
static struct indexed_timer *timers;
static ev_async wake_watcher;
static ev_io watch_watcher;

static void
handle_timer(struct ev_loop *the_loop, ev_timer *timer, int what)
{
    (void)the_loop;
    (void)what;
    timer_expired(((struct indexed_timer *)timer)->index);
}

static void
handle_wake(struct ev_loop *the_loop, ev_async *watcher, int what)
{
    (void)the_loop;
    (void)watcher;
    (void)what;
    loop_woke();
}

static void
handle_ready(struct ev_loop *the_loop, ev_io *watcher, int what)
{
    (void)the_loop;
    (void)watcher;
    (void)what;
}

void
loop_open(int timer_count)
{
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (loop == NULL) {
        die("ev_loop_new");
    }
    timers = allocate_records(timer_count, sizeof *timers);
    for (int i = 0; i < timer_count; i++) {
        ev_timer_init(&timers[i].timer, handle_timer, 0., 0.);
        timers[i].index = i;
    }
    ev_async_init(&wake_watcher, handle_wake);
    ev_async_start(loop, &wake_watcher);
}

void
loop_turn(bool waits)
{
    ev_run(loop, waits ? EVRUN_ONCE : EVRUN_NOWAIT);
}

void
loop_wake(void)
{
    ev_async_send(loop, &wake_watcher);
}

void
loop_watch(int fd)
{
    ev_io_init(&watch_watcher, handle_ready, fd, EV_READ);
    ev_io_start(loop, &watch_watcher);
}

void
loop_unwatch(int fd)
{
    (void)fd;
    ev_io_stop(loop, &watch_watcher);
}

void
loop_arm(int index, uint64_t delay_ms)
{
    ev_timer *timer = &timers[index].timer;
    ev_timer_stop(loop, timer);
    ev_timer_set(timer, (double)delay_ms / 1e3, 0.);
    ev_timer_start(loop, timer);
}

void
loop_cancel(int index)
{
    ev_timer_stop(loop, &timers[index].timer);
}

void
loop_close(void)
{
    ev_loop_destroy(loop);
    free(timers);
}
