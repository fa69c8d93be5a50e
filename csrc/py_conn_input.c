// py_conn_input.c: looking at what was received and not read yet, and putting bytes back.
//
// Nothing here receives. What is held lies in the connection's buffer or, for a connection
// whose on_data() is running, in the hub's fresh area (py_conn_take.c), never in both.
// A task that waits to read has looked at the buffer before: so only prepend() may change it
// then, and wakes that task, which begins its search anew.

#include "py_conn.h"

#include <string.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"

struct held_input {
    const char *data; // borrowed, until something is received or taken
    size_t length;
};

static struct held_input
see_input(SkConnObject *conn)
{
    HubObject *hub = conn->hub;
    if (hub->fresh_conn == conn) {
        return (struct held_input){hub->fresh_data, hub->fresh_length};
    }
    return (struct held_input){line_buffer_data(&conn->input),
                               line_buffer_length(&conn->input)};
}

static int
check_may_look(SkConnObject *conn)
{
    return conn_check_usable(conn) < 0 || transport_refuse_reentry(conn) < 0 ? -1 : 0;
}

PyDoc_STRVAR(
    peek_doc,
    "peek($self, n, /)\n--\n\n"
    "Return the first bytes received and not read yet, at most n; they stay readable.\n\n"
    "Receives nothing, never switches: b\"\" means that nothing is held, not the end of\n"
    "file. Raises ClosedError.\n\n"
    "Source: libevent's evbuffer_peek, evbuffer_pullup.");

static PyObject *
SkConn_peek(SkConnObject *conn, PyObject *number)
{
    Py_ssize_t size;
    if (convert_size(number, "n", 0, 0, &size) < 0 || check_may_look(conn) < 0) {
        return NULL;
    }
    struct held_input held = see_input(conn);
    size_t length = (size_t)size < held.length ? (size_t)size : held.length;
    return PyBytes_FromStringAndSize(held.data, (Py_ssize_t)length);
}

// Where [pattern] begins among the bytes held from [start] up to [end], -1 if it does not.
static Py_ssize_t
find_pattern(struct held_input held, const Py_buffer *pattern, size_t start, size_t end)
{
    size_t reach = end < held.length ? end : held.length;
    if (start >= reach) {
        return -1;
    }
    const char *found =
        memmem(held.data + start, reach - start, pattern->buf, (size_t)pattern->len);
    return found == NULL ? -1 : (Py_ssize_t)(found - held.data);
}

PyDoc_STRVAR(
    search_doc,
    "search($self, pattern, /, start=0, end=None)\n--\n\n"
    "Return where pattern begins in what was received and not read yet, -1 if nowhere.\n\n"
    "pattern: bytes-like, not empty. start, end: look only at the bytes from start up to,\n"
    "and without, end, counted from the first one held; an end of None is all there is.\n\n"
    "Receives nothing, never switches. Raises ClosedError, ValueError for an empty pattern\n"
    "or a negative place.\n\n"
    "Source: libevent's evbuffer_search_range.");

