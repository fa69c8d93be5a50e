// py_conn_accept.c: listening, and accepting by coroutines.
//
// Invariants: a descriptor that accept() took is owned by a connection or closed; a listener
// is watched only while somebody accepts, and not while it is paused.
//
// Not here: binding, which blocks nobody and is done on the stdlib's socket object
// (pycoronet.listen); what listeners with callbacks do (py_callbacks_accept.c).

#include "py_conn.h"

#include <errno.h>

#include "py_address.h"
#include "py_convert.h"
#include "py_valve.h"

// So many failed connections are passed over before others get their turn.
#define MAX_ACCEPT_FAILURES 16

// --- Listening --------------------------------------------------------------------------

PyObject *
conn_listen(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static const char *const names[] = {"conn", "backlog", NULL};
    static const struct parameters parameters = {"_listen", names, 2, 2};
    PyObject *values[2];
    int backlog;
    if (parse_arguments(&parameters, arguments, count, NULL, values) < 0 ||
        convert_int(values[1], "backlog", 0, &backlog) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(values[0], module_state_of(module)->conn_type)) {
        return PyErr_Format(PyExc_TypeError, "_listen() takes an sk_conn, not %s",
                            Py_TYPE(values[0])->tp_name);
    }
    SkConnObject *conn = (SkConnObject *)values[0];
    if (conn_check_socket(conn) < 0) {
        return NULL;
    }
    if (listen(conn->fd, backlog < 0 ? 0 : backlog) < 0) {
        return conn_raise(conn, -errno);
    }
    conn->is_listener = true;
    Py_RETURN_NONE;
}

void
conn_notice_listener(SkConnObject *conn)
{
    int is_listening = 0;
    socklen_t length = sizeof(is_listening);
    if (conn->is_socket && !conn->is_listener && !conn->was_accepted &&
        getsockopt(conn->fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &length) == 0) {
        conn->is_listener = is_listening != 0;
    }
}

// --- The limit --------------------------------------------------------------------------

// Counts one that was accepted; the last one that may be pauses the listener.
static void
count_accepted(SkConnObject *conn)
{
    struct valve *valve = conn->valve;
    if (valve != NULL && valve->accept_limit > 0 && --valve->accept_limit == 0) {
        valve_quiet_listener(conn);
    }
}

