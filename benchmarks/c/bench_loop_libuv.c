// bench_loop_libuv.c: the parts of libuv.

// uv.h wants the read-write locks of POSIX, which -std=c11 hides.
#define _GNU_SOURCE
#include "bench_loop.h"

#include <uv.h>

struct indexed_timer {
    uv_timer_t timer; // first: libuv gives us its address
    int index;
};

static uv_loop_t loop;
static struct indexed_timer *timers;
static uv_async_t wake_handle;
static uv_poll_t watch_handle;
static int watched_fd;

static void
handle_timer(uv_timer_t *timer)
{
    timer_expired(((struct indexed_timer *)timer)->index);
}

static void
handle_wake(uv_async_t *handle)
{
    (void)handle;
    loop_woke();
}

static void
handle_ready(uv_poll_t *handle, int status, int what)
{
    (void)handle;
    (void)status;
    (void)what;
}

void
loop_open(int timer_count)
{
    if (uv_loop_init(&loop) < 0 || uv_async_init(&loop, &wake_handle, handle_wake) < 0) {
        die("uv_loop_init");
    }
    timers = allocate_records(timer_count, sizeof *timers);
    for (int i = 0; i < timer_count; i++) {
        uv_timer_init(&loop, &timers[i].timer);
        timers[i].index = i;
    }
    watched_fd = -1;
}

void
loop_turn(bool waits)
{
    uv_run(&loop, waits ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void
loop_wake(void)
{
    uv_async_send(&wake_handle);
}

void
loop_watch(int fd)
{
    // Its handle is made once for a descriptor, as a connection's is.
    if (fd != watched_fd && uv_poll_init(&loop, &watch_handle, fd) < 0) {
        die("uv_poll_init");
    }
    watched_fd = fd;
    if (uv_poll_start(&watch_handle, UV_READABLE, handle_ready) < 0) {
        die("uv_poll_start");
    }
}

void
loop_unwatch(int fd)
{
    (void)fd;
    uv_poll_stop(&watch_handle);
}

void
loop_arm(int index, uint64_t delay_ms)
{
    if (uv_timer_start(&timers[index].timer, handle_timer, delay_ms, 0) < 0) {
        die("uv_timer_start");
    }
}

void
loop_cancel(int index)
{
    uv_timer_stop(&timers[index].timer);
}

static void
close_handle(uv_handle_t *handle, void *nothing)
{
    (void)nothing;
    uv_close(handle, NULL);
}

void
loop_close(void)
{
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) < 0) {
        die("uv_loop_close");
    }
    free(timers);
}
