// py_conn_socket.c: what only sockets can: connect, names, options, shutdown.
//
// The methods of sk_conn by the socket module's names, and the module's _socket().
// Invariant: an error of connect() is the one the network gave, never a guess from
// readiness.
//
// Not here: several addresses of one name (pycoronet.connect), listening and accepting
// (py_conn_accept.c).

#include "py_conn.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "py_address.h"
#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_valve.h"

// No option is longer than this.
#define MAX_OPTION_SIZE 65536

// --- Making -----------------------------------------------------------------------------

SkConnObject *
conn_adopt_socket(HubObject *hub, int fd, bool is_stream, bool is_internet_stream)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        int error = errno;
        io_close(fd);
        raise_errno(-error);
        return NULL;
    }
    if (is_internet_stream) {
        // If it cannot be had, the connection works all the same.
        (void)io_set_no_delay(fd);
    }
    struct io_description description = {
        .device = (uint64_t)status.st_dev,
        .inode = (uint64_t)status.st_ino,
        .is_pollable = true,
        .is_socket = true,
        .is_stream = is_stream,
        .is_internet_stream = is_internet_stream,
        .was_nonblocking = true,
    };
    return conn_new(hub, fd, &description);
}

PyObject *
socket_open(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static const char *const names[] = {"family", "type", "protocol", NULL};
    static const struct parameters parameters = {"_socket", names, 2, 3};
    PyObject *values[3];
    int family;
    int type;
    int protocol;
    if (parse_arguments(&parameters, arguments, count, NULL, values) < 0 ||
        convert_int(values[0], "family", 0, &family) < 0 ||
        convert_int(values[1], "type", 0, &type) < 0 ||
        convert_int(values[2], "protocol", 0, &protocol) < 0) {
        return NULL;
    }
    HubObject *hub = hub_get(module_state_of(module));
    if (hub == NULL) {
        return NULL;
    }
#if defined(SOCK_NONBLOCK)
    // They are set in any case, and are no part of the type.
    type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
#endif
    int fd = io_socket(family, type, protocol);
    if (fd < 0) {
        return raise_errno(fd);
    }
    bool is_stream = type == SOCK_STREAM;
    return (PyObject *)conn_adopt_socket(
        hub, fd, is_stream, is_stream && (family == AF_INET || family == AF_INET6));
}

// --- Connecting -------------------------------------------------------------------------

// True if the socket has no peer, in spite of being ready and without an error.
static bool
is_unconnected(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    return getpeername(fd, (struct sockaddr *)&address, &length) < 0 && errno == ENOTCONN;
}

// Waits for the end of a connect that has begun. 0, or -1 with an exception.
static int
finish_connect(SkConnObject *conn)
{
    do {
        conn->may_write = false;
        // It may have been closed after it woke us and before our turn came.
        if (conn_wait_writable(conn, "connect") < 0 || conn_check_usable(conn) < 0) {
            return -1;
        }
        int error = io_take_socket_error(conn->fd);
        if (error < 0) {
            conn_raise(conn, error);
            return -1;
        }
        // A socket that was watched before counts as hung up, and so as ready, until it
        // begins to connect; that event may come only now.
    } while (is_unconnected(conn->fd));
    return 0;
}

// What a connect for callbacks has come to: [error] is 0 or -errno.
static void
settle_connect(SkConnObject *conn, int error)
{
    valve_end_connect(conn);
    conn->may_read = conn->may_write = true;
    if (error < 0) {
        conn_fail_output(conn, error); // on_error is due
    }
    else if (conn->callbacks != NULL) {
        conn->callbacks->is_connected = true;
        callbacks_notice(conn);
    }
}

bool
conn_end_connect(SkConnObject *conn, unsigned ready)
{
    if ((ready & (EVENT_WRITE | EVENT_ERROR | EVENT_HANGUP)) == 0) {
        return false; // not reached: an event of the time before
    }
    int error = io_take_socket_error(conn->fd);
    if (error == 0 && is_unconnected(conn->fd)) {
        // not reached: as above
        return false; // the event was of the time before
    }
    settle_connect(conn, error);
    return true;
}

