// py_valve.c: enable, disable, and how much one system call may move.
//
// Not here: rates, which hang themselves into the valve (py_rate.c); counting what a listener
// accepts (py_conn_accept.c).

#include "py_valve.h"

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_rate.h"

// --- Flow -------------------------------------------------------------------------------

// What nobody will read is taken off the kernel freely, and costs a group's members nothing.
static bool
is_thrown_away(const SkConnObject *conn, enum flow_direction direction)
{
    return conn->is_closed && direction == FLOW_IN;
}

size_t
valve_allowance(SkConnObject *conn, enum flow_direction direction, size_t wanted)
{
    const struct valve *valve = conn->valve;
    if (is_thrown_away(conn, direction)) {
        return wanted;
    }
    if (!valve_is_open(conn, direction)) {
        return 0;
    }
    size_t limit = conn->is_stream ? valve->single_limit[direction] : SIZE_MAX;
    wanted = wanted < limit ? wanted : limit;
    return valve->rate == NULL ? wanted : rate_allowance(conn, direction, wanted);
}

void
valve_note_moved(SkConnObject *conn, enum flow_direction direction, size_t count)
{
    if (conn->valve->rate != NULL && !is_thrown_away(conn, direction)) {
        rate_note_moved(conn, direction, count);
    }
}

bool
valve_is_open(const SkConnObject *conn, enum flow_direction direction)
{
    const struct valve *valve = conn->valve;
    if (valve == NULL) {
        return true;
    }
    bool may_accept = direction == FLOW_OUT || valve->accept_limit != 0;
    return !valve->is_shut[direction] && !valve_has_no_peer(conn) && may_accept &&
           (valve->rate == NULL || !rate_is_held(conn, direction));
}

void
valve_release(SkConnObject *conn, enum flow_direction direction)
{
    if (conn->fd < 0 || !valve_is_open(conn, direction)) {
        return;
    }
    if (direction == FLOW_IN && conn->is_listener) {
        // The level tells by itself once somebody watches it.
        if (conn->reader != NULL || conn->callbacks != NULL) {
            conn_register(conn);
        }
    }
    if (direction == FLOW_IN && conn->callbacks != NULL) {
        // An event that was passed over may have told of the end; or not: it is looked at.
        conn->callbacks->has_hung_up |= conn->reads_to_the_end;
    }
    unsigned revents = conn->revents;
    conn->target.on_ready(&conn->target, direction == FLOW_IN ? EVENT_READ : EVENT_WRITE);
    conn->revents = revents; // it was no event
}

void
valve_quiet_listener(SkConnObject *conn)
{
    if (conn->is_listener && reactor_is_registered(&conn->hub->reactor, conn->fd)) {
        conn_register(conn);
    }
}

// --- Life -------------------------------------------------------------------------------

