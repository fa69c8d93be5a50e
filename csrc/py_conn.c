// py_conn.c: the life of a connection: making, events, waiting.
//
// Lifetime: Python owns a connection; while a coroutine waits on it the wait owns one
// more reference, given back at the end of conn_wait_within(); while it drains after
// close() the drain record owns one, given back in conn_end_drain(). The watch table's
// pointer to it is borrowed and is taken back before the fd or the object goes.
//
// Not here: how it ends (py_conn_close.c).

#include "py_conn.h"

#include <errno.h>
#include <time.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_task.h"
#include "py_valve.h"

static bool take_event(struct ready_target *target, unsigned ready);
static void lose_descriptor(struct ready_target *target, bool is_forked);

// --- Making -----------------------------------------------------------------------------

// The number was free when the kernel gave it out, so whoever the table says owns it has had
// it closed behind our back.
int
conn_claim_descriptor(SkConnObject *conn)
{
    struct reactor *reactor = &conn->hub->reactor;
    int error = reactor_claim(reactor, conn->fd, &conn->target);
    if (error == -EEXIST) {
        struct ready_target *stale = reactor_owner(reactor, conn->fd);
        stale->on_lost(stale, false);
        error = reactor_claim(reactor, conn->fd, &conn->target);
    }
    return error;
}