// Begins to connect, for callbacks: they are told the end of it, an error of the network too.
// 0, or -1 with an exception.
static int
begin_connect(SkConnObject *conn, const struct sockaddr *address, socklen_t length)
{
    struct valve *valve = valve_of(conn);
    if (valve == NULL) {
        return -1; // not reached: it has one since set_callbacks()
    }
    // Linux accepts another connect() once after one that was waited for.
    int error =
        is_unconnected(conn->fd) ? io_connect(conn->fd, address, length) : -EISCONN;
    if (error == -EISCONN || error == -EALREADY) {
        valve_free_if_unused(conn);
        conn_raise(conn, error);
        return -1;
    }
    valve->is_unconnected = false;
    valve->is_connecting = true;
    int register_error = conn_register(conn);
    if (error != -EINPROGRESS || register_error < 0) {
        settle_connect(conn, error < 0 && error != -EINPROGRESS ? error : register_error);
        if (conn_has_output(conn)) {
            conn_mark_dirty(conn);
        }
    }
    callbacks_set_timeout(conn); // its time begins now
    idle_note_progress(conn->callbacks, FLOW_OUT);
    return 0;
}

PyDoc_STRVAR(
    connect_doc,
    "connect($self, address, /)\n--\n\n"
    "Connect the socket to address: (host, port), for IPv6 also (host, port,\n"
    "flowinfo, scope_id), or the path of a Unix socket.\n\n"
    "May switch, also to look a host name up. Raises TimeoutError, after which\n"
    "the socket is still open; ConnectionRefusedError or the OSError that the\n"
    "network gave; BlockingIOError at once if the queue of a Unix listener is\n"
    "full; ClosedError, BusyError.\n\n"
    "With callbacks it does not wait for the end: on_open() is called then, or\n"
    "on_error(conn, error, WRITE), after settimeout()'s or set_timeouts()' write\n"
    "time at the latest with TimeoutError. What is written before is queued. In a\n"
    "callback only addresses in numbers will do: a name would have to wait.\n\n"
    "Source: coronet's conet_connect; libevent's bufferevent_socket_connect.");

static PyObject *
SkConn_connect(SkConnObject *conn, PyObject *address)
{
    if (conn_check_socket(conn) < 0) {
        return NULL;
    }
    int family = io_socket_family(conn->fd);
    if (family < 0) {
        return conn_raise(conn, family);
    }
    struct sockaddr_storage storage;
    socklen_t length;
    if (address_from_python(conn->hub->state, address, family,
                            conn->is_stream ? SOCK_STREAM : SOCK_DGRAM, &storage,
                            &length) < 0 ||
        conn_begin(conn, conn->callbacks == NULL ? &conn->writer : NULL, "writing") < 0) {
        return NULL;
    }
    if (conn->callbacks != NULL) {
        return begin_connect(conn, (const struct sockaddr *)&storage, length) < 0
                   ? NULL
                   : Py_NewRef(Py_None);
    }
    int error = io_connect(conn->fd, (const struct sockaddr *)&storage, length);
    if (error == -EINPROGRESS) {
        if (finish_connect(conn) < 0) {
            return NULL;
        }
    }
    else if (error < 0) {
        return conn_raise(conn, error);
    }
    conn->may_read = conn->may_write = true;
    Py_RETURN_NONE;
}

// --- Names and shutdown -----------------------------------------------------------------

typedef int (*name_call)(int, struct sockaddr *, socklen_t *);

static PyObject *
ask_for_name(SkConnObject *conn, name_call ask)
{
    if (conn_check_socket(conn) < 0) {
        return NULL;
    }
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    if (ask(conn->fd, (struct sockaddr *)&storage, &length) < 0) {
        return conn_raise(conn, -errno);
    }
    return address_to_python((const struct sockaddr *)&storage, length);
}

PyDoc_STRVAR(
    getpeername_doc,
    "getpeername($self, /)\n--\n\n"
    "Return the address of the other end, in the form of the socket's family.\n\n"
    "Never switches. Raises OSError with ENOTCONN if there is none, ClosedError.");

static PyObject *
SkConn_getpeername(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return ask_for_name(conn, getpeername);
}

