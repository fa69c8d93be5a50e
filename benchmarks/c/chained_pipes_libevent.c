// chained_pipes_libevent.c: the chained pipes on libevent 2.
//
// Its usual manner is the one its own benchmark uses: persistent events, by level. The
// other asks it for all it has: by edges, and changes collected until the next turn.

#include "chained_pipes.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdint.h>

const char *const loop_other_manner = "edge";

static struct event_base *base;
static struct event *events;

static void
handle_ready(evutil_socket_t fd, short what, void *index)
{
    (void)fd;
    (void)what;
    pipe_is_readable((int)(intptr_t)index);
}

static struct event_base *
make_base(bool is_usual)
{
    struct event_config *config = event_config_new();
    if (config == NULL ||
        (!is_usual &&
         event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) < 0)) {
        return NULL;
    }
    struct event_base *made = event_base_new_with_config(config);
    event_config_free(config);
    return made;
}

void
loop_open(int count, const int *read_ends, bool is_usual)
{
    short what = (short)(EV_READ | EV_PERSIST | (is_usual ? 0 : EV_ET));
    events = allocate_records(count, sizeof *events);
    base = make_base(is_usual);
    if (base == NULL) {
        die("event_base_new_with_config");
    }
    for (int i = 0; i < count; i++) {
        if (event_assign(&events[i], base, read_ends[i], what, handle_ready,
                         (void *)(intptr_t)i) < 0) {
            die("event_assign");
        }
    }
}

void
loop_watch(int index)
{
    if (event_add(&events[index], NULL) < 0) {
        die("event_add");
    }
}

void
loop_unwatch(int index)
{
    if (event_del(&events[index]) < 0) {
        die("event_del");
    }
}

void
loop_turn(void)
{
    if (event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK) < 0) {
        die("event_base_loop");
    }
}

void
loop_close(void)
{
    event_base_free(base);
    free(events);
}
