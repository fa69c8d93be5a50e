// chained_pipes_reactor.c: the chained pipes on the reactor of this project.
//
// As the hub drives it: an owner begins with the function that takes its events, and a
// turn looks for due timers too. Its usual manner is by edges, as for connections.

#include "chained_pipes.h"
#include "reactor.h"

struct owner {
    void (*on_ready)(struct owner *owner, unsigned ready);
    int index;
};

const char *const loop_other_manner = "level";

static struct reactor reactor;
static struct owner *owners;
static const int *fds;
static enum engine_trigger trigger;

static void
handle_ready(struct owner *owner, unsigned ready)
{
    (void)ready;
    pipe_is_readable(owner->index);
}

void
loop_open(int count, const int *read_ends, bool is_usual)
{
    trigger = is_usual ? ENGINE_EDGE : ENGINE_LEVEL;
    fds = read_ends;
    owners = allocate_records(count, sizeof *owners);
    if (reactor_open(&reactor, engine_find(NULL)) < 0) {
        die("reactor_open");
    }
    for (int i = 0; i < count; i++) {
        owners[i] = (struct owner){.on_ready = handle_ready, .index = i};
        if (reactor_claim(&reactor, fds[i], &owners[i]) < 0) {
            die("reactor_claim");
        }
    }
}

void
loop_watch(int index)
{
    if (reactor_register(&reactor, fds[index], EVENT_READ, trigger) < 0) {
        die("reactor_register");
    }
}

void
loop_unwatch(int index)
{
    if (reactor_register(&reactor, fds[index], 0, trigger) < 0) {
        die("reactor_register");
    }
}

void
loop_turn(void)
{
    if (reactor_poll(&reactor, 0) < 0) {
        die("reactor_poll");
    }
    reactor_settle(&reactor);
    unsigned ready;
    struct owner *owner;
    while ((owner = reactor_take_event(&reactor, &ready)) != NULL) {
        owner->on_ready(owner, ready);
    }
    while (reactor_take_due(&reactor) != NULL) {
    }
}

void
loop_close(void)
{
    reactor_close(&reactor);
    free(owners);
}