PyObject *
conn_describe_address(SkConnObject *conn)
{
    struct sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    name_call ask = conn->is_listener ? getsockname : getpeername;
    if (!conn->is_socket || conn->fd < 0 ||
        ask(conn->fd, (struct sockaddr *)&storage, &length) < 0) {
        return PyUnicode_FromString("");
    }
    PyObject *address = address_to_python((const struct sockaddr *)&storage, length);
    if (address == NULL) {
        return NULL;
    }
    // Most Unix sockets have no name.
    PyObject *text =
        PyObject_IsTrue(address) == 0
            ? PyUnicode_FromString("")
            : PyUnicode_FromFormat(conn->is_listener ? " listening on %R" : " to %R",
                                   address);
    Py_DECREF(address);
    return text;
}

PyDoc_STRVAR(getsockname_doc,
             "getsockname($self, /)\n--\n\n"
             "Return the socket's own address, in the form of its family.\n\n"
             "Never switches. Raises ClosedError, or OSError if it is no socket.");

static PyObject *
SkConn_getsockname(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return ask_for_name(conn, getsockname);
}

// A peer that has broken off is no peer any more: ENOTCONN. The reset itself still waits in
// the socket, and is what the caller has to hear of, the same as from a read or a write.
static int
why_no_shutdown(SkConnObject *conn, int error)
{
    int reset = error == -ENOTCONN ? io_take_socket_error(conn->fd) : 0;
    conn_note_break(conn, reset);
    return reset < 0 ? reset : error;
}

PyDoc_STRVAR(
    shutdown_doc,
    "shutdown($self, how, /)\n--\n\n"
    "End one direction or both.\n\n"
    "how: SHUT_RD, SHUT_WR or SHUT_RDWR of the socket module.\n\n"
    "Ending the writing sends before what waits in the output queue, and so may switch;\n"
    "layers end then. If it is interrupted, nothing has ended, and writing may go on; once\n"
    "a layer has said its last words it may not (BrokenPipeError), and a second call ends the\n"
    "rest. Raises OSError (ENOTCONN without a peer; what the peer did if it has broken off),\n"
    "TimeoutError, ClosedError, BusyError.");

// Sends what waits, and then the layers' last words: not before, for behind these nothing
// can be written any more. 0, or -1 with an exception.
static int
finish_writing(SkConnObject *conn)
{
    if (conn_send_pending(conn, "shutdown") < 0) {
        return -1;
    }
    if (conn->transport == NULL) {
        return 0;
    }
    transport_add_all_marks(conn);
    int error = conn_send_pending(conn, "shutdown");
    if (error < 0 && conn->transport != NULL) {
        transport_withdraw_marks(conn);
    }
    return error;
}

static PyObject *
SkConn_shutdown(SkConnObject *conn, PyObject *how)
{
    int direction;
    if (convert_int(how, "how", 0, &direction) < 0 || conn_check_socket(conn) < 0) {
        return NULL;
    }
    // Who only reads is not kept from it by a writer that waits.
    if (direction != SHUT_RD) {
        if (conn_begin(conn, &conn->writer, "writing") < 0 || finish_writing(conn) < 0) {
            return NULL;
        }
    }
    if (shutdown(conn->fd, direction) < 0) {
        return conn_raise(conn, why_no_shutdown(conn, -errno));
    }
    // The end of file is there to be read now, and an event may not come.
    conn->may_read = conn->may_write = true;
    Py_RETURN_NONE;
}

// --- Options ----------------------------------------------------------------------------

PyDoc_STRVAR(
    getsockopt_doc,
    "getsockopt($self, level, optname, buflen=0, /)\n--\n\n"
    "Return a socket option: an int, or with buflen bytes of at most that length.\n\n"
    "level, optname: as in the socket module.\n\n"
    "Never switches. Raises ValueError for a buflen below 0 or above 65536,\n"
    "OSError, ClosedError.");

