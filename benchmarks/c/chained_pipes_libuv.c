// chained_pipes_libuv.c: the chained pipes on libuv's poll handles. They watch by level
// only.

// uv.h wants the read-write locks of POSIX, which -std=c11 hides.
#define _GNU_SOURCE
#include "chained_pipes.h"

#include <uv.h>

struct pipe_watcher {
    uv_poll_t poll; // first: libuv gives us its address
    int index;
};

const char *const loop_other_manner = "";

static uv_loop_t loop;
static struct pipe_watcher *watchers;
static int watcher_count;

static void
handle_ready(uv_poll_t *poll, int status, int what)
{
    (void)status;
    (void)what;
    pipe_is_readable(((struct pipe_watcher *)poll)->index);
}

void
loop_open(int count, const int *read_ends, bool is_usual)
{
    (void)is_usual;
    if (uv_loop_init(&loop) < 0) {
        die("uv_loop_init");
    }
    watchers = allocate_records(count, sizeof *watchers);
    watcher_count = count;
    for (int i = 0; i < count; i++) {
        if (uv_poll_init(&loop, &watchers[i].poll, read_ends[i]) < 0) {
            die("uv_poll_init");
        }
        watchers[i].index = i;
    }
}

void
loop_watch(int index)
{
    if (uv_poll_start(&watchers[index].poll, UV_READABLE, handle_ready) < 0) {
        die("uv_poll_start");
    }
}

void
loop_unwatch(int index)
{
    if (uv_poll_stop(&watchers[index].poll) < 0) {
        die("uv_poll_stop");
    }
}

void
loop_turn(void)
{
    uv_run(&loop, UV_RUN_NOWAIT);
}

void
loop_close(void)
{
    for (int i = 0; i < watcher_count; i++) {
        uv_close((uv_handle_t *)&watchers[i].poll, NULL);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) < 0) {
        die("uv_loop_close");
    }
    free(watchers);
}
