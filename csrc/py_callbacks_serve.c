// py_callbacks_serve.c: what is called when, on connections that have callbacks.
//
// callbacks_serve() runs in the hub greenlet when something has happened to a connection, and
// calls the user's methods one after the other. Invariants:
//   1. A user's method may do anything to its connection: close it, give it other callbacks,
//      none at all. So callbacks_is_current() is asked again after each of them.
//   2. on_close() is called from one place, when the descriptor has gone, whatever the reason.
//   3. Reading stops while too much input or output is held, and goes on by an event or by a
//      call that takes some: memory is bounded, and nothing is asked in a loop.

#include "py_callbacks.h"

#include <errno.h>
#include <sys/ioctl.h>

#include "py_convert.h"
#include "py_layer.h"
#include "py_valve.h"

// How often one connection may receive before others get a turn.
#define RECEIVE_LIMIT HARD_OR_USUAL(1, 4)

// --- Calling ----------------------------------------------------------------------------

static void fail(struct callbacks *self, PyObject *exception, unsigned direction);

// What a method raised: reported, and the connection's end. One that ends the program is
// the main program's to deal with; of a line that is too long on_error() alone is told.
static void
take_method_exception(struct callbacks *self, PyObject *protocol, PyObject *name)
{
    bool ends_program = PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
                        PyErr_ExceptionMatches(PyExc_SystemExit);
    bool is_peers = PyErr_ExceptionMatches(self->conn->hub->state->LineTooLongError);
    PyObject *exception = take_exception();
    if (self->conn->transport != NULL && self->conn->transport->failure == exception) {
        Py_DECREF(exception); // a layer's: nothing is wrong with the method
        return;
    }
    if (is_peers && callbacks_is_current(self) && !self->has_failed) {
        fail(self, exception, 0); // or each peer could have reports written without end
        return;
    }
    PyObject *method = PyObject_GetAttr(protocol, name);
    if (method == NULL) {
        PyErr_Clear(); // it is only for the report
    }
    restore_exception(Py_NewRef(exception));
    hub_take_exception(self->conn->hub, method == NULL ? protocol : method);
    Py_XDECREF(method);
    if (ends_program) {
        Py_DECREF(exception);
        return;
    }
    fail(self, exception, 0);
}

// Calls a method with the connection and up to two arguments more, the first of which are
// not NULL.
static void
call_method(struct callbacks *self, PyObject *name, PyObject *first, PyObject *second)
{
    PyObject *protocol = Py_NewRef(self->protocol); // it may be given another one
    PyObject *arguments[5] = {NULL, protocol, (PyObject *)self->conn, first, second};
    size_t count = first == NULL ? 2 : second == NULL ? 3 : 4;
    PyObject *result = PyObject_VectorcallMethod(
        name, arguments + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL) {
        take_method_exception(self, protocol, name);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
}

void
callbacks_call(struct callbacks *self, PyObject *name, PyObject *argument)
{
    call_method(self, name, argument, NULL);
}

// Calls a method whose last argument is a direction: EVENT_READ, EVENT_WRITE, both or 0.
// There is always memory for numbers as small as these.
static void
call_with_direction(struct callbacks *self, PyObject *name, PyObject *first,
                    unsigned direction)
{
    PyObject *number = PyLong_FromUnsignedLong(direction);
    call_method(self, name, first == NULL ? number : first,
                first == NULL ? NULL : number);
    Py_DECREF(number);
}

// Calls the function that the protocol's on_data() was found to be.
static void
call_known_on_data(struct callbacks *self)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *function = Py_NewRef(self->on_data);
    PyObject *arguments[3] = {NULL, protocol, (PyObject *)self->conn};
    PyObject *result = PyObject_Vectorcall(function, arguments + 1,
                                           2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL) {
        take_method_exception(self, protocol, self->conn->hub->state->on_data);
    }
    Py_XDECREF(result);
    Py_DECREF(function);
    Py_DECREF(protocol);
}

static void
call_on_data(struct callbacks *self)
{
    self->is_telling = true;
    if (self->on_data != NULL) {
        call_known_on_data(self);
    }
    else {
        callbacks_call(self, self->conn->hub->state->on_data, NULL);
    }
    self->is_telling = false;
}

