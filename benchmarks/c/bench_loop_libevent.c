// bench_loop_libevent.c: the parts of libevent 2.

#include "bench_loop.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>

static struct event_base *base;
static struct event *timers;
static struct event wake_event;
static struct event watch_event;

static void
handle_timer(evutil_socket_t fd, short what, void *index)
{
    (void)fd;
    (void)what;
    timer_expired((int)(intptr_t)index);
}

static void
handle_wake(evutil_socket_t fd, short what, void *nothing)
{
    (void)fd;
    (void)what;
    (void)nothing;
    loop_woke();
}

static void
handle_ready(evutil_socket_t fd, short what, void *nothing)
{
    (void)fd;
    (void)what;
    (void)nothing;
}

void
loop_open(int timer_count)
{
    if (evthread_use_pthreads() < 0 || (base = event_base_new()) == NULL) {
        die("event_base_new");
    }
    timers = allocate_records(timer_count, sizeof *timers);
    for (int i = 0; i < timer_count; i++) {
        event_assign(&timers[i], base, -1, 0, handle_timer, (void *)(intptr_t)i);
    }
    event_assign(&wake_event, base, -1, EV_PERSIST, handle_wake, NULL);
}

void
loop_turn(bool waits)
{
    int flags = waits ? EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY : EVLOOP_NONBLOCK;
    if (event_base_loop(base, flags) < 0) {
        die("event_base_loop");
    }
}

void
loop_wake(void)
{
    event_active(&wake_event, EV_READ, 0);
}

void
loop_watch(int fd)
{
    event_assign(&watch_event, base, fd, EV_READ | EV_PERSIST, handle_ready, NULL);
    if (event_add(&watch_event, NULL) < 0) {
        die("event_add");
    }
}

void
loop_unwatch(int fd)
{
    (void)fd;
    if (event_del(&watch_event) < 0) {
        die("event_del");
    }
}

void
loop_arm(int index, uint64_t delay_ms)
{
    struct timeval delay = {.tv_sec = (time_t)(delay_ms / 1000),
                            .tv_usec = (suseconds_t)(delay_ms % 1000 * 1000)};
    if (event_add(&timers[index], &delay) < 0) {
        die("event_add");
    }
}

void
loop_cancel(int index)
{
    if (event_del(&timers[index]) < 0) {
        die("event_del");
    }
}

void
loop_close(void)
{
    event_base_free(base);
    free(timers);
}
