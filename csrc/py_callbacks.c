// py_callbacks.c: the life of the callbacks of a connection, and the events they get.
//
// Events only set flags and queue the record's hub call, which py_callbacks_serve.c runs.
// Invariants:
//   1. The record lives until its on_close() has returned, or it was dropped and does not
//      run; it owns a reference to its connection all that time.
//   2. While it is on a connection, the connection counts as a wait for the kernel: Hub.run()
//      goes on, and nobody is deadlocked.
//   3. An idle timer is moved by each event without looking at the clock.
//
// Not here: who may set callbacks, and which methods they need (py_protocol.c).

#include "py_callbacks.h"

#include <stdlib.h>

#include "py_convert.h"
#include "py_layer.h"
#include "py_valve.h"

static void time_out(struct timer *timer);

// --- Life -------------------------------------------------------------------------------

void
callbacks_arm_timer(struct callbacks *self)
{
    // 0 bounds a wait to none at all; nothing can be that idle.
    if (self->conn->timeout_ns > 0 && !callbacks_is_acceptor(self)) {
        reactor_arm(&self->conn->hub->reactor, &self->timer,
                    (uint64_t)self->conn->timeout_ns);
    }
}

// The same without looking at the clock, for it has been read in this turn: the timer is
// armed. Mostly a store. That of a listener is its rest, which nothing cuts short.
static void
move_idle_timer(struct callbacks *self)
{
    struct reactor *reactor = &self->conn->hub->reactor;
    if (timer_is_armed(&self->timer) && !callbacks_is_acceptor(self)) {
        reactor_arm_at(reactor, &self->timer,
                       reactor->now_ns + (uint64_t)self->conn->timeout_ns);
    }
}

// Has the engine watch for what the callbacks want to hear of. 0 or -errno.
static int
watch(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    struct reactor *reactor = &conn->hub->reactor;
    bool was_registered = reactor_is_registered(reactor, conn->fd);
    int error = conn_register(conn);
    if (error < 0 || callbacks_is_acceptor(self)) {
        return error;
    }
    // What is ready when it is registered is reported; an edge that has been is not.
    self->has_news = line_buffer_length(&conn->input) > 0 ||
                     (was_registered && callbacks_receives_itself(self));
    self->has_hung_up =
        was_registered && conn->reads_to_the_end; // or not: it is looked at
    conn->may_read = was_registered || callbacks_receives_itself(self);
    if (was_registered || self->has_news || transport_has_ended(conn)) {
        callbacks_notice(conn);
    }
    return 0;
}

// The function that the protocol's class has for on_data(). Finding it again for each piece
// of data would cost as much as receiving it does.
static PyObject *
find_function(PyObject *protocol, PyObject *name)
{
    PyObject *method = PyObject_GetAttr(protocol, name);
    PyObject *function = NULL;
    if (method != NULL && PyMethod_Check(method) &&
        PyMethod_GET_SELF(method) == protocol) {
        function = Py_NewRef(PyMethod_GET_FUNCTION(method));
    }
    Py_XDECREF(method);
    PyErr_Clear(); // the call will tell; and a factory need not have it
    return function;
}

void
callbacks_set_protocol(struct callbacks *self, PyObject *protocol,
                       PyObject *on_accept_error)
{
    PyObject *function = find_function(protocol, self->conn->hub->state->on_data);
    // What goes here may run code: not before all is in place.
    PyObject *old_protocol = self->protocol;
    PyObject *old_function = self->on_data;
    PyObject *old_error_function = self->on_accept_error;
    self->protocol = Py_NewRef(protocol);
    self->on_data = function;
    self->on_accept_error = Py_XNewRef(on_accept_error);
    Py_XDECREF(old_protocol);
    Py_XDECREF(old_function);
    Py_XDECREF(old_error_function);
}

