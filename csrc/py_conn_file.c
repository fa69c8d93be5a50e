// py_conn_file.c: sendfile: a file, or a part of one, in the output queue.
//
// The queue has a descriptor of its own for each file, a duplicate unless the caller gave
// its own away; so the caller may close the file as soon as sendfile() has returned, long
// before it was sent. Positions are explicit: the file's own one is neither used nor moved.
//
// Not here: how the bytes leave (py_conn_write.c).

#include "py_conn.h"

#include <errno.h>

#include "py_convert.h"

// A file in the queue.
struct queued_file {
    int fd;             // owned
    SkConnObject *conn; // borrowed; while the connection's writer waits for it, else NULL
};

// What sendfile() was asked for.
struct file_request {
    PyObject *file; // borrowed
    int64_t offset; // where it begins
    int64_t count;  // how many bytes; -1 = to the end
    int must_close; // the caller gives it away
    int is_urgent;
    int can_interrupt;
    int fd;           // borrowed; its descriptor
    bool is_readable; // its size is not known: it is read at once
};

static void
release_file(void *owner, uint64_t unsent)
{
    struct queued_file *queued = owner;
    io_close(queued->fd);
    if (queued->conn != NULL) {
        conn_note_left(queued->conn, unsent);
    }
    PyMem_Free(queued);
}

static int
convert_position(PyObject *number, const char *name, int64_t fallback, int64_t *position)
{
    *position = fallback;
    if (number == NULL || (number == Py_None && fallback < 0)) {
        return 0;
    }
    long long value = PyLong_AsLongLong(number);
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (value < 0) {
        PyErr_Format(PyExc_ValueError, "%s must be 0 or more, not %lld", name, value);
        return -1;
    }
    *position = value;
    return 0;
}

static int
parse_request(PyObject *const *arguments, Py_ssize_t count, PyObject *keyword_names,
              struct file_request *request)
{
    static const char *const names[] = {"file",   "offset",        "count", "close",
                                        "urgent", "can_interrupt", NULL};
    static const struct parameters parameters = {"sendfile", names, 1, 3};
    PyObject *values[6] = {NULL};
    *request = (struct file_request){.fd = -1, .can_interrupt = 1};
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_position(values[1], "offset", 0, &request->offset) < 0 ||
        convert_position(values[2], "count", -1, &request->count) < 0 ||
        convert_flag(values[3], &request->must_close) < 0 ||
        convert_flag(values[4], &request->is_urgent) < 0 ||
        convert_flag(values[5], &request->can_interrupt) < 0) {
        return -1;
    }
    request->file = values[0];
    request->fd = PyObject_AsFileDescriptor(values[0]);
    return request->fd < 0 ? -1 : 0;
}

// Asks the system what file it is and limits the count to what there is. 0, or -1 with an
// exception.
static int
measure_file(struct file_request *request)
{
    int64_t size;
    int error = io_file_size(request->fd, &size);
    if (error == -ESPIPE) {
        raise_os_error(
            PyExc_OSError, ESPIPE,
            "sendfile() takes files that can be read at any place, not pipes and "
            "sockets: read, and write() what comes");
        return -1;
    }
    if (error < 0) {
        raise_errno(error);
        return -1;
    }
    if (size < 0 && request->count < 0) {
        PyErr_SetString(PyExc_ValueError,
                        "sendfile() needs a count for a device, which has no size");
        return -1;
    }
    // Files of /proc say that they are empty.
    request->is_readable = size == 0;
    if (size > 0) {
        int64_t left = request->offset < size ? size - request->offset : 0;
        if (request->count < 0 || request->count > left) {
            request->count = left;
        }
    }
    return 0;
}

// Adds what the file holds, read here and now. 0, or -1 with an exception.
static int
add_content(SkConnObject *conn, struct write_queue *batch,
            const struct file_request *request)
{
    char *scratch = conn->hub->scratch;
    int64_t offset = request->offset;
    uint64_t left = request->count < 0 ? UINT64_MAX : (uint64_t)request->count;
    while (left > 0) {
        size_t length = left < HUB_SCRATCH_SIZE ? (size_t)left : HUB_SCRATCH_SIZE;
        ssize_t count;
        Py_BEGIN_ALLOW_THREADS
        count = io_read_at(request->fd, scratch, length, offset);
        Py_END_ALLOW_THREADS
        if (count < 0) {
            raise_errno((int)count);
            return -1;
        }
        if (count == 0) {
            return 0;
        }
        if (write_queue_copy(batch, scratch, (size_t)count) < 0) {
            PyErr_NoMemory(); // not reached: a file that is read here, without memory
            return -1;
        }
        offset += count;
        left -= (uint64_t)count;
    }
    return 0;
}

