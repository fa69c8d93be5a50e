// chained_pipes_libev.c: the chained pipes on libev. It watches by level only.

#include "chained_pipes.h"

#include <ev.h>
#include <stddef.h>

struct pipe_watcher {
    ev_io io; // first: libev gives us its address
    int index;
};

const char *const loop_other_manner = "";

static struct ev_loop *loop;
static struct pipe_watcher *watchers;

static void
handle_ready(struct ev_loop *the_loop, ev_io *io, int what)
{
    (void)the_loop;
    (void)what;
    pipe_is_readable(((struct pipe_watcher *)io)->index);
}

void
loop_open(int count, const int *read_ends, bool is_usual)
{
    (void)is_usual;
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (loop == NULL) {
        die("ev_loop_new");
    }
    watchers = allocate_records(count, sizeof *watchers);
    for (int i = 0; i < count; i++) {
        ev_io_init(&watchers[i].io, handle_ready, read_ends[i], EV_READ);
        watchers[i].index = i;
    }
}

void
loop_watch(int index)
{
    ev_io_start(loop, &watchers[index].io);
}

void
loop_unwatch(int index)
{
    ev_io_stop(loop, &watchers[index].io);
}

void
loop_turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
}

void
loop_close(void)
{
    ev_loop_destroy(loop);
    free(watchers);
}
