// py_conn_read.c: receiving, and reading blocks: what is there, so many bytes.
//
// A read lands in the hub's scratch area first, so that a bytes object of the exact size
// can be made; the connection owns a buffer only while it holds bytes that nobody has
// taken. Invariant: bytes leave the kernel or the buffer only into what the caller gets
// or into the buffer; a time-out, a limit or a missing line leaves them readable.

#include "py_conn.h"

#include <errno.h>
#include <string.h>

#include "py_convert.h"
#include "py_layer.h"
#include "py_traffic.h"

// --- Receiving --------------------------------------------------------------------------

// conn_receive_now() past the valve.
static inline ssize_t
receive_freely(SkConnObject *conn, char *data, size_t length)
{
    ssize_t count;
    if (!conn->is_socket) {
        count = io_read(conn->fd, data, length);
    }
    else if (length <= GIL_RELEASE_SIZE) {
        count = io_receive(conn->fd, data, length);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        count = io_receive(conn->fd, data, length);
        Py_END_ALLOW_THREADS
    }
    // A short read has emptied a TCP socket: the next edge tells, and asking once more
    // only to hear EAGAIN would cost a system call. Not after a hang-up or urgent data
    // were seen, for they end a read short with more to come and no further edge.
    if (count == -EAGAIN || (count > 0 && (size_t)count < length &&
                             conn->is_internet_stream && !conn->reads_to_the_end)) {
        conn->may_read = false;
    }
    return conn_tell(conn, count, 0);
}

static ssize_t
receive_held(SkConnObject *conn, char *data, size_t length)
{
    size_t allowed = valve_allowance(conn, FLOW_IN, length);
    if (allowed == 0) {
        conn->may_read = false;
        return -EAGAIN;
    }
    return receive_freely(conn, data, allowed);
}

ssize_t
conn_receive_now(SkConnObject *conn, char *data, size_t length)
{
    ssize_t count = conn->valve == NULL ? receive_freely(conn, data, length)
                                        : receive_held(conn, data, length);
    return conn_note_moved(conn, FLOW_IN, count);
}

// Receives into [data], parking until something is there. The count, 0 at the end of
// file, INPUT_PREPENDED, or -1 with an exception. [data] must outlive a switch.
static inline ssize_t
receive(SkConnObject *conn, char *data, size_t length, const char *operation)
{
    for (;;) {
        if (conn->may_read) {
            ssize_t count = conn_receive_now(conn, data, length);
            if (count >= 0) {
                return count;
            }
            if (count != -EAGAIN) {
                conn_raise(conn, count);
                return -1;
            }
        }
        size_t held = line_buffer_length(&conn->input);
        if (conn_wait_readable(conn, operation) < 0) {
            return -1;
        }
        if (line_buffer_length(&conn->input) != held) {
            return INPUT_PREPENDED;
        }
    }
}

ssize_t
conn_receive(SkConnObject *conn, char *data, size_t length, const char *operation)
{
    return receive(conn, data, length, operation);
}

int
conn_keep_input(SkConnObject *conn, const char *data, size_t length)
{
    if (length == 0 || line_buffer_append(&conn->input, data, length) == 0) {
        return 0;
    }
    conn->error = ENOMEM;
    conn_abort(conn);
    PyErr_NoMemory();
    return -1;
}

// fill_input() for a connection with layers.
static int
fill_through_layers(SkConnObject *conn, const char *operation)
{
    PyObject *plain = transport_receive(conn, operation);
    if (plain == NULL || plain == Py_None) {
        Py_XDECREF(plain);
        return plain == NULL ? -1 : FILLED_IN_FRONT;
    }
    size_t length = (size_t)PyBytes_GET_SIZE(plain);
    int error = conn_keep_input(conn, PyBytes_AS_STRING(plain), length);
    Py_DECREF(plain);
    return error < 0 ? -1 : length > 0;
}

