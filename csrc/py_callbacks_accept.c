// py_callbacks_accept.c: accepting for callbacks.
//
// A listener with callbacks gives each connection that it accepts callbacks of its own: those
// of the protocol that all share, or of what its factory makes for this one. Invariants:
//   1. A listener is watched by level, so that what a round leaves in its queue is reported
//      again: nothing has to be remembered.
//   2. Where accepting fails again at once it is not watched for a while, and nothing is lost:
//      the connections stay queued.
//   3. on_open() of what was accepted may close the listener: that is asked after each.

#include "py_callbacks.h"

#include <errno.h>

#include "py_convert.h"
#include "py_valve.h"

// So many connections a listener accepts before others get a turn.
#define ACCEPT_LIMIT HARD_OR_USUAL(1, 64)

// How long a listener rests while the system is short of descriptors or memory.
#define SHORTAGE_PAUSE_NS INT64_C(100000000)

static bool
is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

// While the system is short of something the connections stay queued.
static void
rest(struct callbacks *self)
{
    self->is_paused = true;
    conn_register(self->conn); // which watches it no more until then
    reactor_arm(&self->conn->hub->reactor, &self->timer, (uint64_t)SHORTAGE_PAUSE_NS);
}

// Tells what accepting failed with: -errno, or 1 for the exception that is set.
static void
tell_of_failure(struct callbacks *self, int error)
{
    SkConnObject *conn = self->conn;
    if (error < 0) {
        conn_raise(conn, error);
    }
    if (self->on_accept_error == NULL) {
        report_exception((PyObject *)conn);
        return;
    }
    PyObject *function = Py_NewRef(self->on_accept_error); // it may be replaced
    PyObject *exception = take_exception();
    PyObject *arguments[] = {NULL, (PyObject *)conn, exception};
    PyObject *result = PyObject_Vectorcall(function, arguments + 1,
                                           2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL) {
        hub_take_exception(conn->hub, function);
    }
    Py_XDECREF(result);
    Py_DECREF(exception);
    Py_DECREF(function);
}

// Gives a new connection its callbacks and tells them. On failure it is closed.
static void
welcome(struct callbacks *self, SkConnObject *accepted)
{
    PyObject *protocol = self->is_factory ? protocol_make(self->conn->hub, self->protocol)
                                          : Py_NewRef(self->protocol);
    if (protocol == NULL || callbacks_attach(accepted, protocol, NULL, false, true) < 0) {
        hub_take_exception(self->conn->hub, self->protocol);
        Py_XDECREF(protocol);
        conn_abort(accepted);
        return;
    }
    Py_DECREF(protocol);
    struct callbacks *its = accepted->callbacks;
    its->is_running = true;
    callbacks_call(its, self->conn->hub->state->on_open, NULL);
    its->is_running = false;
    if (its->is_dropped) {
        callbacks_free(its);
    }
}

void
callbacks_accept(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    if (self->is_paused) {
        return;
    }
    int error = conn_register(conn); // it may have rested
    for (int i = 0; i < ACCEPT_LIMIT && error == 0 && callbacks_is_current(self) &&
                    conn_flows(conn, FLOW_IN);
         i++) {
        SkConnObject *accepted;
        error = conn_accept_now(conn, &accepted);
        if (accepted != NULL) {
            welcome(self, accepted);
            Py_DECREF(accepted);
        }
    }
    if (!callbacks_is_current(self) || error == 0 || error == -EAGAIN) {
        return; // what is left is reported by the next poll
    }
    bool may_recover = error > 0 || is_shortage(error);
    if (may_recover) {
        rest(self);
    }
    if (self->on_accept_error != NULL || !is_shortage(error)) {
        tell_of_failure(self, error);
    }
    if (!may_recover && callbacks_is_current(self)) {
        callbacks_close_conn(conn);
    }
}