static PyObject *
SkConn_search(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    static const char *const names[] = {"pattern", "start", "end", NULL};
    static const struct parameters parameters = {"search", names, 1, 3};
    PyObject *values[3];
    Py_ssize_t start, end;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[1], "start", 0, 0, &start) < 0 ||
        convert_size(values[2] == Py_None ? NULL : values[2], "end", 0, PY_SSIZE_T_MAX,
                     &end) < 0) {
        return NULL;
    }
    Py_buffer pattern;
    if (PyObject_GetBuffer(values[0], &pattern, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *place = NULL;
    if (pattern.len == 0) {
        PyErr_SetString(PyExc_ValueError, "the pattern must not be empty");
    }
    else if (check_may_look(conn) == 0) {
        place = PyLong_FromSsize_t(
            find_pattern(see_input(conn), &pattern, (size_t)start, (size_t)end));
    }
    PyBuffer_Release(&pattern);
    return place;
}

PyDoc_STRVAR(
    copyout_doc,
    "copyout($self, buffer, /)\n--\n\n"
    "Copy the first bytes received and not read yet into a buffer.\n\n"
    "buffer: a writable bytes-like object. Returns how many that were: as many as are held, or as fit. They stay readable. It receives nothing. Never switches. Raises ClosedError.\n\n"
    "Source: libevent's evbuffer_copyout.");

static PyObject *
SkConn_copyout(SkConnObject *conn, PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (check_may_look(conn) == 0) {
        struct held_input held = see_input(conn);
        size_t room = (size_t)view.len;
        size_t length = room < held.length ? room : held.length;
        if (length > 0) {
            memcpy(view.buf, held.data, length);
        }
        result = PyLong_FromSize_t(length);
    }
    PyBuffer_Release(&view);
    return result;
}

PyDoc_STRVAR(
    drain_doc,
    "drain($self, n, /)\n--\n\n"
    "Drop the first n bytes received and not read yet; return how many there were to drop.\n\n"
    "Receives nothing, never switches. Raises ClosedError, BusyError if a task is reading.\n\n"
    "Source: libevent's evbuffer_drain.");

static PyObject *
SkConn_drain(SkConnObject *conn, PyObject *number)
{
    Py_ssize_t size;
    if (convert_size(number, "n", 0, 0, &size) < 0 || conn_check_may_take(conn) < 0) {
        return NULL;
    }
    size_t held = see_input(conn).length;
    size_t length = (size_t)size < held ? (size_t)size : held;
    conn_drain_input(conn, length);
    return PyLong_FromSize_t(length);
}

static int
put_in_front(SkConnObject *conn, const Py_buffer *data)
{
    if (check_may_look(conn) < 0) {
        return -1;
    }
    if (!conn->is_stream || conn->is_listener) {
        PyErr_SetString(PyExc_ValueError, "only streams have bytes to put others before");
        return -1;
    }
    if (data->len == 0) {
        return 0;
    }
    if (conn_keep_fresh(conn) < 0) {
        return -1;
    }
    if (line_buffer_prepend(&conn->input, data->buf, (size_t)data->len) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    bool woke = conn->reader != NULL && waiter_wake(conn->hub, conn->reader, WOKEN_READY);
    conn_resume_coroutine(conn, EVENT_READ, woke);
    if (conn->callbacks != NULL && !conn->callbacks->is_telling) {
        callbacks_note_input(conn);
    }
    return 0;
}

PyDoc_STRVAR(
    prepend_doc,
    "prepend($self, data, /)\n--\n\n"
    "Put bytes in front of what is to be read next, as if they had been received.\n\n"
    "data: bytes-like, copied. However much is held already, it is taken. A task that waits\n"
    "to read is woken. With callbacks on_data() becomes due, but not for what on_data() puts\n"
    "back itself: that stays for the next time, as what it leaves does; and after on_eof()\n"
    "only take() and its like give it. A layer pushed before it is read gets it.\n\n"
    "Never waits, never switches. Raises ClosedError, ValueError for what is no stream.\n\n"
    "Source: libevent's evbuffer_prepend.");

static PyObject *
SkConn_prepend(SkConnObject *conn, PyObject *object)
{
    Py_buffer data;
    if (PyObject_GetBuffer(object, &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int error = put_in_front(conn, &data);
    PyBuffer_Release(&data);
    if (error < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
get_available(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(see_input(conn).length);
}

PyMethodDef conn_input_methods[] = {
    {"peek", (PyCFunction)SkConn_peek, METH_O, peek_doc},
    {"search", (PyCFunction)(void (*)(void))SkConn_search, METH_FASTCALL | METH_KEYWORDS,
     search_doc},
    {"copyout", (PyCFunction)SkConn_copyout, METH_O, copyout_doc},
    {"drain", (PyCFunction)SkConn_drain, METH_O, drain_doc},
    {"prepend", (PyCFunction)SkConn_prepend, METH_O, prepend_doc},
    {NULL, NULL, 0, NULL},
};

PyGetSetDef conn_input_attributes[] = {
    {"available", (getter)get_available, NULL,
     PyDoc_STR("Bytes received and not read yet; more may wait in the system."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