void
callbacks_close_conn(SkConnObject *conn)
{
    conn->write_error = 0; // on_error has told
    if (conn_close(conn) < 0) {
        PyErr_Clear();
    }
}

// Tells on_error(), once, in which direction it failed. Steals [exception].
static void
tell_failure(struct callbacks *self, PyObject *exception, unsigned direction)
{
    if (self->conn->callbacks == self && !self->has_failed) {
        self->has_failed = true;
        call_with_direction(self, self->conn->hub->state->on_error, exception, direction);
    }
    Py_DECREF(exception);
}

// The same, and closes the connection, unless the user has: then nobody is told.
static void
fail(struct callbacks *self, PyObject *exception, unsigned direction)
{
    if (callbacks_is_current(self)) {
        tell_failure(self, exception, direction);
    }
    else {
        Py_DECREF(exception);
    }
    if (callbacks_is_current(self)) {
        callbacks_close_conn(self->conn);
    }
}

static void
fail_with_errno(struct callbacks *self, int negative_errno, unsigned direction)
{
    conn_raise(self->conn, negative_errno);
    fail(self, take_exception(), direction);
}

// What could not be sent is told now, before a method meets it in write(). True if so.
static bool
tell_write_failure(struct callbacks *self)
{
    if (self->conn->write_error == 0) {
        return false;
    }
    conn_raise_write_error(self->conn);
    fail(self, take_exception(), EVENT_WRITE);
    return true;
}

static void
fail_with_exception(struct callbacks *self)
{
    PyObject *exception = take_exception();
    restore_exception(Py_NewRef(exception));
    report_exception((PyObject *)self->conn);
    fail(self, exception, 0);
}

// --- Receiving --------------------------------------------------------------------------

// Sends what the callback has written, in one go.
static void
send_written(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    if (!list_is_linked(&conn->dirty_link)) {
        return;
    }
    bool was_behind = self->is_behind;
    self->is_behind = conn_flush(conn) != 0; // or it has failed: then we are called again
    if (was_behind && !self->is_behind && callbacks_is_current(self)) {
        self->is_ready = true;
        hub_queue_call(conn->hub, &self->call);
    }
}

static void
tell_of_data(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    size_t held = line_buffer_length(&conn->input);
    call_on_data(self);
    if (conn_keep_fresh(conn) < 0) {
        fail_with_exception(self);
        return;
    }
    if (callbacks_is_current(self)) {
        callbacks_note_taken(self, held);
        send_written(self);
    }
}

// Whether on_data is due for what is held.
static bool
has_enough(const SkConnObject *conn)
{
    size_t held = line_buffer_length(&conn->input);
    return held > 0 && held >= conn_options_of(conn)->low_mark[FLOW_IN];
}

static void
tell_of_end(struct callbacks *self)
{
    self->has_ended = true;
    callbacks_call(self, self->conn->hub->state->on_eof, NULL);
}

// receive_once() through layers, by way of the input buffer. A layer's failure has closed
// the connection, and is told in the end.
static bool
receive_through_layers(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    size_t held = line_buffer_length(&conn->input);
    int status = transport_receive_now(conn);
    if (status == -EAGAIN) {
        self->is_paused = conn->may_read; // until the peer has read the layers' answers
        return false;
    }
    if (status < 0) {
        fail(self, take_exception(), EVENT_READ);
        return false;
    }
    if (!callbacks_is_current(self)) {
        if (conn->callbacks != NULL) {
            callbacks_note_input(conn); // others', set by a layer
        }
        return false;
    }
    if (status == 0) {
        tell_of_end(self);
        return false;
    }
    idle_note_progress(self, FLOW_IN);
    if (line_buffer_length(&conn->input) > held && has_enough(conn)) {
        tell_of_data(self);
    }
    return true;
}

// Whether more waits to be sent than may. Others may have written to the connection: only
// what cannot leave counts.
static bool
has_too_much_output(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    if (!conn_has_output(conn) ||
        conn_unsent(conn) <= conn_options_of(conn)->high_mark[FLOW_OUT]) {
        return false;
    }
    send_written(self);
    return conn_unsent(conn) > conn_options_of(conn)->high_mark[FLOW_OUT];
}