// What is left when the hub is gone is closed already, and its on_close() will not come. In
// a forked child connections are abandoned one by one.
static void
drop_call(struct hub_call *call, bool is_forked)
{
    if (!is_forked) {
        callbacks_forget(CONTAINER_OF(call, struct callbacks, call)->conn);
    }
}

int
callbacks_attach(SkConnObject *conn, PyObject *protocol, PyObject *on_accept_error,
                 bool is_factory, bool receives)
{
    struct callbacks *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    hub_call_init(&self->call, callbacks_serve, drop_call);
    self->call.priority = conn->priority;
    self->conn = conn;
    timer_init(&self->timer, time_out);
    self->unread = -1;
    self->receives = receives;
    self->is_factory = is_factory;
    conn->callbacks = self;
    LIVE_COUNT(LIVE_CALLBACKS, 1);
    int error = watch(self);
    if (error < 0) {
        conn->callbacks = NULL;
        list_remove(&self->call.link);
        LIVE_COUNT(LIVE_CALLBACKS, -1);
        free(self);
        conn_raise(conn, error);
        return -1;
    }
    Py_INCREF(conn);
    callbacks_set_protocol(self, protocol, on_accept_error);
    conn->hub->callback_count++;
    conn->hub->kernel_wait_count++;
    callbacks_arm_timer(self);
    if (conn->options != NULL && callbacks_set_idle_timeouts(self) < 0) {
        callbacks_forget(conn);
        return -1;
    }
    return 0;
}

void
callbacks_free(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    PyObject *protocol = self->protocol;
    PyObject *on_data = self->on_data;
    PyObject *on_accept_error = self->on_accept_error;
    LIVE_COUNT(LIVE_CALLBACKS, -1);
    free(self);
    // Last, for what goes here may run code.
    Py_DECREF(protocol);
    Py_XDECREF(on_data);
    Py_XDECREF(on_accept_error);
    Py_DECREF(conn);
}

void
callbacks_detach(struct callbacks *self)
{
    HubObject *hub = self->conn->hub;
    self->conn->callbacks = NULL;
    if (self->conn->valve != NULL && self->conn->valve->is_unconnected) {
        valve_end_connect(self->conn);
    }
    list_remove(&self->call.link);
    timer_wheel_unlink(&hub->reactor.timers, &self->timer);
    idle_free(self);
    hub->callback_count--;
    hub->kernel_wait_count--;
    if (hub->callback_count == 0) {
        hub_note_end(hub);
    }
}

void
callbacks_drop(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    callbacks_detach(self);
    if (self->is_running) {
        self->is_dropped = true;
    }
    else {
        callbacks_free(self);
    }
}

void
callbacks_abandon(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    callbacks_detach(self);
    // Nothing is released: a destructor, or the warning of a connection left open, would be
    // the parent's business. One that forked in its own callback goes when that returns.
    self->is_dropped = self->is_running;
}

void
callbacks_forget(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    callbacks_detach(self);
    callbacks_free(self);
}

// --- Events -----------------------------------------------------------------------------

void
callbacks_notice(SkConnObject *conn)
{
    hub_queue_call(conn->hub, &conn->callbacks->call);
}

void
callbacks_note_input(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    self->has_news |= line_buffer_length(&conn->input) > 0;
    if (self->has_news || transport_has_ended(conn)) {
        callbacks_notice(conn);
    }
}

void
callbacks_note_taken(struct callbacks *self, size_t held)
{
    size_t left = line_buffer_length(&self->conn->input);
    if (left >= held) {
        return;
    }
    // What a layer gave past the high mark is told of again, as if it came bit by bit: no
    // more is received yet that would have it told.
    self->has_news |= left >= conn_options_of(self->conn)->high_mark[FLOW_IN];
    if (self->is_paused) {
        callbacks_notice(self->conn);
    }
}