static PyObject *
get_accept_limit(SkConnObject *conn, void *unused)
{
    (void)unused;
    if (conn->valve == NULL || conn->valve->accept_limit < 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromLongLong(conn->valve->accept_limit);
}

static int
set_accept_limit(SkConnObject *conn, PyObject *number, void *unused)
{
    (void)unused;
    Py_ssize_t limit;
    if (convert_size(number == Py_None ? NULL : number, "accept_limit", 0, -1, &limit) <
            0 ||
        conn_check_usable(conn) < 0) {
        return -1;
    }
    conn_notice_listener(conn);
    if (limit >= 0 && !conn->is_listener) {
        PyErr_SetString(PyExc_ValueError,
                        "accept_limit: the connection is not a listener");
        return -1;
    }
    if (valve_of(conn) == NULL) {
        return -1;
    }
    bool was_open = valve_is_open(conn, FLOW_IN);
    conn->valve->accept_limit = limit;
    valve_free_if_unused(conn);
    if (limit == 0) {
        valve_quiet_listener(conn);
    }
    else if (!was_open) {
        valve_release(conn, FLOW_IN);
    }
    return 0;
}

// --- Accepting --------------------------------------------------------------------------

// True for errors of the connection that was to be accepted, not of the listener. Linux
// reports what the network did to it meanwhile; accept(2) says to treat that as EAGAIN.
static bool
is_failure_of_peer(int error)
{
    switch (-error) {
    case ECONNABORTED:
    case EPROTO:
    case EINTR:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
#if defined(ENONET)
    case ENONET:
#endif
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

// Takes a connection off the queue, parking until one is there. The descriptor, or -1
// with an exception.
static int
accept_descriptor(SkConnObject *conn, struct sockaddr_storage *address, socklen_t *length)
{
    int failure_count = 0;
    for (;;) {
        int fd = -EAGAIN;
        *length = sizeof(*address);
        if (conn_flows(conn, FLOW_IN)) {
            // Always tried: while nobody accepts, a listener gets no events.
            fd = io_accept(conn->fd, (struct sockaddr *)address, length);
            // If the kernel agrees. A watch for a plain connection is changed by the wait.
            conn->is_listener |= fd >= 0 || fd == -EAGAIN || fd == -ECONNABORTED;
        }
        if (fd >= 0) {
            return fd;
        }
        if (fd != -EAGAIN) {
            // A socket that does not listen gives EOPNOTSUPP, too.
            if (!conn->is_listener || !is_failure_of_peer(fd)) {
                conn_raise(conn, fd);
                return -1;
            }
            if (++failure_count < MAX_ACCEPT_FAILURES) {
                continue;
            }
        }
        failure_count = 0;
        conn->may_read = false;
        if (conn_wait_limit_ns(conn, FLOW_IN) == 0) {
            // Not even asked for: a Unix listener that was shut down is readable for ever.
            conn->error = ETIMEDOUT;
            raise_os_error(PyExc_TimeoutError, ETIMEDOUT, "accept timed out");
            return -1;
        }
        if (conn_wait_readable(conn, "accept") < 0 || conn_check_usable(conn) < 0) {
            return -1;
        }
    }
}

// The connection of a descriptor that the listener has given. A new reference, NULL with an
// exception and the descriptor closed.
static SkConnObject *
adopt_accepted(const SkConnObject *listener, int fd)
{
    SkConnObject *accepted = conn_adopt_socket(listener->hub, fd, listener->is_stream,
                                               listener->is_internet_stream);
    if (accepted != NULL) {
        accepted->was_accepted = true;
        accepted->server = Py_XNewRef(listener->server);
        accepted->traffic = listener->traffic;
        Py_XINCREF(accepted->traffic);
    }
    return accepted;
}

int
conn_accept_now(SkConnObject *conn, SkConnObject **accepted)
{
    *accepted = NULL;
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    int fd = io_accept(conn->fd, (struct sockaddr *)&storage, &length);
    if (fd < 0) {
        return fd != -EAGAIN && is_failure_of_peer(fd) && conn->is_listener ? 0 : fd;
    }
    *accepted = adopt_accepted(conn, fd);
    if (*accepted == NULL) {
        return 1;
    }
    count_accepted(conn);
    return 0;
}

PyDoc_STRVAR(
    accept_doc,
    "accept($self, /)\n--\n\n"
    "Wait for a connection to this listening socket: (sk_conn, the peer's\n"
    "address).\n\n"
    "The new descriptor is non-blocking, close-on-exec and, for TCP, without\n"
    "delay of small writes. Connections that failed while they were queued are\n"
    "passed over. May switch. Raises TimeoutError, ClosedError, BusyError if\n"
    "another task is accepting, or OSError: with EMFILE or ENFILE the connection\n"
    "stays queued. While disable(READ) or accept_limit pauses the listener it waits.\n\n"
    "Source: coronet's conet_accept.");

static PyObject *
SkConn_accept(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_socket(conn) < 0 || conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    struct sockaddr_storage storage;
    socklen_t length;
    int fd = accept_descriptor(conn, &storage, &length);
    if (fd < 0) {
        return NULL;
    }
    SkConnObject *accepted = adopt_accepted(conn, fd);
    if (accepted == NULL) {
        return NULL;
    }
    PyObject *address = address_to_python((const struct sockaddr *)&storage, length);
    PyObject *result =
        address == NULL ? NULL : PyTuple_Pack(2, (PyObject *)accepted, address);
    if (result == NULL) {
        conn_abort(accepted); // closed on purpose: nobody is to be warned of it
    }
    else {
        count_accepted(conn);
    }
    Py_XDECREF(address);
    Py_DECREF(accepted);
    return result;
}

// --- Sharing ----------------------------------------------------------------------------

static PyObject *
get_exclusive(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyBool_FromLong(conn->is_exclusive);
}

static int
set_exclusive(SkConnObject *conn, PyObject *value, void *unused)
{
    (void)unused;
    int is_true = value == NULL ? 0 : PyObject_IsTrue(value);
    if (is_true < 0 || conn_check_usable(conn) < 0) {
        return -1;
    }
    conn_notice_listener(conn);
    if (is_true && !conn->is_listener) {
        PyErr_SetString(PyExc_ValueError, "exclusive: the connection is not a listener");
        return -1;
    }
    conn->is_exclusive = is_true;
    int error =
        reactor_is_registered(&conn->hub->reactor, conn->fd) ? conn_register(conn) : 0;
    if (error < 0) {
        conn_raise(conn, error);
    }
    return error < 0 ? -1 : 0;
}

PyGetSetDef conn_accept_attributes[] = {
    {"exclusive", (getter)get_exclusive, (setter)set_exclusive,
     PyDoc_STR(
         "True: several processes accept from this listener, and one connection wakes one\n"
         "of them that waits, not all (EPOLLEXCLUSIVE). On other systems than Linux, and\n"
         "for callbacks with receive=False, all are woken. ValueError for no listener."),
     NULL},
    {"accept_limit", (getter)get_accept_limit, (setter)set_accept_limit,
     PyDoc_STR(
         "How many more connections a listener accepts, by whatever way, before it\n"
         "pauses as by disable(READ); None: no limit. Setting it begins anew."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef conn_accept_methods[] = {
    {"accept", (PyCFunction)SkConn_accept, METH_NOARGS, accept_doc},
    {NULL, NULL, 0, NULL},
};