// Receives once and tells of it. False if there is nothing more to be had now.
static bool
receive_once(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    HubObject *hub = conn->hub;
    const struct conn_options *options = conn_options_of(conn);
    size_t held = line_buffer_length(&conn->input);
    self->is_paused = has_too_much_output(self) || held >= options->high_mark[FLOW_IN];
    if (tell_write_failure(self)) {
        // not reached: a flush fails between two rounds
        return false;
    }
    if (self->is_paused || (!conn->may_read && !transport_has_ended(conn))) {
        return false;
    }
    if (conn->transport != NULL) {
        return receive_through_layers(self);
    }
    char *place = hub->scratch + HUB_SCRATCH_SIZE;
    uint64_t room = options->high_mark[FLOW_IN] - held;
    size_t size = room < HUB_FRESH_SIZE ? (size_t)room : HUB_FRESH_SIZE;
    ssize_t count = conn_receive_now(conn, place, size);
    if (count == -EAGAIN) {
        return false;
    }
    if (count < 0) {
        fail_with_errno(self, (int)count, EVENT_READ);
        return false;
    }
    if (count == 0) {
        tell_of_end(self);
        return false;
    }
    idle_note_progress(self, FLOW_IN);
    if (held == 0 && (size_t)count >= options->low_mark[FLOW_IN]) {
        hub->fresh_conn = conn;
        hub->fresh_data = place;
        hub->fresh_length = (size_t)count;
        tell_of_data(self);
        return conn->may_read;
    }
    if (conn_keep_input(conn, place, (size_t)count) < 0) {
        fail_with_exception(self);
        return false;
    }
    if (has_enough(conn)) {
        tell_of_data(self);
    }
    return conn->may_read;
}

static void
receive(struct callbacks *self)
{
    for (int count = 0; callbacks_is_current(self) && !self->has_ended &&
                        !conn_is_disabled(self->conn, FLOW_IN);
         count++) {
        if (tell_write_failure(self)) {
            return;
        }
        if (count == RECEIVE_LIMIT) {
            hub_queue_call(self->conn->hub, &self->call);
            return;
        }
        if (self->has_news) {
            self->has_news = false;
            if (has_enough(self->conn)) {
                tell_of_data(self);
            }
        }
        else if (!receive_once(self)) {
            break;
        }
    }
    if (self->has_ended && callbacks_is_current(self) && self->conn->is_socket) {
        // After the end of file an event can only tell that the peer has gone altogether.
        int error = io_take_socket_error(self->conn->fd);
        if (error < 0) {
            fail_with_errno(self, error, EVENT_WRITE);
        }
    }
}

// Whether the stream has come to its end, where the user receives: 1, 0 if it has not, or
// -errno. Nothing is taken.
static int
has_come_to_end(SkConnObject *conn)
{
    if (!conn->is_socket) {
        int ready = io_ready_now(conn->fd, EVENT_READ);
        return ready < 0 ? ready : (ready & (EVENT_READ | EVENT_HANGUP)) == EVENT_HANGUP;
    }
    char byte;
    struct iovec room = {&byte, 1};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1};
    ssize_t count = io_receive_message(conn->fd, &message, MSG_PEEK);
    count = conn_tell(conn, count, 0);
    return count == -EAGAIN ? 0 : count < 0 ? (int)count : count == 0;
}

// After a hang-up no further event comes: what the user has left is told of again, as long
// as it gets less; when nothing is left it is the end.
static void
look_for_end(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    int status = has_come_to_end(conn);
    if (status < 0) {
        fail_with_errno(self, status, EVENT_READ);
        return;
    }
    if (status > 0 && conn->transport != NULL) {
        // The layers have to see it first.
        while (callbacks_is_current(self) && !self->has_ended &&
               receive_through_layers(self)) {
        }
        return;
    }
    if (status > 0) {
        tell_of_end(self);
        return;
    }
    int unread = 0;
    if (ioctl(conn->fd, FIONREAD, &unread) < 0) {
        // Or nobody would ever be told of the end.
        // not reached: streams have FIONREAD
        fail_with_errno(self, -errno, EVENT_READ);
    }
    else if (unread > 0) {
        bool gets_less = self->unread < 0 || unread < self->unread;
        self->unread = unread;
        if (gets_less) {
            self->has_news = true;
            hub_queue_call(conn->hub, &self->call);
        }
    }
}