int
conn_fill_input(SkConnObject *conn, size_t wanted, const char *operation)
{
    if (conn->transport != NULL) {
        return fill_through_layers(conn, operation);
    }
    size_t size = wanted < READ_CHUNK_SIZE    ? READ_CHUNK_SIZE
                  : wanted > HUB_SCRATCH_SIZE ? HUB_SCRATCH_SIZE
                                              : wanted;
    ssize_t count =
        receive(conn, conn->hub->scratch, conn_receive_size(conn, size), operation);
    if (count <= 0) {
        return count == INPUT_PREPENDED ? FILLED_IN_FRONT : (int)count;
    }
    return conn_keep_input(conn, conn->hub->scratch, (size_t)count) < 0 ? -1 : 1;
}

// What the buffer holds, at most [size] bytes of it; b"" if it holds none.
static PyObject *
take_up_to(SkConnObject *conn, size_t size)
{
    size_t held = line_buffer_length(&conn->input);
    return conn_take_input(conn, held < size ? held : size);
}

// --- Blocks -----------------------------------------------------------------------------

// read_some() for a connection with layers. What they give at once is the caller's if it is
// not too much, without being copied.
static PyObject *
read_some_through_layers(SkConnObject *conn, size_t size, const char *operation)
{
    PyObject *plain = transport_receive(conn, operation);
    if (plain == Py_None) {
        Py_DECREF(plain);
        return take_up_to(conn, size);
    }
    if (plain == NULL) {
        return NULL;
    }
    line_buffer_end_run(&conn->input);
    if ((size_t)PyBytes_GET_SIZE(plain) <= size) {
        return plain;
    }
    int error =
        conn_keep_input(conn, PyBytes_AS_STRING(plain), (size_t)PyBytes_GET_SIZE(plain));
    Py_DECREF(plain);
    return error < 0 ? NULL : take_up_to(conn, size);
}

