// py_callbacks.h: connections that are served by callbacks instead of a coroutine.
//
// py_callbacks.c has their life and their events, py_callbacks_serve.c what is called when,
// py_callbacks_accept.c what listeners do; py_protocol.c checks protocols and has
// set_callbacks(). Each such connection has one record, which owns one reference to it from
// set_callbacks() until on_close() has returned, for nobody else may hold it.
//
// All of a user's callbacks run in the hub greenlet, as hub calls: never in the context of
// some coroutine, never one inside another, and never deeper for a chain of events.

#ifndef CORONET_PY_CALLBACKS_H
#define CORONET_PY_CALLBACKS_H

#include "py_conn.h"

struct idle_timer;

struct callbacks {
    struct hub_call call; // due when there is something to tell
    SkConnObject *conn;   // owned
    PyObject *protocol;   // owned; whose methods are called; for a listener perhaps a
                          // callable that makes one for each connection
    PyObject *on_data; // owned; the function behind the method; NULL = looked up at each
                       // call, for it is something else than a method of a class
    PyObject *on_accept_error; // owned; a listener's: what accept() failed with; or NULL
    struct timer timer; // nothing has happened for too long; for a listener: may go on
    struct idle_timer *idle; // owned; the two of set_timeouts(), NULL = none
    int unread;              // bytes the user left, with `receives` off; -1 = not known

    bool receives : 1;     // bytes are received for the user, connections accepted
    bool is_factory : 1;   // a listener's protocol is called for each connection
    bool is_running : 1;   // a callback of it is on the stack
    bool is_telling : 1;   // that callback is on_data
    bool is_dropped : 1;   // nobody's any more; freed when it has run
    bool is_paused : 1;    // too much is held already: reading goes on later; a listener:
                           // the system is short of something, its timer ends the rest
    bool has_news : 1;     // on_data is due whether something comes or not
    bool is_behind : 1;    // some output could not be sent at once
    bool is_ready : 1;     // on_ready is due
    bool is_late : 1;      // on_timeout is due
    bool is_triggered : 1; // on_data is due by trigger()
    bool is_connected : 1; // on_open is due: connect() is done, or it was opened
    bool must_close : 1;   // on_shutdown is due, and then the end
    bool has_hung_up : 1;  // the peer may have ended the stream: no event may follow
    bool has_ended : 1;    // on_eof was called
    bool has_failed : 1;   // on_error was called
};

// True if it is told when to receive, rather than what has been received: with receive=False,
// and for packets, which are not to be run together.
static inline bool
callbacks_receives_itself(const struct callbacks *self)
{
    return !self->receives || !self->conn->is_stream;
}

static inline bool
callbacks_is_acceptor(const struct callbacks *self)
{
    return self->conn->is_listener && self->receives;
}

// True if the connection is open and these are its callbacks still.
static inline bool
callbacks_is_current(const struct callbacks *self)
{
    return self->conn->callbacks == self && !self->conn->is_closed;
}

// --- py_callbacks.c -----------------------------------------------------------------

// Gives the connection, which has none, a record with this protocol, and a listener's
// on_accept_error() or NULL. 0, or -1 with an exception.
int callbacks_attach(SkConnObject *conn, PyObject *protocol, PyObject *on_accept_error,
                     bool is_factory, bool receives);

// Gives the record others.
void callbacks_set_protocol(struct callbacks *self, PyObject *protocol,
                            PyObject *on_accept_error);

// Takes the callbacks off the connection, which calls nothing any more.
void callbacks_drop(SkConnObject *conn);

// Takes the record off the connection and the hub; it stays allocated, until
// callbacks_free(), which gives its references back.
void callbacks_detach(struct callbacks *self);
void callbacks_free(struct callbacks *self);

// Starts the time after which on_timeout() is due, if the connection has one.
void callbacks_arm_timer(struct callbacks *self);

// Something is to be told: has the record looked at in the next round of callbacks.
void callbacks_notice(SkConnObject *conn);

// The connection's timeout has changed.
void callbacks_set_timeout(SkConnObject *conn);

// Layers have changed what there is to read: on_data and on_eof may be due.
void callbacks_note_input(SkConnObject *conn);

// Some of the [held] bytes may have been taken: there may be room for more.
void callbacks_note_taken(struct callbacks *self, size_t held);

// There is something to be received. True always: the event has been taken.
bool callbacks_readable(SkConnObject *conn);

// After an attempt to send what waits: on_ready may be due. True if it is.
// [has_progressed]: something was sent.
bool callbacks_sent(SkConnObject *conn, bool has_progressed);

// The watermarks were changed: something may be due by the new ones.
void callbacks_note_marks(SkConnObject *conn, uint64_t old_read_low);

// The connection is closed, though it may still send: only on_close() is left.
void callbacks_stop(SkConnObject *conn);

// In a forked child: the callbacks are the parent's. Nothing is called or released.
void callbacks_abandon(SkConnObject *conn);

// For a hub that is gone: frees the record, calls nothing. The connection may go, too.
void callbacks_forget(SkConnObject *conn);

// Has on_shutdown() called for each connection with callbacks, and then closes it.
void callbacks_shut_down(HubObject *hub);

// Closes all of them at once, dropping what they still hold.
void callbacks_abort_all(HubObject *hub);

// --- py_callbacks_idle.c --------------------------------------------------------------

// Has the idle timeouts of the connection's options run. 0, or -1 with MemoryError.
int callbacks_set_idle_timeouts(struct callbacks *self);

// Starts and stops their timers by what the connection waits for now.
void idle_review(struct callbacks *self);

// Something has come or gone: the direction's time begins anew.
void idle_note_progress(struct callbacks *self, enum flow_direction direction);

// True, once, if on_timeout is due for the direction; its time begins anew.
bool idle_take_due(struct callbacks *self, enum flow_direction direction);

// Takes the timers off the wheel and frees them.
void idle_free(struct callbacks *self);

// --- py_callbacks_serve.c -------------------------------------------------------------

// The record's hub call: tells its protocol what has happened.
void callbacks_serve(struct hub_call *call);

// Calls the protocol's method with the connection and perhaps one argument more. What it
// raises is reported, and ends the connection.
void callbacks_call(struct callbacks *self, PyObject *name, PyObject *argument);

// Closes a connection whose failure has been told: no exception.
void callbacks_close_conn(SkConnObject *conn);

// --- py_callbacks_accept.c --------------------------------------------------------------

// Accepts what waits for a listener, and welcomes each with on_open().
void callbacks_accept(struct callbacks *self);

// --- py_protocol.c --------------------------------------------------------------------

extern PyMethodDef protocol_methods[];

// The attribute `callbacks`: the protocol or None. A new reference.
PyObject *protocol_get(SkConnObject *conn, void *unused);

// The attribute `priority`.
extern const char protocol_priority_doc[];
PyObject *protocol_get_priority(SkConnObject *conn, void *unused);
int protocol_set_priority(SkConnObject *conn, PyObject *value, void *unused);

// What [factory] makes for one connection; a new reference, NULL with an exception.
PyObject *protocol_make(HubObject *hub, PyObject *factory);

#endif