bool
callbacks_readable(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    const unsigned ends = EVENT_ERROR | EVENT_HANGUP | EVENT_READ_HANGUP;
    if (callbacks_is_acceptor(self)) {
        hub_queue_call(conn->hub, &self->call); // its timer is for its rests
        return true;
    }
    self->has_hung_up |= (conn->revents & ends) != 0;
    self->has_news |= callbacks_receives_itself(self);
    move_idle_timer(self);
    idle_note_progress(self, FLOW_IN);
    hub_queue_call(conn->hub, &self->call);
    return true;
}

bool
callbacks_sent(SkConnObject *conn, bool has_progressed)
{
    struct callbacks *self = conn->callbacks;
    if (conn->is_closed) {
        return false;
    }
    if (has_progressed) {
        move_idle_timer(self);
        idle_note_progress(self, FLOW_OUT);
    }
    else {
        idle_review(self);
    }
    if (conn_unsent(conn) > conn_options_of(conn)->low_mark[FLOW_OUT]) {
        self->is_behind = true;
        return false;
    }
    bool was_behind = self->is_behind;
    self->is_behind = conn_has_output(conn);
    if (!was_behind && !self->is_paused) {
        return false;
    }
    // What layers say on their own may have paused the reading, too.
    self->is_ready |= was_behind && (has_progressed || !self->is_behind);
    hub_queue_call(conn->hub, &self->call);
    return true;
}

void
callbacks_note_marks(SkConnObject *conn, uint64_t old_read_low)
{
    struct callbacks *self = conn->callbacks;
    size_t held = line_buffer_length(&conn->input);
    // Bytes that were too few are enough now. Reading goes on by itself if it may.
    self->has_news |= held > 0 && held < old_read_low;
    callbacks_notice(conn);
}

static void
time_out(struct timer *timer)
{
    struct callbacks *self = CONTAINER_OF(timer, struct callbacks, timer);
    if (callbacks_is_acceptor(self)) {
        self->is_paused = false;
    }
    else {
        self->is_late = true;
    }
    hub_queue_call(self->conn->hub, &self->call);
}

void
callbacks_set_timeout(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    if (!callbacks_is_acceptor(self)) {
        self->is_late = false;
        timer_wheel_disarm(&conn->hub->reactor.timers, &self->timer);
        callbacks_arm_timer(self);
    }
}

void
callbacks_stop(SkConnObject *conn)
{
    struct callbacks *self = conn->callbacks;
    if (conn->hub->fresh_conn == conn) {
        conn->hub->fresh_conn = NULL;
    }
    timer_wheel_disarm(&conn->hub->reactor.timers, &self->timer);
    idle_review(self);
}

int
callbacks_begin(SkConnObject *conn, const char *direction)
{
    if (direction[0] != 'r') {
        return 0;
    }
    if (!conn->hub->is_serving) {
        PyErr_SetString(conn->hub->state->BusyError,
                        "callbacks are reading this connection already; "
                        "set_callbacks(None) ends that");
        return -1;
    }
    if (conn->callbacks->is_paused) {
        callbacks_notice(conn); // there may be room after this
    }
    return conn_keep_fresh(conn);
}

// --- Ending -----------------------------------------------------------------------------

void
callbacks_shut_down(HubObject *hub)
{
    for (struct list_node *node = hub->connections.next; node != &hub->connections;
         node = node->next) {
        SkConnObject *conn = CONTAINER_OF(node, SkConnObject, hub_link);
        if (conn->callbacks != NULL && !conn->is_closed) {
            conn->callbacks->must_close = true;
            callbacks_notice(conn);
        }
    }
}

void
callbacks_abort_all(HubObject *hub)
{
    struct list_node *node = hub->connections.next;
    while (node != &hub->connections) {
        SkConnObject *conn = CONTAINER_OF(node, SkConnObject, hub_link);
        bool has_layers = conn->transport != NULL;
        node = node->next; // the record keeps the connection
        if (conn->callbacks != NULL) {
            conn_abort(conn);
            if (has_layers) {
                node = hub->connections.next; // on_clear() may have closed others
            }
        }
    }
}
