// py_conn_close.c: how a connection ends: at once, or when what it holds has been sent.
//
// A connection that is closed while output waits stays for sending alone, with a drain
// record that owns one reference to it and is given back in conn_end_drain(). Closing follows
// one order: mark it closed, wake who waits, take it off the engine, close the descriptor.

#include <stdlib.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_rate.h"
#include "py_task.h"

// What is left to do for a closed connection with unsent output.
struct drain {
    struct timer timer;    // when it has lingered enough
    SkConnObject *conn;    // owned
    struct list_node link; // on hub->draining
};

// --- The descriptor ---------------------------------------------------------------------

// Lets go of the descriptor without closing it.
static void
release_descriptor(SkConnObject *conn)
{
    if (!conn->hub->is_closed) {
        reactor_release(&conn->hub->reactor, conn->fd);
    }
    conn->fd = -1;
    rate_forget(conn);
    list_remove(&conn->hub_link);
    list_remove(&conn->dirty_link);
    line_buffer_clear(&conn->input);
    write_queue_clear(&conn->output);
    if (conn->callbacks != NULL) {
        callbacks_notice(conn); // on_close is due
    }
    if (conn->transport != NULL) {
        transport_clear_wire(conn->transport);
        transport_drop_layers(conn);
    }
}

static void
wake_by_close(SkConnObject *conn, struct waiter *waiter)
{
    if (waiter != NULL) {
        waiter_wake(conn->hub, waiter, WOKEN_CLOSED);
    }
}

static void
wake_waiters(SkConnObject *conn)
{
    if (conn->callbacks != NULL) {
        callbacks_stop(conn);
    }
    wake_by_close(conn, conn->reader);
    wake_by_close(conn, conn->writer);
    TaskObject *task = (TaskObject *)conn->coroutine;
    if (task != NULL && conn->events != 0 && task->resume_waiter != NULL) {
        waiter_wake(conn->hub, task->resume_waiter, WOKEN_READY);
    }
}

static int
close_descriptor(SkConnObject *conn)
{
    int fd = conn->fd;
    release_descriptor(conn);
    if (conn->was_blocking) {
        // The file may be shared with whoever gave us the descriptor, as a terminal is.
        io_set_nonblocking(fd, false);
    }
    int error = io_close(fd);
    return error == -ECONNRESET ? 0 : error;
}

// --- Draining ---------------------------------------------------------------------------

void
conn_end_drain(SkConnObject *conn)
{
    struct drain *drain = conn->drain;
    conn->drain = NULL;
    timer_wheel_unlink(&conn->hub->reactor.timers, &drain->timer);
    list_remove(&drain->link);
    LIVE_COUNT(LIVE_DRAINS, -1);
    free(drain);
    conn_abort(conn);
    Py_DECREF(conn);
}

static void
linger_enough(struct timer *timer)
{
    conn_end_drain(CONTAINER_OF(timer, struct drain, timer)->conn);
}

// Keeps the closed connection until its output has been sent. 0 or -ENOMEM.
static int
begin_drain(SkConnObject *conn)
{
    struct drain *drain = malloc(sizeof(*drain));
    if (drain == NULL) {
        return -ENOMEM;
    }
    *drain = (struct drain){.conn = (SkConnObject *)Py_NewRef((PyObject *)conn)};
    timer_init(&drain->timer, linger_enough);
    if (conn_options_of(conn)->linger_ns >= 0) {
        reactor_arm(&conn->hub->reactor, &drain->timer,
                    (uint64_t)conn_options_of(conn)->linger_ns);
    }
    list_append(&conn->hub->draining, &drain->link);
    LIVE_COUNT(LIVE_DRAINS, 1);
    conn->drain = drain;
    return 0;
}

// --- Closing ----------------------------------------------------------------------------

// A layer's failure that nobody has been told of, and that nobody waits to be told.
static int
raise_untold_failure(SkConnObject *conn)
{
    bool is_told = conn->transport == NULL || conn->reader != NULL ||
                   conn->writer != NULL || !transport_raise_failure(conn);
    return is_told ? 0 : -1;
}

int
conn_close(SkConnObject *conn)
{
    if (conn->is_closed) {
        return raise_untold_failure(conn);
    }
    conn->is_closed = true;
    wake_waiters(conn);
    line_buffer_clear(&conn->input);
    conn_withdraw_write(conn); // its writer is told how much of it was written
    // That layers cannot say their last words, to a peer who has gone, is no loss.
    bool has_only_last_words = conn->transport != NULL && !conn_has_output(conn);
    int kept_error = conn->write_error;
    if (conn->transport != NULL && !conn->hub->is_closed) {
        transport_add_all_marks(conn);
    }
    if (conn_has_output(conn) && !conn->hub->is_closed) {
        int result = conn_flush(conn);
        if ((result == -EAGAIN || result == FLUSH_GOES_ON) &&
            conn_options_of(conn)->linger_ns != 0 && begin_drain(conn) == 0) {
            return raise_untold_failure(conn);
        }
    }
    if (conn->fd < 0) {
        return raise_untold_failure(conn); // a layer has aborted it
    }
    int lost = has_only_last_words ? kept_error : conn->write_error;
    transport_discard_input(conn);
    int error = close_descriptor(conn);
    if (lost < 0) {
        return conn_raise_write_error(conn);
    }
    if (error < 0) {
        conn_raise(conn, error);
        return -1;
    }
    return raise_untold_failure(conn);
}

void
conn_abort(SkConnObject *conn)
{
    if (conn->drain != NULL) {
        conn_end_drain(conn); // comes back here
        return;
    }
    if (!conn->is_closed) {
        conn->is_closed = true;
        wake_waiters(conn);
    }
    if (conn->fd >= 0) {
        close_descriptor(conn);
    }
}

void
conn_detach(SkConnObject *conn)
{
    if (!conn->is_closed) {
        conn->is_closed = true;
        wake_waiters(conn);
    }
    if (conn->fd >= 0) {
        release_descriptor(conn);
    }
    if (conn->drain != NULL) {
        conn_end_drain(conn);
    }
}

bool
conn_has_any_output(HubObject *hub)
{
    hub_flush_output(hub);
    for (struct list_node *node = hub->connections.next; node != &hub->connections;
         node = node->next) {
        // Those that were closed and drain are on the list as well.
        if (conn_has_output(CONTAINER_OF(node, SkConnObject, hub_link))) {
            return true;
        }
    }
    return false;
}

void
conn_forget_all(HubObject *hub)
{
    while (!list_is_empty(&hub->draining)) {
        SkConnObject *conn = CONTAINER_OF(hub->draining.next, struct drain, link)->conn;
        reactor_disown(&hub->reactor, conn->fd);
        if (conn->callbacks != NULL) {
            // not reached: the hub has ended them
            callbacks_forget(conn);
        }
        conn_end_drain(conn);
    }
    struct list_node *node;
    while ((node = list_take_first(&hub->connections)) != NULL) {
        SkConnObject *conn = CONTAINER_OF(node, SkConnObject, hub_link);
        Py_INCREF(conn);
        reactor_disown(&hub->reactor, conn->fd);
        list_remove(&conn->dirty_link);
        write_queue_clear(&conn->output);
        rate_forget(conn);
        if (conn->callbacks != NULL) {
            callbacks_forget(conn);
        }
        Py_DECREF(conn);
    }
}