static PyObject *
read_some(SkConnObject *conn, PyObject *number, const char *operation)
{
    Py_ssize_t size;
    if (convert_size(number, "n", 0, 0, &size) < 0 ||
        conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    if (line_buffer_length(&conn->input) > 0 || size == 0) {
        return take_up_to(conn, (size_t)size);
    }
    if (conn->transport != NULL) {
        return read_some_through_layers(conn, (size_t)size, operation);
    }
    char *scratch = conn->hub->scratch;
    size_t room = (size_t)size < HUB_SCRATCH_SIZE ? (size_t)size : HUB_SCRATCH_SIZE;
    ssize_t count = receive(conn, scratch, room, operation);
    if (count < 0) {
        return count == INPUT_PREPENDED ? take_up_to(conn, (size_t)size) : NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(scratch, count);
    if (bytes == NULL) {
        conn_keep_input(conn, scratch, (size_t)count);
        return NULL;
    }
    line_buffer_end_run(&conn->input);
    return bytes;
}

PyDoc_STRVAR(
    readsome_doc,
    "readsome($self, n, /)\n--\n\n"
    "Return what is there, at least one byte and at most n; b\"\" at the end of file.\n\n"
    "Never more than 256 KiB at once. May switch. Raises TimeoutError, ClosedError,\n"
    "BusyError if another task is reading, or the OSError of the failure.\n\n"
    "Source: coronet's conet_readsome.");

static PyObject *
SkConn_readsome(SkConnObject *conn, PyObject *number)
{
    return read_some(conn, number, "readsome");
}

PyDoc_STRVAR(recv_doc,
             "recv($self, n, /)\n--\n\n"
             "The same as readsome(n), by the socket module's name. May switch.\n\n"
             "Source: Python's socket.socket.recv; coronet's conet_readsome.");

static PyObject *
SkConn_recv(SkConnObject *conn, PyObject *number)
{
    return read_some(conn, number, "recv");
}

PyDoc_STRVAR(
    recv_into_doc,
    "recv_into($self, buffer, /)\n--\n\n"
    "Read what is there into a writable bytes-like object; return the number of bytes.\n\n"
    "0 at the end of file (or for an empty buffer). May switch. Raises what readsome()\n"
    "raises. The buffer cannot be resized meanwhile.");

// Receives or takes bytes into the caller's place. The count, 0 at the end of file, or -1
// with an exception.
static ssize_t
read_into(SkConnObject *conn, char *place, size_t size)
{
    if (conn_begin(conn, &conn->reader, "reading") < 0) {
        return -1;
    }
    if (size > 0 && line_buffer_length(&conn->input) == 0) {
        // With layers nothing is received straight into the caller's buffer.
        ssize_t count = conn->transport == NULL ? receive(conn, place, size, "recv_into")
                                                : fill_through_layers(conn, "recv_into");
        if (line_buffer_length(&conn->input) == 0 || count == -1) {
            if (count > 0) {
                line_buffer_end_run(&conn->input);
            }
            return count;
        }
    }
    size_t held = line_buffer_length(&conn->input);
    size_t length = held < size ? held : size;
    if (length > 0) {
        memcpy(place, line_buffer_data(&conn->input), length);
        line_buffer_drain(&conn->input, length);
    }
    return (ssize_t)length;
}

static PyObject *
SkConn_recv_into(SkConnObject *conn, PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    ssize_t count = read_into(conn, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

// Fills the buffer up to as many bytes as [number] says, which is stored in [*size]. 1, 0 if
// the end of file came first, -1 with an exception; what was received is in the buffer in
// any case.
static int
fill_up_to(SkConnObject *conn, PyObject *number, const char *operation, size_t *size)
{
    Py_ssize_t wanted;
    if (convert_size(number, "n", 0, 0, &wanted) < 0 ||
        conn_begin(conn, &conn->reader, "reading") < 0) {
        return -1;
    }
    *size = (size_t)wanted;
    size_t held;
    while ((held = line_buffer_length(&conn->input)) < *size) {
        int filled = conn_fill_input(conn, *size - held, operation);
        if (filled <= 0) {
            return filled;
        }
    }
    return 1;
}

PyDoc_STRVAR(
    read_doc,
    "read($self, n, /)\n--\n\n"
    "Return exactly n bytes, or fewer if the end of file comes first.\n\n"
    "May switch. Raises what readsome() raises; what had been received by then stays\n"
    "readable.\n\n"
    "Source: coronet's conet_read.");

static PyObject *
SkConn_read(SkConnObject *conn, PyObject *number)
{
    size_t size;
    int filled = fill_up_to(conn, number, "read", &size);
    return filled < 0 ? NULL : take_up_to(conn, size);
}

PyObject *
conn_raise_incomplete(SkConnObject *conn)
{
    PyObject *partial = take_up_to(conn, SIZE_MAX);
    if (partial == NULL) {
        return NULL;
    }
    PyObject *exception =
        PyObject_CallOneArg(conn->hub->state->IncompleteReadError, partial);
    Py_DECREF(partial);
    return raise_object(exception);
}

PyDoc_STRVAR(
    read_exactly_doc,
    "read_exactly($self, n, /)\n--\n\n"
    "Return exactly n bytes.\n\n"
    "May switch. Raises IncompleteReadError if the end of file comes first, with what there\n"
    "was as .partial; otherwise as read().");

static PyObject *
SkConn_read_exactly(SkConnObject *conn, PyObject *number)
{
    size_t size;
    int filled = fill_up_to(conn, number, "read_exactly", &size);
    if (filled < 0) {
        return NULL;
    }
    return filled ? take_up_to(conn, size) : conn_raise_incomplete(conn);
}

// --- Waiting for input -------------------------------------------------------------------

#define LOOK_AGAIN 2

// Whether a read would return at once: 1, 0, or -1 with an exception. Through layers it has to
// receive, for only they know whether anything comes out; after that LOOK_AGAIN.
static int
look_for_input(SkConnObject *conn)
{
    if (line_buffer_length(&conn->input) > 0 || transport_has_ended(conn)) {
        return 1;
    }
    if (!conn->may_read) {
        return 0;
    }
    if (conn->transport != NULL) {
        int status = transport_receive_now(conn);
        return status == -EAGAIN ? 0 : status < 0 ? -1 : status == 0 ? 1 : LOOK_AGAIN;
    }
    bool may_flow = conn->valve == NULL || valve_allowance(conn, FLOW_IN, 1) > 0;
    int ready = may_flow ? io_ready_now(conn->fd, EVENT_READ) : 0;
    if (ready < 0) {
        conn_raise(conn, ready); // not reached: poll(2) takes one descriptor
        return -1;
    }
    conn->may_read = ready != 0;
    return ready != 0;
}

// Waits until there is input or the end of it: 1, 0 when [limit_ns] is over, -1 with an
// exception.
static int
wait_for_input(SkConnObject *conn, int64_t limit_ns)
{
    struct reactor *reactor = &conn->hub->reactor;
    uint64_t began_ns = limit_ns > 0 ? reactor_now_ns(reactor) : 0;
    int64_t left_ns = limit_ns;
    for (;;) {
        // Each time anew: it may let others run, who may close the connection or read.
        if (conn_begin(conn, &conn->reader, "reading") < 0) {
            return -1;
        }
        int status = look_for_input(conn);
        if (status == LOOK_AGAIN) {
            continue;
        }
        if (status != 0) {
            return status;
        }
        conn->reader_wants_room = transport_owes_answers(conn);
        status = conn_park_within(conn, &conn->reader, left_ns, "wait_input");
        conn->reader_wants_room = false;
        if (status != 0) {
            return status < 0 ? -1 : 0;
        }
        if (limit_ns > 0) {
            // An event that brought nothing to read does not start it anew.
            int64_t passed_ns = (int64_t)(reactor_now_ns(reactor) - began_ns);
            left_ns = passed_ns < limit_ns ? limit_ns - passed_ns : 0;
        }
    }
}

PyDoc_STRVAR(
    wait_input_doc,
    "wait_input($self, /, timeout=None)\n--\n\n"
    "Wait until there is something to read, and take nothing: True; False in vain.\n\n"
    "timeout: seconds, 0 only looks; the connection's own timeout bounds it as well. True\n"
    "also when a read will tell of the end of file or raise what went wrong. For the pause\n"
    "between two requests, which may end without one. With layers it waits until something\n"
    "has come out of them. May switch. Raises ClosedError, BusyError if another task is\n"
    "reading, OSError, and what a layer raises, which closes the connection.");

static PyObject *
SkConn_wait_input(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names)
{
    static const char *const names[] = {"timeout", NULL};
    static const struct parameters parameters = {"wait_input", names, 0, 1};
    PyObject *timeout;
    int64_t limit_ns;
    if (parse_arguments(&parameters, arguments, count, keyword_names, &timeout) < 0 ||
        convert_timeout(timeout, &limit_ns) < 0) {
        return NULL;
    }
    int64_t own_ns = conn_wait_limit_ns(conn, FLOW_IN);
    bool is_shorter = own_ns >= 0 && (limit_ns < 0 || own_ns < limit_ns);
    int status = wait_for_input(conn, is_shorter ? own_ns : limit_ns);
    return status < 0 ? NULL : PyBool_FromLong(status);
}

PyMethodDef conn_read_methods[] = {
    {"readsome", (PyCFunction)SkConn_readsome, METH_O, readsome_doc},
    {"recv", (PyCFunction)SkConn_recv, METH_O, recv_doc},
    {"recv_into", (PyCFunction)SkConn_recv_into, METH_O, recv_into_doc},
    {"read", (PyCFunction)SkConn_read, METH_O, read_doc},
    {"read_exactly", (PyCFunction)SkConn_read_exactly, METH_O, read_exactly_doc},
    {"wait_input", (PyCFunction)(void (*)(void))SkConn_wait_input,
     METH_FASTCALL | METH_KEYWORDS, wait_input_doc},
    {NULL, NULL, 0, NULL},
};
