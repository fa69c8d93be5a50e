// py_conn_write.c: writing: straight to the kernel, or by way of the output queue.
//
// Order is kept by one rule: nothing is sent past packets that wait in the queue. A write
// that finds it empty tries the kernel at once; what the kernel does not take becomes a packet
// that refers to the caller's memory, and the caller waits until that has left. So whatever
// others queue meanwhile comes behind it. With `buffered` on, small writes only join the
// queue, and the connection joins the hub's dirty list; the queue leaves in one call when the
// writing task parks or ends. What the kernel does not take then is sent from the event that
// says there is room.
//
// Not here: sending what the queue holds (py_conn_send.c), enqueue and sendfile
// (py_conn_output.c, py_conn_file.c).

#include "py_conn.h"

#include <errno.h>

#include "py_convert.h"
#include "py_layer.h"

// --- Pausing ----------------------------------------------------------------------------

bool
conn_writer_must_wait(const SkConnObject *conn)
{
    if (conn->waiting_owner == NULL) {
        // With layers it has left the queue, but perhaps not us.
        return !conn->pauses_to_low_mark && transport_wire_length(conn) > 0;
    }
    return !(conn->pauses_to_low_mark && write_queue_length(&conn->output) <=
                                             conn_options_of(conn)->low_mark[FLOW_OUT]);
}

void
conn_note_left(SkConnObject *conn, uint64_t unsent)
{
    conn->waiting_owner = NULL;
    conn->writer_unsent = unsent;
}

uint64_t
conn_pending(SkConnObject *conn)
{
    uint64_t not_taken =
        conn->waiting_owner == conn ? write_queue_left_of(&conn->output, conn) : 0;
    return conn_unsent(conn) - not_taken;
}

void
conn_withdraw_write(SkConnObject *conn)
{
    if (conn->waiting_owner != NULL) {
        write_queue_withdraw(&conn->output, conn->waiting_owner);
    }
}

// Lets the others run while this connection has used its turn up. 0, or -1 with an exception.
static int
give_way(SkConnObject *conn, const char *operation)
{
    if (hub_park(conn->hub, &conn->writer, NULL, WAITS_FOR_TURN, -1, operation,
                 (PyObject *)conn) < 0) {
        // not reached: a kernel that takes a turn's worth at once
        return -1;
    }
    if (conn->is_closed) {
        // not reached: as above
        conn_raise_closed(conn);
        return -1;
    }
    return 0;
}

int
conn_pause_writer(SkConnObject *conn, bool to_low_mark, const char *operation)
{
    int status = 0;
    conn->pauses_to_low_mark = to_low_mark;
    while (status == 0 && conn_writer_must_wait(conn)) {
        int result = conn_flush(conn);
        if (conn->is_closed) {
            conn_raise_closed(conn); // by a layer that failed
            return -1;
        }
        if (!conn_writer_must_wait(conn)) {
            break; // whatever the result: a failure drops the packet too
        }
        conn->writer_is_paused = true;
        status = result == FLUSH_GOES_ON ? give_way(conn, operation)
                                         : conn_wait_writable(conn, operation);
        conn->writer_is_paused = false;
    }
    if (status == 0 && conn->write_error < 0) {
        // Told here and now, so that a later close() need not tell it again.
        status = conn_raise_write_error(conn);
    }
    return status;
}

// --- Writing ----------------------------------------------------------------------------

void
conn_note_bytes_written(size_t written)
{
    PyObject *exception = take_exception();
    PyObject *number = PyLong_FromSize_t(written);
    if (number == NULL ||
        PyObject_SetAttrString(exception, "bytes_written", number) < 0) {
        PyErr_Clear(); // no memory for it: the exception itself matters more
    }
    Py_XDECREF(number);
    restore_exception(exception);
}

static void
release_own_write(void *owner, uint64_t unsent)
{
    conn_note_left(owner, unsent);
}