struct valve *
valve_of(SkConnObject *conn)
{
    if (conn->valve == NULL) {
        struct valve *valve = PyMem_Malloc(sizeof(*valve));
        if (valve == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *valve = (struct valve){.single_limit = {SIZE_MAX, SIZE_MAX}, .accept_limit = -1};
        conn->valve = valve;
    }
    return conn->valve;
}

void
valve_free_if_unused(SkConnObject *conn)
{
    const struct valve *valve = conn->valve;
    if (valve != NULL && !valve->is_shut[FLOW_IN] && !valve->is_shut[FLOW_OUT] &&
        !valve_has_no_peer(conn) && valve->single_limit[FLOW_IN] == SIZE_MAX &&
        valve->single_limit[FLOW_OUT] == SIZE_MAX && valve->accept_limit < 0 &&
        valve->rate == NULL) {
        valve_free(conn);
    }
}

void
valve_free(SkConnObject *conn)
{
    PyMem_Free(conn->valve);
    conn->valve = NULL;
}

// --- Connecting -------------------------------------------------------------------------

int
valve_hold_unconnected(SkConnObject *conn)
{
    if (!conn->is_socket || !conn->is_stream || conn->is_listener || conn->was_accepted) {
        return 0;
    }
    int ready = io_ready_now(conn->fd, EVENT_READ | EVENT_WRITE);
    // An end of the stream would be there to be read.
    if (ready < 0 || (ready & (EVENT_READ | EVENT_HANGUP)) != EVENT_HANGUP) {
        return 0;
    }
    struct valve *valve = valve_of(conn);
    if (valve == NULL) {
        return -1;
    }
    valve->is_unconnected = true;
    return 0;
}

void
valve_end_connect(SkConnObject *conn)
{
    if (conn->valve != NULL) {
        conn->valve->is_unconnected = conn->valve->is_connecting = false;
        valve_free_if_unused(conn);
    }
}

// --- Methods ----------------------------------------------------------------------------

// Also for one that was closed and still sends: what disable() holds is not lost yet.
static int
check_usable(SkConnObject *conn)
{
    if (conn->drain != NULL && !conn->hub->is_closed) {
        return hub_check_thread(conn->hub, "the connection");
    }
    return conn_check_usable(conn);
}

int
valve_convert_directions(PyObject *number, bool chosen[2])
{
    int events;
    if (convert_int(number, "events", 0, &events) < 0) {
        return -1;
    }
    if (events & ~(EVENT_READ | EVENT_WRITE)) {
        PyErr_Format(PyExc_ValueError, "events must be READ, WRITE or both, not %d",
                     events);
        return -1;
    }
    chosen[FLOW_IN] = (events & EVENT_READ) != 0;
    chosen[FLOW_OUT] = (events & EVENT_WRITE) != 0;
    return 0;
}

PyDoc_STRVAR(
    enable_doc,
    "enable($self, events, /)\n--\n\n"
    "Let the directions flow that disable() holds.\n\n"
    "events: READ, WRITE or both, or-ed together.\n\n"
    "At first both do. What was held goes on at once: output is sent, a reader that waits\n"
    "wakes, on_data() is called soon. Also after close(), while output is still being sent.\n"
    "Raises ValueError for other bits, ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_enable.");

static PyObject *
SkConn_enable(SkConnObject *conn, PyObject *events)
{
    bool chosen[2];
    if (valve_convert_directions(events, chosen) < 0 || check_usable(conn) < 0) {
        return NULL;
    }
    Py_INCREF(conn); // sending the last of it may end the draining
    for (enum flow_direction direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        if (chosen[direction] && conn_is_disabled(conn, direction)) {
            conn->valve->is_shut[direction] = false;
            valve_free_if_unused(conn);
            valve_release(conn, direction);
        }
    }
    Py_DECREF(conn);
    Py_RETURN_NONE;
}

static void
shut(SkConnObject *conn, enum flow_direction direction)
{
    conn->valve->is_shut[direction] = true;
    if (direction == FLOW_OUT) {
        conn->may_write = false;
        return;
    }
    conn->may_read = false;
    valve_quiet_listener(conn);
}

PyDoc_STRVAR(
    disable_doc,
    "disable($self, events, /)\n--\n\n"
    "Hold directions until enable() is called.\n\n"
    "events: READ, WRITE or both, or-ed together.\n\n"
    "Nothing is received: a task that reads waits, within its timeout, once it has taken what\n"
    "was received before; callbacks are not told. Nothing is sent: output stays queued, and\n"
    "after close() it is dropped when `linger` is over. A listener leaves connections in the\n"
    "system's queue. Raises ValueError for other bits, ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_disable; libreact's reactor_remove.");

static PyObject *
SkConn_disable(SkConnObject *conn, PyObject *events)
{
    bool chosen[2];
    if (valve_convert_directions(events, chosen) < 0 || check_usable(conn) < 0) {
        return NULL;
    }
    for (enum flow_direction direction = FLOW_IN; direction <= FLOW_OUT; direction++) {
        if (chosen[direction]) {
            if (valve_of(conn) == NULL) {
                return NULL;
            }
            shut(conn, direction);
        }
    }
    Py_RETURN_NONE;
}

// None, or not given: no limit. 0, or -1 with an exception.
static int
convert_limit(PyObject *number, const char *name, size_t *limit)
{
    Py_ssize_t size;
    if (convert_size(number == Py_None ? NULL : number, name, 1, -1, &size) < 0) {
        return -1;
    }
    *limit = size < 0 ? SIZE_MAX : (size_t)size;
    return 0;
}

PyDoc_STRVAR(
    set_single_limits_doc,
    "set_single_limits($self, /, read=None, write=None)\n--\n\n"
    "Set the most bytes that one system call may receive and send.\n\n"
    "read, write: bytes, None for no limit. So no turn of this connection is long, however much is there. The bytes are those on\n"
    "the wire, below TLS and other layers. Raises ValueError for less than 1, and for what is\n"
    "no stream, where it would cut packets; ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_set_max_single_read, bufferevent_set_max_single_write.");

static PyObject *
SkConn_set_single_limits(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                         PyObject *keyword_names)
{
    static const char *const names[] = {"read", "write", NULL};
    static const struct parameters parameters = {"set_single_limits", names, 0, 2};
    PyObject *values[2] = {NULL};
    size_t read_limit, write_limit;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_limit(values[0], "read", &read_limit) < 0 ||
        convert_limit(values[1], "write", &write_limit) < 0 ||
        conn_check_usable(conn) < 0) {
        return NULL;
    }
    if (!conn->is_stream) {
        PyErr_SetString(PyExc_ValueError,
                        "only a stream can have single limits: packets would be cut");
        return NULL;
    }
    if (valve_of(conn) == NULL) {
        return NULL;
    }
    conn->valve->single_limit[FLOW_IN] = read_limit;
    conn->valve->single_limit[FLOW_OUT] = write_limit;
    valve_free_if_unused(conn);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    get_single_limits_doc,
    "get_single_limits($self, /)\n--\n\n"
    "Return what set_single_limits() has set, a dict with \"read\" and \"write\". Never switches.");

static PyObject *
limit_to_python(const SkConnObject *conn, enum flow_direction direction)
{
    size_t limit = conn->valve == NULL ? SIZE_MAX : conn->valve->single_limit[direction];
    return limit == SIZE_MAX ? Py_NewRef(Py_None) : PyLong_FromSize_t(limit);
}

static PyObject *
SkConn_get_single_limits(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return Py_BuildValue("{sNsN}", "read", limit_to_python(conn, FLOW_IN), "write",
                         limit_to_python(conn, FLOW_OUT));
}

static PyObject *
get_enabled(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyLong_FromLong((conn_is_disabled(conn, FLOW_IN) ? 0 : EVENT_READ) |
                           (conn_is_disabled(conn, FLOW_OUT) ? 0 : EVENT_WRITE));
}

PyGetSetDef valve_attributes[] = {
    {"enabled", (getter)get_enabled, NULL,
     PyDoc_STR("The directions that disable() does not hold: READ and WRITE, or-ed."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef valve_methods[] = {
    {"enable", (PyCFunction)SkConn_enable, METH_O, enable_doc},
    {"disable", (PyCFunction)SkConn_disable, METH_O, disable_doc},
    {"set_single_limits", (PyCFunction)(void (*)(void))SkConn_set_single_limits,
     METH_FASTCALL | METH_KEYWORDS, set_single_limits_doc},
    {"get_single_limits", (PyCFunction)SkConn_get_single_limits, METH_NOARGS,
     get_single_limits_doc},
    {NULL, NULL, 0, NULL},
};