static int64_t
wall_clock_ns(void)
{
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

SkConnObject *
conn_new(HubObject *hub, int fd, const struct io_description *description)
{
    PyTypeObject *type = hub->state->conn_type;
    SkConnObject *conn = (SkConnObject *)type->tp_alloc(type, 0);
    if (conn == NULL) {
        io_close(fd);
        return NULL;
    }
    LIVE_COUNT(LIVE_CONNECTIONS, 1);
    conn->target = (struct ready_target){take_event, lose_descriptor};
    conn->hub = (HubObject *)Py_NewRef((PyObject *)hub);
    conn->fd = fd;
    conn->is_socket = description->is_socket;
    conn->is_stream = description->is_stream;
    conn->is_listener = description->is_listening;
    conn->is_internet_stream = description->is_internet_stream;
    conn->reads_to_the_end = !reactor_short_read_is_empty(&hub->reactor);
    conn->was_blocking = !description->was_nonblocking && !description->is_socket;
    conn->device = description->device;
    conn->inode = description->inode;
    conn->may_read = conn->may_write = true;
    conn->priority = PRIORITY_NORMAL;
    conn->timeout_ns = -1;
    conn->created_ns = wall_clock_ns();
    line_buffer_init(&conn->input);
    write_queue_init(&conn->output);
    int error = conn_claim_descriptor(conn);
    if (error < 0) {
        conn->is_closed = true;
        conn->fd = -1;
        io_close(fd);
        Py_DECREF(conn);
        raise_errno(error);
        return NULL;
    }
    list_append(&hub->connections, &conn->hub_link);
    return conn;
}

// --- Events -----------------------------------------------------------------------------

int
conn_register(SkConnObject *conn)
{
    struct reactor *reactor = &conn->hub->reactor;
    if (conn->valve != NULL && conn->valve->is_unconnected) {
        return 0;
    }
    if (conn->is_listener) {
        const struct callbacks *callbacks = conn->callbacks;
        bool is_wanted =
            conn_flows(conn, FLOW_IN) && (callbacks == NULL || !callbacks->is_paused);
        // Who accepts by himself is told by edges: he may leave some in the queue.
        bool is_told_only = callbacks != NULL && !callbacks->receives;
        enum engine_trigger trigger = is_told_only         ? ENGINE_EDGE
                                      : conn->is_exclusive ? ENGINE_LEVEL_SHARED
                                                           : ENGINE_LEVEL;
        return reactor_register(reactor, conn->fd, is_wanted ? EVENT_READ : 0, trigger);
    }
    // Urgent data is asked for because it ends a read short, with no further edge.
    return reactor_register(reactor, conn->fd, EVENT_READ | EVENT_WRITE | EVENT_PRIORITY,
                            ENGINE_EDGE);
}

static bool
wake(SkConnObject *conn, struct waiter *waiter, enum waiter_status status)
{
    return waiter != NULL && waiter_wake(conn->hub, waiter, status);
}

bool
conn_resume_coroutine(SkConnObject *conn, unsigned ready, bool woke)
{
    TaskObject *task = (TaskObject *)conn->coroutine;
    const unsigned always = EVENT_ERROR | EVENT_HANGUP;
    if (task == NULL || conn->events == 0 || (ready & (conn->events | always)) == 0) {
        return woke;
    }
    if (task->resume_waiter != NULL &&
        waiter_wake(conn->hub, task->resume_waiter, WOKEN_READY)) {
        return true;
    }
    task->resumes_at_once |= !woke;
    return woke;
}

// A writer that waits for more to leave has made progress: its time begins anew.
static void
extend_pause(SkConnObject *conn)
{
    struct timer *timer = &conn->writer->timer;
    int64_t limit_ns = conn_wait_limit_ns(conn, FLOW_OUT);
    if (limit_ns >= 0 && timer_is_armed(timer)) {
        reactor_arm(&conn->hub->reactor, timer, (uint64_t)limit_ns);
    }
}

int
conn_send_on(SkConnObject *conn, bool *woke)
{
    uint64_t before = conn_unsent(conn);
    int result = conn_has_output(conn) ? conn_flush(conn) : 0;
    *woke = conn->callbacks != NULL && (before > 0 || conn->callbacks->is_behind) &&
            callbacks_sent(conn, conn_unsent(conn) < before);
    if (conn->drain != NULL && result != -EAGAIN && result != FLUSH_GOES_ON) {
        transport_discard_input(conn);
        conn_end_drain(conn);
    }
    if (conn->writer == NULL || !conn->writer_is_paused) {
        return result;
    }
    if (!conn_writer_must_wait(conn)) {
        *woke |= wake(conn, conn->writer, WOKEN_READY);
    }
    else if (conn_unsent(conn) < before) {
        extend_pause(conn);
    }
    return result;
}

// There is room to send, or the connection is broken. Returns true if it woke a waiter.
static bool
take_room(SkConnObject *conn, unsigned ready)
{
    bool woke;
    if (conn->may_write && conn->writer == NULL && !conn->reader_wants_room &&
        !conn_has_output(conn) && !(conn->callbacks && conn->callbacks->is_behind)) {
        return false; // every event tells of room; there was some all the time
    }
    conn->may_write = true;
    if (ready & (EVENT_ERROR | EVENT_HANGUP) && conn->writer_is_paused &&
        !conn->is_closed) {
        // The socket tells its error only once: a reader, who was woken first, is to have it.
        return wake(conn, conn->writer, WOKEN_READY);
    }
    int result = conn_send_on(conn, &woke);
    if (result == -EAGAIN || conn->fd < 0) {
        return woke;
    }
    if (!conn->writer_is_paused) {
        woke |= wake(conn, conn->writer, WOKEN_READY);
    }
    if (conn->reader_wants_room) {
        woke |= wake(conn, conn->reader, WOKEN_READY);
    }
    return woke;
}

static bool
take_event(struct ready_target *target, unsigned ready)
{
    SkConnObject *conn = CONTAINER_OF(target, SkConnObject, target);
    const unsigned ends = EVENT_ERROR | EVENT_HANGUP | EVENT_READ_HANGUP;
    bool woke = false, may_come = true, may_go = true;
    conn->revents = ready;
    if (conn->valve != NULL) {
        if (conn->valve->is_connecting && !conn_end_connect(conn, ready)) {
            return true; // not reached: an event of the time before
        }
        may_come = valve_is_open(conn, FLOW_IN);
        may_go = valve_is_open(conn, FLOW_OUT);
    }
    if (ready & (ends | EVENT_PRIORITY)) {
        conn->reads_to_the_end = true;
    }
    if (may_come && (ready & (EVENT_READ | EVENT_PRIORITY | ends))) {
        conn->may_read = true;
        woke |= conn->callbacks != NULL ? callbacks_readable(conn)
                                        : wake(conn, conn->reader, WOKEN_READY);
        if (!woke && conn->is_listener) {
            // Nobody accepts: a level-triggered listener would be reported for ever. One
            // that mod() asked about is reported by edges from now on.
            reactor_register(&conn->hub->reactor, conn->fd, conn->events & EVENT_READ,
                             ENGINE_EDGE);
        }
    }
    // Sending may let other threads run, and end the draining: both may drop it.
    Py_INCREF(conn);
    if (may_go && (ready & (EVENT_WRITE | EVENT_ERROR | EVENT_HANGUP))) {
        woke |= take_room(conn, ready);
    }
    if (conn->fd >= 0) {
        woke = conn_resume_coroutine(conn, ready, woke);
    }
    Py_DECREF(conn);
    return woke;
}

// The engine does not know the fd any more (fork), or the number belongs to another file.
static void
lose_descriptor(struct ready_target *target, bool is_forked)
{
    SkConnObject *conn = CONTAINER_OF(target, SkConnObject, target);
    if (!is_forked) {
        conn_detach(conn);
        return;
    }
    // In the child: what was queued is the parent's to send.
    write_queue_clear(&conn->output);
    if (conn->transport != NULL) {
        transport_clear_wire(conn->transport);
    }
    list_remove(&conn->dirty_link);
    if (conn->drain != NULL) {
        // Whose callbacks were to hear of its end; they are the parent's.
        if (conn->callbacks != NULL) {
            callbacks_abandon(conn);
        }
        conn_end_drain(conn);
        return;
    }
    conn->may_read = conn->may_write = true;
    valve_end_connect(conn);
    if (conn->callbacks != NULL) {
        callbacks_abandon(conn);
    }
    // Of those who were abandoned nobody reads or writes here any more.
    if (conn->reader != NULL && conn->reader->status == WAITER_FREE) {
        conn->reader = NULL;
    }
    if (conn->writer != NULL && conn->writer->status == WAITER_FREE) {
        conn->writer = NULL;
    }
}

SkConnObject *
conn_of_target(struct ready_target *target)
{
    if (target == NULL || target->on_ready != take_event) {
        return NULL;
    }
    return CONTAINER_OF(target, SkConnObject, target);
}

// --- Waiting ----------------------------------------------------------------------------

PyObject *
conn_raise(SkConnObject *conn, ssize_t negative_errno)
{
    conn->error = (int)-negative_errno;
    return raise_errno((int)negative_errno);
}

PyObject *
conn_raise_closed(SkConnObject *conn)
{
    conn->error = EBADF;
    if (conn->transport != NULL && transport_raise_failure(conn)) {
        return NULL;
    }
    return raise_os_error(conn->hub->state->ClosedError, EBADF,
                          "the connection is closed");
}

int
conn_check_thread(const SkConnObject *conn)
{
    return conn->hub->is_closed ? 0 : hub_check_thread(conn->hub, "the connection");
}

int
conn_refuse(SkConnObject *conn)
{
    if (hub_check_thread(conn->hub, "the connection") < 0) {
        return -1;
    }
    if (conn->is_closed) {
        conn_raise_closed(conn);
        return -1;
    }
    PyErr_SetString(PyExc_RuntimeError, "the connection's hub is closed");
    return -1;
}

int
conn_check_socket(SkConnObject *conn)
{
    if (conn_check_usable(conn) < 0) {
        return -1;
    }
    if (!conn->is_socket) {
        conn_raise(conn, -ENOTSOCK);
        return -1;
    }
    return 0;
}

int
conn_check_unlayered(SkConnObject *conn, const char *operation)
{
    if (conn->transport == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "%s() would go past the connection's layers",
                 operation);
    return -1;
}

int
conn_check_free(SkConnObject *conn, struct waiter *waiter, const char *direction)
{
    if (waiter == NULL) {
        return 0;
    }
    PyObject *who = task_describe(waiter->task);
    if (who != NULL) {
        PyErr_Format(conn->hub->state->BusyError, "%U is %s this connection already (%s)",
                     who, direction, waiter->operation);
        Py_DECREF(who);
    }
    return -1;
}

int
conn_begin(SkConnObject *conn, struct waiter **place, const char *direction)
{
    if (conn_check_usable(conn) < 0 || hub_count_operation(conn->hub) < 0) {
        return -1;
    }
    if (conn->is_closed) {
        // Closed by somebody the count has let run.
        conn_raise_closed(conn);
        return -1;
    }
    if ((conn->transport != NULL && transport_refuse_reentry(conn) < 0) ||
        (conn->callbacks != NULL && callbacks_begin(conn, direction) < 0)) {
        return -1;
    }
    // Not before: who read or wrote may have ended, and others begun, while they ran.
    return place == NULL ? 0 : conn_check_free(conn, *place, direction);
}

int
conn_park_within(SkConnObject *conn, struct waiter **place, int64_t timeout_ns,
                 const char *operation)
{
    if (conn->callbacks != NULL && conn->hub->is_serving) {
        PyErr_Format(
            PyExc_RuntimeError,
            "%s would have to wait, and a callback cannot: take() and take_line() "
            "give what is there, enqueue() never waits, and spawn() makes a task "
            "that can",
            operation);
        return -1;
    }
    int error = conn_register(conn);
    if (error < 0) {
        conn_raise(conn, error);
        return -1;
    }
    // Being woken is no promise: in hard mode every other wait ends at once, for nothing. Not
    // within a dispatch by hand, which says how many it woke.
    enum waiter_kind kind = WAITS_FOR_KERNEL;
    if (HARD_MODE && conn->hub->dispatcher == NULL) {
        conn->was_woken_in_vain = !conn->was_woken_in_vain;
        kind = conn->was_woken_in_vain ? WAITS_FOR_TURN : WAITS_FOR_KERNEL;
    }
    Py_INCREF(conn);
    int status =
        hub_park(conn->hub, place, NULL, kind, timeout_ns, operation, (PyObject *)conn);
    if (status == WOKEN_CLOSED || (status == WOKEN_READY && conn->is_closed)) {
        // Another task may also have closed it after the event and before our turn.
        conn_raise_closed(conn);
        status = -1;
    }
    Py_DECREF(conn);
    return status < 0 ? -1 : status == WOKEN_TIMEOUT;
}

int
conn_wait_within(SkConnObject *conn, struct waiter **place, int64_t timeout_ns,
                 const char *operation)
{
    int status = conn_park_within(conn, place, timeout_ns, operation);
    if (status > 0) {
        conn->error = ETIMEDOUT;
        raise_os_error(PyExc_TimeoutError, ETIMEDOUT, "%s timed out", operation);
        status = -1;
    }
    return status;
}

void
conn_note_break(SkConnObject *conn, ssize_t error)
{
    switch (-error) {
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
        if (conn->is_stream) {
            conn->broken_by = (int)-error;
        }
        break;
    default: // it may go on, or it is only we who have ended it
        break;
    }
}

int
conn_wait_readable(SkConnObject *conn, const char *operation)
{
    return conn_wait_within(conn, &conn->reader, conn_wait_limit_ns(conn, FLOW_IN),
                            operation);
}

int
conn_wait_writable(SkConnObject *conn, const char *operation)
{
    return conn_wait_within(conn, &conn->writer, conn_wait_limit_ns(conn, FLOW_OUT),
                            operation);
}