// Queues [data], which the caller keeps in place, and waits until it has left; with
// [to_low_mark] only until no more than that waits, of which the queue keeps a copy. 0, or
// -1 with an exception; stores how much of it was not sent. [bytes]: the bytes object that
// [data] is of, or NULL.
static int
write_by_queue(SkConnObject *conn, const char *data, size_t length, PyObject *bytes,
               bool to_low_mark, const char *operation, size_t *unsent)
{
    const struct write_placing placing = {transport_top(conn), false, false};
    struct write_queue batch;
    write_queue_init(&batch);
    *unsent = length;
    if (write_queue_refer(&batch, data, length, release_own_write, conn) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    write_queue_join(&conn->output, &batch, &placing);
    conn->waiting_owner = conn;
    if (conn->transport != NULL) {
        conn->transport->written = bytes;
    }
    int status = conn_pause_writer(conn, to_low_mark, operation);
    if (status == 0 && conn->waiting_owner != NULL &&
        write_queue_keep_copy(&conn->output, conn) < 0) {
        // not reached: what is left, without memory
        status = conn_pause_writer(conn, false, operation);
    }
    conn_withdraw_write(conn);
    *unsent = (size_t)conn->writer_unsent;
    return status;
}

// Sends [data] behind all that waits, parking as often as it takes. 0, or -1 with an
// exception that says how much of [data] was written.
static int
write_through(SkConnObject *conn, const char *data, size_t length, PyObject *bytes,
              bool to_low_mark, const char *operation)
{
    size_t written = 0;
    // What a valve may hold or cap goes by way of the queue.
    while (conn->may_write && written < length && conn->transport == NULL &&
           conn->valve == NULL && write_queue_is_empty(&conn->output)) {
        ssize_t count = conn_send_now(conn, data + written, length - written);
        if (count >= 0) {
            written += (size_t)count;
        }
        else if (count == -EAGAIN) {
            conn->may_write = false;
        }
        else {
            conn_raise(conn, count);
            goto fail;
        }
    }
    if (written == length && !conn_has_output(conn)) {
        return 0;
    }
    size_t unsent;
    if (write_by_queue(conn, data + written, length - written, bytes, to_low_mark,
                       operation, &unsent) < 0) {
        written = length - unsent;
        goto fail;
    }
    return 0;
fail:
    conn_note_bytes_written(written);
    return -1;
}

int
conn_raise_write_error(SkConnObject *conn)
{
    int error = conn->write_error;
    conn->write_error = 0;
    if (conn->is_cut_off && error == -EIO) {
        conn->error = EIO;
        raise_os_error(PyExc_OSError, EIO,
                       "a file could not be sent to the end that it had: the stream is "
                       "cut off in the middle");
    }
    else if (error == 0) {
        conn->error = EPIPE;
        raise_os_error(PyExc_BrokenPipeError, EPIPE,
                       "the stream was cut off in the middle of a file");
    }
    else {
        conn_raise(conn, error);
    }
    return -1;
}

static int
begin_write(SkConnObject *conn)
{
    if (conn_begin(conn, &conn->writer, "writing") < 0) {
        conn_note_bytes_written(0);
        return -1;
    }
    if (conn->write_error < 0 || conn->is_cut_off) {
        // An earlier flush failed with nobody there to tell.
        conn_raise_write_error(conn);
        conn_note_bytes_written(0);
        return -1;
    }
    return 0;
}

static int
write_bytes(SkConnObject *conn, const char *data, size_t length, PyObject *bytes,
            const char *operation)
{
    if (begin_write(conn) < 0) {
        return -1;
    }
    // A callback cannot wait until there is room; all it writes leaves together.
    bool must_collect = conn->hub->is_serving && conn->is_stream;
    if (!must_collect && !conn->is_buffered) {
        return write_through(conn, data, length, bytes, false, operation);
    }
    if (!must_collect && write_queue_length(&conn->output) + length >
                             conn_options_of(conn)->high_mark[FLOW_OUT]) {
        return write_through(conn, data, length, bytes, true, operation);
    }
    if (write_queue_append(&conn->output, data, length, transport_top(conn),
                           &conn->hub->spare_packet) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    conn_mark_dirty(conn);
    return 0;
}

// Writes any bytes-like object; stores its length. 0, or -1 with an exception.
static int
write_object(SkConnObject *conn, PyObject *data, const char *operation,
             Py_ssize_t *length)
{
    if (PyBytes_CheckExact(data)) {
        // The caller holds it, and it cannot change: no buffer view is needed.
        *length = PyBytes_GET_SIZE(data);
        return write_bytes(conn, PyBytes_AS_STRING(data), (size_t)*length, data,
                           operation);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    *length = view.len;
    int error = write_bytes(conn, view.buf, (size_t)view.len, NULL, operation);
    PyBuffer_Release(&view);
    return error;
}

// --- Methods ----------------------------------------------------------------------------

PyDoc_STRVAR(
    write_doc,
    "write($self, data, /)\n--\n\n"
    "Write all of data (bytes-like) and return its length.\n\n"
    "With `buffered` on, small writes are collected and sent together when the task next\n"
    "waits or ends; one that would make more than the high mark wait sends at once, and\n"
    "waits until no more than the low mark is left. Otherwise it returns when the kernel\n"
    "has taken everything. May switch.\n"
    "Raises TimeoutError, ClosedError, BusyError if another task is writing, or the OSError\n"
    "of the failure; `bytes_written` on the exception says how much of data went out.\n\n"
    "Source: coronet's conet_write; libevent's evbuffer_add.");

static PyObject *
SkConn_write(SkConnObject *conn, PyObject *data)
{
    Py_ssize_t length;
    if (write_object(conn, data, "write", &length) < 0) {
        return NULL;
    }
    return PyLong_FromSsize_t(length);
}

PyDoc_STRVAR(
    sendall_doc,
    "sendall($self, data, /)\n--\n\n"
    "Write all of data (bytes-like), as write() does; returns None. May switch.");

static PyObject *
SkConn_sendall(SkConnObject *conn, PyObject *data)
{
    Py_ssize_t length;
    if (write_object(conn, data, "sendall", &length) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    printf_doc,
    "printf($self, format, /, *args)\n--\n\n"
    "Write format % args, where format is bytes; return the number of bytes.\n\n"
    "Example: conn.printf(b\"%d %s\\r\\n\", 200, b\"OK\"). Raises TypeError or ValueError for a\n"
    "format that does not fit, otherwise as write(). May switch.\n\n"
    "Source: coronet's conet_printf; libevent's evbuffer_add_printf.");

static PyObject *
SkConn_printf(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 1 || !PyBytes_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "printf() takes a bytes format first");
        return NULL;
    }
    PyObject *values = pack_tuple(arguments + 1, count - 1);
    if (values == NULL) {
        return NULL;
    }
    PyObject *text = PyNumber_Remainder(arguments[0], values);
    Py_DECREF(values);
    if (text == NULL) {
        return NULL;
    }
    Py_ssize_t length;
    int error = write_object(conn, text, "printf", &length);
    Py_DECREF(text);
    return error < 0 ? NULL : PyLong_FromSsize_t(length);
}

PyDoc_STRVAR(
    flush_doc,
    "flush($self, /)\n--\n\n"
    "Send what waits in the output queue; return when the kernel has taken it.\n\n"
    "In a callback it sends what the kernel takes now and never waits. May switch. Raises\n"
    "what write() raises.\n\n"
    "Source: libsock's sock_flush; libevent's bufferevent_flush.");

static PyObject *
SkConn_flush(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (begin_write(conn) < 0) {
        return NULL;
    }
    if (conn->hub->is_serving) {
        bool woke;
        conn_send_on(conn, &woke); // what is left goes on by itself
    }
    // Mostly the kernel takes all at once. If not, a packet without bytes stands for what was
    // queued so far.
    else if (conn_flush(conn) != 0 && conn->write_error == 0 &&
             write_through(conn, "", 0, NULL, false, "flush") < 0) {
        return NULL;
    }
    if (conn->write_error < 0) {
        conn_raise_write_error(conn);
        conn_note_bytes_written(0);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyMethodDef conn_write_methods[] = {
    {"write", (PyCFunction)SkConn_write, METH_O, write_doc},
    {"sendall", (PyCFunction)SkConn_sendall, METH_O, sendall_doc},
    {"printf", (PyCFunction)(void (*)(void))SkConn_printf, METH_FASTCALL, printf_doc},
    {"flush", (PyCFunction)SkConn_flush, METH_NOARGS, flush_doc},
    {NULL, NULL, 0, NULL},
};