// Adds the file itself, with a descriptor of its own. Its record, or NULL with an exception.
static struct queued_file *
add_file(struct write_queue *batch, const struct file_request *request)
{
    struct queued_file *queued = PyMem_Malloc(sizeof(*queued));
    if (queued == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *queued = (struct queued_file){.fd = io_duplicate(request->fd)};
    if (queued->fd < 0) {
        raise_errno(queued->fd);
        PyMem_Free(queued);
        return NULL;
    }
    if (write_queue_add_file(batch, queued->fd, request->offset, (uint64_t)request->count,
                             release_file, queued) < 0) {
        PyErr_NoMemory();
        io_close(queued->fd);
        PyMem_Free(queued);
        return NULL;
    }
    return queued;
}

// Closes what the caller gave away. 0, or -1 with an exception.
static int
close_given(const struct file_request *request)
{
    if (PyLong_Check(request->file)) {
        int error = io_close(request->fd);
        if (error < 0) {
            raise_errno(error); // not reached: close() fails on foreign file systems
            return -1;
        }
        return 0;
    }
    PyObject *close = get_attribute(request->file, "close");
    PyObject *result = close == NULL ? NULL : PyObject_CallNoArgs(close);
    Py_XDECREF(close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

// True if the caller is a coroutine, or the main program, and more than the high mark waits.
static bool
must_pause(SkConnObject *conn, uint64_t length)
{
    TaskObject *task;
    if (write_queue_length(&conn->output) + length <=
        conn_options_of(conn)->high_mark[FLOW_OUT]) {
        return false;
    }
    if (hub_running_task(conn->hub, &task) < 0) {
        PyErr_Clear();
        return false;
    }
    return task != NULL;
}

// Waits until the file has left, or so much of it that no more than the low mark waits. 0, or
// -1 with an exception that says how much was sent; the rest is not sent then.
static int
pause_for_file(SkConnObject *conn, struct queued_file *queued, uint64_t length)
{
    queued->conn = conn;
    conn->waiting_owner = queued;
    int status = conn_pause_writer(conn, true, "sendfile");
    if (status < 0) {
        conn_withdraw_write(conn);
        conn_note_bytes_written((size_t)(length - conn->writer_unsent));
    }
    else if (conn->waiting_owner != NULL) {
        // It goes on by itself.
        queued->conn = NULL;
        conn->waiting_owner = NULL;
    }
    return status;
}

PyDoc_STRVAR(
    sendfile_doc,
    "sendfile($self, file, /, offset=0, count=None, *, close=False, urgent=False,\n"
    "         can_interrupt=True)\n--\n\n"
    "Queue a file, or count bytes of it from offset on; return how many bytes that is.\n\n"
    "file: a file object with a descriptor, or a descriptor. The system sends it by itself\n"
    "where it can. It may be closed as soon as this returns; close=True does that. What the\n"
    "file object has buffered, and its position, do not count. urgent and can_interrupt\n"
    "mean what they do for enqueue(). Waits only if more than the high mark is then queued,\n"
    "as write() does, and never in a callback. If the file turns out shorter, or cannot be\n"
    "read, the stream is cut off: the next operation raises OSError. Raises ValueError for\n"
    "negative numbers, and for devices without a count, OSError for pipes, directories and\n"
    "what is not open; otherwise as write(). May switch.\n\n"
    "Source: libsock's sock_sendfile; libevent's evbuffer_add_file.");

static PyObject *
SkConn_sendfile(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                PyObject *keyword_names)
{
    struct file_request request;
    struct write_queue batch;
    struct queued_file *queued = NULL;
    write_queue_init(&batch);
    if (parse_request(arguments, count, keyword_names, &request) < 0 ||
        conn_check_may_queue(conn) < 0) {
        return NULL;
    }
    if (!conn->is_stream) {
        PyErr_SetString(PyExc_ValueError, "sendfile() needs a stream, not packets");
        return NULL;
    }
    if (measure_file(&request) < 0) {
        return NULL;
    }
    if (request.is_readable) {
        if (add_content(conn, &batch, &request) < 0) {
            goto fail;
        }
    }
    else if (request.count > 0 && (queued = add_file(&batch, &request)) == NULL) {
        goto fail;
    }
    // Closing may run anything, closing the connection included.
    uint64_t length = write_queue_length(&batch);
    bool pauses = queued != NULL && must_pause(conn, length);
    if ((pauses && conn_check_free(conn, conn->writer, "writing") < 0) ||
        (request.must_close && close_given(&request) < 0) ||
        conn_check_may_queue(conn) < 0) {
        goto fail;
    }
    conn_queue(conn, &batch, request.is_urgent, !request.can_interrupt);
    if (pauses && conn->writer == NULL && pause_for_file(conn, queued, length) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(length);
fail:
    write_queue_clear(&batch);
    return NULL;
}

PyMethodDef conn_file_methods[] = {
    {"sendfile", (PyCFunction)(void (*)(void))SkConn_sendfile,
     METH_FASTCALL | METH_KEYWORDS, sendfile_doc},
    {NULL, NULL, 0, NULL},
};
