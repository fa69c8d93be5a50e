// py_callbacks_idle.c: the idle timeouts of the two directions, for callbacks.
//
// What set_timeouts() asks for; settimeout(), which counts both directions together, has a
// timer of its own in the record. A direction's timer is armed only while something could
// come or go. Invariant: idle_review() is called after whatever may change that, and is right
// whatever was before.

#include <stdlib.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_valve.h"

// One direction's.
struct idle_timer {
    struct timer timer;
    struct callbacks *callbacks; // borrowed; whose it is
    bool is_due;                 // the time has passed, and nobody was told yet
};

static int64_t
limit_ns(const struct callbacks *self, enum flow_direction direction)
{
    return conn_options_of(self->conn)->timeout_ns[direction];
}

// Whether something could move now, and does not for want of the peer.
static bool
may_be_idle(const struct callbacks *self, enum flow_direction direction)
{
    const SkConnObject *conn = self->conn;
    if (!callbacks_is_current(self) || limit_ns(self, direction) <= 0 ||
        callbacks_is_acceptor(self)) {
        return false;
    }
    if (direction == FLOW_OUT && valve_is_connecting(conn)) {
        return true;
    }
    return conn_flows(conn, direction) &&
           (direction == FLOW_IN ? !self->has_ended && !self->is_paused
                                 : conn_has_output(conn));
}

static void
start(struct callbacks *self, enum flow_direction direction)
{
    struct idle_timer *idle = &self->idle[direction];
    idle->is_due = false;
    reactor_arm(&self->conn->hub->reactor, &idle->timer,
                (uint64_t)limit_ns(self, direction));
}

static void
stop(struct callbacks *self, enum flow_direction direction)
{
    self->idle[direction].is_due = false;
    timer_wheel_disarm(&self->conn->hub->reactor.timers, &self->idle[direction].timer);
}

static void
review(struct callbacks *self, enum flow_direction direction)
{
    const struct idle_timer *idle = &self->idle[direction];
    if (!may_be_idle(self, direction)) {
        stop(self, direction);
    }
    else if (!timer_is_armed(&idle->timer) && !idle->is_due) {
        start(self, direction);
    }
}

void
idle_review(struct callbacks *self)
{
    if (self->idle != NULL) {
        review(self, FLOW_IN);
        review(self, FLOW_OUT);
    }
}

void
idle_note_progress(struct callbacks *self, enum flow_direction direction)
{
    if (self->idle != NULL) {
        stop(self, direction);
        review(self, direction);
    }
}

bool
idle_take_due(struct callbacks *self, enum flow_direction direction)
{
    if (self->idle == NULL || !self->idle[direction].is_due ||
        !may_be_idle(self, direction)) {
        return false;
    }
    start(self, direction);
    return true;
}

static void
time_out(struct timer *timer)
{
    struct idle_timer *idle = CONTAINER_OF(timer, struct idle_timer, timer);
    idle->is_due = true;
    callbacks_notice(idle->callbacks->conn);
}

int
callbacks_set_idle_timeouts(struct callbacks *self)
{
    if (self->idle == NULL &&
        (limit_ns(self, FLOW_IN) > 0 || limit_ns(self, FLOW_OUT) > 0)) {
        self->idle = calloc(2, sizeof(*self->idle));
        if (self->idle == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (int direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
            self->idle[direction].callbacks = self;
            timer_init(&self->idle[direction].timer, time_out);
        }
    }
    idle_note_progress(self, FLOW_IN); // the time has changed: it begins now
    idle_note_progress(self, FLOW_OUT);
    return 0;
}

void
idle_free(struct callbacks *self)
{
    if (self->idle != NULL) {
        struct timer_wheel *wheel = &self->conn->hub->reactor.timers;
        timer_wheel_unlink(wheel, &self->idle[FLOW_IN].timer);
        timer_wheel_unlink(wheel, &self->idle[FLOW_OUT].timer);
        free(self->idle);
        self->idle = NULL;
    }
}
