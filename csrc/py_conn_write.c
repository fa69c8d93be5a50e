// py_conn_write.c: writing: straight to the kernel, or coalesced.
//
// Order is kept by one rule: nothing is sent past bytes that wait in the queue. With
// `buffered` on, small writes only join the queue, and the connection joins the hub's
// dirty list; the queue leaves in one call when the writing task parks or ends. What the
// kernel does not take then is sent from the event that says there is room.

#include "py_conn.h"

#include <errno.h>

#include "py_convert.h"

// --- Sending ----------------------------------------------------------------------------

// Sends the queue and, behind it, [data]. The count, or -errno.
static ssize_t
send_with_queue(SkConnObject *conn, const char *data, size_t length)
{
    size_t queued = write_queue_length(&conn->output);
    if (queued == 0) {
        return conn->is_socket ? io_send(conn->fd, data, length)
                               : io_write(conn->fd, data, length);
    }
    struct iovec blocks[2] = {
        {(void *)(uintptr_t)write_queue_data(&conn->output), queued},
        {(void *)(uintptr_t)data, length},
    };
    int count = length > 0 ? 2 : 1;
    return conn->is_socket ? io_send_vector(conn->fd, blocks, count)
                           : io_write_vector(conn->fd, blocks, count);
}

static ssize_t
send_without_gil(SkConnObject *conn, const char *data, size_t length)
{
    if (length < GIL_RELEASE_SIZE) {
        return send_with_queue(conn, data, length);
    }
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = send_with_queue(conn, data, length);
    Py_END_ALLOW_THREADS
    return count;
}

int
conn_flush(SkConnObject *conn)
{
    list_remove(&conn->dirty_link);
    while (write_queue_length(&conn->output) > 0) {
        ssize_t count = send_with_queue(conn, "", 0);
        if (count == -EAGAIN) {
            conn->may_write = false;
            count = conn_register(conn);
            if (count == 0) {
                return -EAGAIN;
            }
        }
        if (count < 0) {
            conn->write_error = (int)count;
            write_queue_clear(&conn->output);
            return (int)count;
        }
        write_queue_drain(&conn->output, (size_t)count);
    }
    return 0;
}

void
conn_flush_dirty(HubObject *hub)
{
    struct list_node *node;
    while ((node = list_take_first(&hub->dirty)) != NULL) {
        conn_flush(CONTAINER_OF(node, SkConnObject, dirty_link));
    }
}

// --- Writing ----------------------------------------------------------------------------

// Puts the number of bytes written on the exception that is set.
static void
note_bytes_written(size_t written)
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

// Sends the queue and all of [data], parking as often as it takes. 0, or -1 with an
// exception that says how much of [data] was written.
static int
write_through(SkConnObject *conn, const char *data, size_t length, const char *operation)
{
    size_t written = 0;
    list_remove(&conn->dirty_link);
    while (written < length || write_queue_length(&conn->output) > 0) {
        if (conn->may_write) {
            ssize_t count = send_without_gil(conn, data + written, length - written);
            if (count >= 0) {
                size_t queued = write_queue_length(&conn->output);
                size_t from_queue = (size_t)count < queued ? (size_t)count : queued;
                write_queue_drain(&conn->output, from_queue);
                written += (size_t)count - from_queue;
                continue;
            }
            if (count != -EAGAIN) {
                // Told here and now, so that a later close() need not tell it again.
                write_queue_clear(&conn->output);
                conn_raise(conn, count);
                goto fail;
            }
            conn->may_write = false;
        }
        if (conn_wait_writable(conn, operation) < 0) {
            goto fail;
        }
        if (conn->write_error < 0) {
            conn_raise(conn, conn->write_error);
            conn->write_error = 0;
            goto fail;
        }
    }
    return 0;
fail:
    note_bytes_written(written);
    return -1;
}

static int
begin_write(SkConnObject *conn)
{
    if (conn_begin(conn, conn->writer, "writing") < 0) {
        return -1;
    }
    if (conn->write_error < 0) {
        // An earlier flush failed with nobody there to tell.
        int error = conn->write_error;
        conn->write_error = 0;
        conn_raise(conn, error);
        note_bytes_written(0);
        return -1;
    }
    return 0;
}

static int
write_bytes(SkConnObject *conn, const char *data, size_t length, const char *operation)
{
    if (begin_write(conn) < 0) {
        return -1;
    }
    if (!conn->is_buffered ||
        write_queue_length(&conn->output) + length > OUTPUT_HIGH_MARK) {
        return write_through(conn, data, length, operation);
    }
    if (write_queue_append(&conn->output, data, length) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (!list_is_linked(&conn->dirty_link)) {
        list_append(&conn->hub->dirty, &conn->dirty_link);
    }
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
        return write_bytes(conn, PyBytes_AS_STRING(data), (size_t)*length, operation);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    *length = view.len;
    int error = write_bytes(conn, view.buf, (size_t)view.len, operation);
    PyBuffer_Release(&view);
    return error;
}

// --- Methods ----------------------------------------------------------------------------

PyDoc_STRVAR(
    write_doc,
    "write($self, data, /)\n--\n\n"
    "Write all of data (bytes-like) and return its length.\n\n"
    "With `buffered` on, small writes are collected and sent together when the task next\n"
    "waits or ends. Otherwise it returns when the kernel has taken everything. May switch.\n"
    "Raises TimeoutError, ClosedError, BusyError if another task is writing, or the OSError\n"
    "of the failure; `bytes_written` on the exception says how much of data went out.\n"
    "Answers to conet_write.");

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
    "format that does not fit, otherwise as write(). May switch. Answers to conet_printf.");

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
    "Send what was collected with `buffered` on; return when the kernel has taken it.\n\n"
    "May switch. Raises what write() raises.");

static PyObject *
SkConn_flush(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (begin_write(conn) < 0 || write_through(conn, "", 0, "flush") < 0) {
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