// For what the user receives: a descriptor of libreact's, or packets.
static void
tell_only(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    if (self->has_news) {
        self->has_news = false;
        call_on_data(self);
    }
    if (!callbacks_is_current(self) || self->has_ended) {
        return;
    }
    if (transport_has_ended(conn)) {
        if (line_buffer_length(&conn->input) == 0) {
            tell_of_end(self);
        }
    }
    else if (self->has_hung_up && conn->is_stream && !conn->is_listener) {
        look_for_end(self);
    }
}

// --- Serving ----------------------------------------------------------------------------

// The descriptor has gone: the last that is heard of the connection.
static void
tell_closed(struct callbacks *self)
{
    HubObject *hub = self->conn->hub;
    self->has_failed = true; // it is too late for on_error
    if (!callbacks_is_acceptor(self)) {
        callbacks_call(self, hub->state->on_close, NULL);
    }
    if (self->conn->callbacks == self) {
        callbacks_detach(self);
        self->is_dropped = true;
    }
}

// The time has passed: on_timeout, or the end of a connect() that took too long.
static void
tell_of_delay(struct callbacks *self, unsigned direction)
{
    SkConnObject *conn = self->conn;
    if (valve_is_connecting(conn)) {
        conn->error = ETIMEDOUT;
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT, "connect timed out");
        PyObject *exception = take_exception();
        // The peer may answer yet, and must not get what is known as not sent.
        write_queue_clear(&conn->output);
        tell_failure(self, exception, EVENT_WRITE);
        if (callbacks_is_current(self)) {
            conn_abort(conn);
        }
        return;
    }
    call_with_direction(self, conn->hub->state->on_timeout, NULL, direction);
}

static void
serve_connection(struct callbacks *self)
{
    SkConnObject *conn = self->conn;
    struct module_state *state = conn->hub->state;
    tell_write_failure(self);
    if (self->must_close && callbacks_is_current(self)) {
        callbacks_call(self, state->on_shutdown, NULL);
        if (callbacks_is_current(self)) {
            callbacks_close_conn(conn);
        }
    }
    if (self->is_connected && callbacks_is_current(self)) {
        self->is_connected = false;
        callbacks_call(self, state->on_open, NULL);
    }
    if (self->is_ready && callbacks_is_current(self)) {
        self->is_ready = false;
        callbacks_call(self, state->on_ready, NULL);
    }
    if (self->is_triggered && callbacks_is_current(self)) {
        self->is_triggered = false;
        tell_of_data(self);
    }
    if (callbacks_is_current(self) && !conn_is_disabled(conn, FLOW_IN) &&
        !valve_has_no_peer(conn)) {
        if (self->receives && conn->is_stream) {
            receive(self);
        }
        else {
            tell_only(self);
        }
    }
    if (self->is_late && callbacks_is_current(self)) {
        self->is_late = false;
        callbacks_arm_timer(self);
        tell_of_delay(self, EVENT_READ | EVENT_WRITE);
    }
    if (idle_take_due(self, FLOW_IN)) {
        tell_of_delay(self, EVENT_READ);
    }
    if (idle_take_due(self, FLOW_OUT)) {
        tell_of_delay(self, EVENT_WRITE);
    }
    if (callbacks_is_current(self)) {
        send_written(self);
    }
}

void
callbacks_serve(struct hub_call *call)
{
    struct callbacks *self = CONTAINER_OF(call, struct callbacks, call);
    SkConnObject *conn = self->conn;
    self->is_running = true;
    if (callbacks_is_current(self)) {
        if (!callbacks_is_acceptor(self)) {
            serve_connection(self);
        }
        else if (self->must_close) {
            callbacks_close_conn(conn);
        }
        else {
            callbacks_accept(self);
        }
    }
    PyObject *failure = transport_take_failure(conn);
    if (failure != NULL) {
        tell_failure(self, failure, 0); // a layer's, whatever it was that called it
    }
    if (conn->callbacks == self && conn->fd < 0) {
        tell_closed(self);
    }
    self->is_running = false;
    idle_review(self);
    if (self->is_dropped) {
        callbacks_free(self);
    }
}