static PyObject *
SkConn_getsockopt(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    static const char *const names[] = {"level", "optname", "buflen", NULL};
    static const struct parameters parameters = {"getsockopt", names, 2, 3};
    PyObject *values[3];
    int level;
    int option;
    Py_ssize_t size;
    if (parse_arguments(&parameters, arguments, count, NULL, values) < 0 ||
        convert_int(values[0], "level", 0, &level) < 0 ||
        convert_int(values[1], "optname", 0, &option) < 0 ||
        convert_size(values[2], "buflen", 0, 0, &size) < 0 ||
        conn_check_socket(conn) < 0) {
        return NULL;
    }
    if (size > MAX_OPTION_SIZE) {
        return PyErr_Format(PyExc_ValueError, "buflen must be at most %d",
                            MAX_OPTION_SIZE);
    }
    if (size == 0) {
        int number = 0;
        socklen_t length = sizeof(number);
        if (getsockopt(conn->fd, level, option, &number, &length) < 0) {
            return conn_raise(conn, -errno);
        }
        return PyLong_FromLong(number);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes == NULL) {
        return NULL;
    }
    socklen_t length = (socklen_t)size;
    if (getsockopt(conn->fd, level, option, PyBytes_AS_STRING(bytes), &length) < 0) {
        int error = errno;
        Py_DECREF(bytes);
        return conn_raise(conn, -error);
    }
    _PyBytes_Resize(&bytes, (Py_ssize_t)length);
    return bytes;
}

// Sets an option whose value is an int or bytes-like. 0, -errno, or 1 with an exception.
static int
set_option(SkConnObject *conn, int level, int option, PyObject *value)
{
    if (PyIndex_Check(value)) {
        int number;
        if (convert_int(value, "value", 0, &number) < 0) {
            return 1;
        }
        return setsockopt(conn->fd, level, option, &number, sizeof(number)) < 0 ? -errno
                                                                                : 0;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        return 1;
    }
    int error = -EINVAL;
    if (view.len <= MAX_OPTION_SIZE) {
        error = setsockopt(conn->fd, level, option, view.buf, (socklen_t)view.len) < 0
                    ? -errno
                    : 0;
    }
    PyBuffer_Release(&view);
    return error;
}

// Sets an option without a value but with a length, as some of the kernel's are set.
static int
set_option_length(SkConnObject *conn, int level, int option, PyObject *length)
{
    Py_ssize_t size;
    if (convert_size(length, "optlen", 0, 0, &size) < 0) {
        return 1;
    }
    if (size > MAX_OPTION_SIZE) {
        return -EINVAL;
    }
    return setsockopt(conn->fd, level, option, NULL, (socklen_t)size) < 0 ? -errno : 0;
}

PyDoc_STRVAR(setsockopt_doc,
             "setsockopt($self, level, optname, value, /, optlen=0)\n--\n\n"
             "Set a socket option to an int or bytes-like value, or to None with the\n"
             "length optlen.\n\n"
             "level, optname: as in the socket module.\n\n"
             "Never switches. Raises OSError, ClosedError.");

static PyObject *
SkConn_setsockopt(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names)
{
    static const char *const names[] = {"level", "optname", "value", "optlen", NULL};
    static const struct parameters parameters = {"setsockopt", names, 3, 4};
    PyObject *values[4];
    int level;
    int option;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_int(values[0], "level", 0, &level) < 0 ||
        convert_int(values[1], "optname", 0, &option) < 0 ||
        conn_check_socket(conn) < 0) {
        return NULL;
    }
    if ((values[2] == Py_None) != (values[3] != NULL)) {
        PyErr_SetString(PyExc_TypeError, "setsockopt() takes optlen if value is None, "
                                         "and only then");
        return NULL;
    }
    int error = values[2] == Py_None ? set_option_length(conn, level, option, values[3])
                                     : set_option(conn, level, option, values[2]);
    if (error < 0) {
        return conn_raise(conn, error);
    }
    if (error > 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef conn_socket_methods[] = {
    {"connect", (PyCFunction)SkConn_connect, METH_O, connect_doc},
    {"shutdown", (PyCFunction)SkConn_shutdown, METH_O, shutdown_doc},
    {"getpeername", (PyCFunction)SkConn_getpeername, METH_NOARGS, getpeername_doc},
    {"getsockname", (PyCFunction)SkConn_getsockname, METH_NOARGS, getsockname_doc},
    {"getsockopt", (PyCFunction)(void (*)(void))SkConn_getsockopt, METH_FASTCALL,
     getsockopt_doc},
    {"setsockopt", (PyCFunction)(void (*)(void))SkConn_setsockopt,
     METH_FASTCALL | METH_KEYWORDS, setsockopt_doc},
    {NULL, NULL, 0, NULL},
};
