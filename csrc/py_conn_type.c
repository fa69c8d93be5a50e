// py_conn_type.c: the sk_conn type: attributes, and the methods that are neither reading nor
// writing. Its constructor is in py_conn_new.c.

#include "py_conn.h"

#include <structmember.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_rate.h"
#include "py_task.h"
#include "py_traffic.h"
#include "py_valve.h"

// --- Methods ----------------------------------------------------------------------------

PyDoc_STRVAR(
    close_doc,
    "close($self, /)\n--\n\n"
    "Close the connection: whoever waits on it gets ClosedError at once.\n\n"
    "Output that waits is still sent, for up to `linger` seconds, behind the scenes; with\n"
    "none left the descriptor closes immediately. Idempotent, never switches. Raises the\n"
    "OSError of output that could not be sent before.\n\n"
    "Source: coronet's conet_close_conn; libsock's sock_close.");

static PyObject *
SkConn_close(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_thread(conn) < 0 || conn_close(conn) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    abort_doc,
    "abort($self, /)\n--\n\n"
    "Close the connection at once and drop what has not been sent. Never switches.\n\n"
    "Source: libsock's sock_force_close.");

static PyObject *
SkConn_abort(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_thread(conn) < 0) {
        return NULL;
    }
    conn_abort(conn);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fileno_doc,
             "fileno($self, /)\n--\n\n"
             "Return the descriptor's number, -1 once it is closed. Never switches.");

static PyObject *
SkConn_fileno(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(conn->fd);
}

PyDoc_STRVAR(
    mod_doc,
    "mod($self, events, /)\n--\n\n"
    "Set which readiness resumes the coroutine bound to the connection.\n\n"
    "events: READ, WRITE or PRIORITY, or-ed together; 0 for none. What is ready already\n"
    "counts at once. It concerns the coroutine when that waits by co_resume(); verbs such as\n"
    "readln() wake whoever called them. Raises ValueError for other bits. Never switches.\n\n"
    "Source: coronet's conet_mod_conn.");

static PyObject *
SkConn_mod(SkConnObject *conn, PyObject *number)
{
    // Edges are what the engine gives anyway; the seed's programs may ask for them.
    const unsigned long edge_flag = 1ul << 31;
    const unsigned known = EVENT_READ | EVENT_WRITE | EVENT_PRIORITY | EVENT_ERROR |
                           EVENT_HANGUP | EVENT_READ_HANGUP;
    unsigned long events = PyLong_AsUnsignedLong(number);
    if ((events == (unsigned long)-1 && PyErr_Occurred()) ||
        conn_check_usable(conn) < 0) {
        return NULL;
    }
    events &= ~edge_flag;
    if (events & ~(unsigned long)known) {
        PyErr_Format(PyExc_ValueError, "unknown event bits %lu",
                     events & ~(unsigned long)known);
        return NULL;
    }
    bool was_registered = reactor_is_registered(&conn->hub->reactor, conn->fd);
    int error = conn_register(conn);
    if (error < 0) {
        return conn_raise(conn, error);
    }
    conn->events = (unsigned)events;
    unsigned ready = line_buffer_length(&conn->input) > 0 ? EVENT_READ : 0;
    if (conn->coroutine != NULL && was_registered) {
        // The edge has been; there may be no other.
        int ready_now = io_ready_now(conn->fd, conn->events);
        ready |= ready_now > 0 ? (unsigned)ready_now : 0;
    }
    conn_resume_coroutine(conn, ready, false);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    detach_doc,
    "detach($self, /)\n--\n\n"
    "Give the descriptor up without closing it and return its number.\n\n"
    "The connection counts as closed from then on: whoever waits on it gets ClosedError at\n"
    "once. The descriptor stays non-blocking. Raises RuntimeError while bytes that were\n"
    "received and not read, or written and not sent, are in the connection, for they would\n"
    "be lost; the OSError of output that could not be sent before; ClosedError. Never\n"
    "switches. By the socket module's name.");

static PyObject *
SkConn_detach(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_check_usable(conn) < 0 || conn_keep_fresh(conn) < 0) {
        return NULL;
    }
    if (conn_check_unlayered(conn, "detach") < 0) {
        return NULL;
    }
    size_t unread = line_buffer_length(&conn->input);
    uint64_t unsent = write_queue_length(&conn->output);
    if (unread > 0 || unsent > 0) {
        return PyErr_Format(PyExc_RuntimeError,
                            "detach() would lose %zu bytes not read and %llu not sent",
                            unread, (unsigned long long)unsent);
    }
    if (conn->write_error < 0) {
        conn_raise_write_error(conn);
        return NULL;
    }
    int fd = conn->fd;
    conn_detach(conn);
    return PyLong_FromLong(fd);
}

static PyObject *
SkConn_enter(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    return Py_NewRef((PyObject *)conn);
}

static PyObject *
SkConn_exit(SkConnObject *conn, PyObject *const *unused, Py_ssize_t count)
{
    (void)unused;
    (void)count;
    return SkConn_close(conn, NULL);
}

// --- Attributes -------------------------------------------------------------------------

static PyObject *
get_buffered(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyBool_FromLong(conn->is_buffered);
}

static int
set_buffered(SkConnObject *conn, PyObject *value, void *unused)
{
    (void)unused;
    int is_true = value == NULL ? 0 : PyObject_IsTrue(value);
    if (is_true < 0) {
        return -1;
    }
    if (is_true && !conn->is_stream) {
        PyErr_SetString(PyExc_ValueError,
                        "only a stream can be buffered: packets would be run together");
        return -1;
    }
    conn->is_buffered = is_true;
    return 0;
}

static PyObject *
get_closed(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyBool_FromLong(conn->is_closed);
}

static PyObject *
get_coroutine(SkConnObject *conn, void *unused)
{
    (void)unused;
    return Py_NewRef(conn->coroutine == NULL ? Py_None : conn->coroutine);
}

static int
set_coroutine(SkConnObject *conn, PyObject *task, void *unused)
{
    (void)unused;
    if (task == NULL || task == Py_None) {
        Py_CLEAR(conn->coroutine);
        return 0;
    }
    if (!Py_IS_TYPE(task, conn->hub->state->task_type)) {
        PyErr_Format(PyExc_TypeError, "coroutine must be a Task or None, not %s",
                     Py_TYPE(task)->tp_name);
        return -1;
    }
    Py_XSETREF(conn->coroutine, Py_NewRef(task));
    return 0;
}

static PyGetSetDef own_attributes[] = {
    {"buffered", (getter)get_buffered, (setter)set_buffered,
     PyDoc_STR("True: small writes are collected and sent when the task waits or ends."),
     NULL},
    {"closed", (getter)get_closed, NULL, PyDoc_STR("True once close() was called."),
     NULL},
    {"callbacks", (getter)protocol_get, NULL,
     PyDoc_STR("What set_callbacks() was given, or made of it; None without."), NULL},
    {"priority", (getter)protocol_get_priority, (setter)protocol_set_priority,
     protocol_priority_doc, NULL},
    {"coroutine", (getter)get_coroutine, (setter)set_coroutine,
     PyDoc_STR("The Task that mod() concerns, or None; bound by conet_new_conn."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef SkConn_members[] = {
    {"sfd", T_INT, offsetof(SkConnObject, fd), READONLY,
     PyDoc_STR("The descriptor's number, -1 once it is closed.")},
    {"events", T_UINT, offsetof(SkConnObject, events), READONLY,
     PyDoc_STR("What mod() asked for.")},
    {"revents", T_UINT, offsetof(SkConnObject, revents), READONLY,
     PyDoc_STR("What was ready at the last event.")},
    {"error", T_INT, offsetof(SkConnObject, error), 0,
     PyDoc_STR("The errno of the last failure, 0 for none; may be set back to 0.")},
    {"bytes_read", T_ULONGLONG, offsetof(SkConnObject, moved_bytes[FLOW_IN]), READONLY,
     PyDoc_STR("How many bytes were received, on the wire: below TLS and other layers.")},
    {"bytes_sent", T_ULONGLONG, offsetof(SkConnObject, moved_bytes[FLOW_OUT]), READONLY,
     PyDoc_STR("How many bytes were sent, on the wire; those that wait do not count.")},
    {"server", T_OBJECT, offsetof(SkConnObject, server), 0,
     PyDoc_STR(
         "The Server it belongs to, or whatever was put here; None at first. What a\n"
         "listener accepts begins with that of the listener.")},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SkConnObject, weak_references), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

// --- The type ---------------------------------------------------------------------------

static PyObject *
SkConn_repr(SkConnObject *conn)
{
    PyObject *text = PyUnicode_FromFormat("<sk_conn fd=%d", conn->fd);
    PyObject *address = text == NULL ? NULL : conn_describe_address(conn);
    PyObject *waits =
        address == NULL ? NULL : describe_waits(conn->hub, conn->reader, conn->writer);
    if (waits != NULL) {
        size_t held = line_buffer_length(&conn->input);
        uint64_t unsent = write_queue_length(&conn->output);
        Py_SETREF(text, PyUnicode_FromFormat("%U%U%s%U", text, address,
                                             conn->is_closed ? " closed" : "", waits));
        if (text != NULL && held > 0) {
            Py_SETREF(text, PyUnicode_FromFormat("%U, %zu bytes received", text, held));
        }
        if (text != NULL && unsent > 0) {
            Py_SETREF(text, PyUnicode_FromFormat("%U, %llu bytes to send", text,
                                                 (unsigned long long)unsent));
        }
    }
    Py_XDECREF(address);
    Py_XDECREF(waits);
    if (waits == NULL) {
        Py_CLEAR(text);
    }
    if (text != NULL) {
        Py_SETREF(text, PyUnicode_FromFormat("%U>", text));
    }
    return text;
}

static int
SkConn_traverse(SkConnObject *conn, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(conn));
    Py_VISIT(conn->hub);
    Py_VISIT(conn->coroutine);
    Py_VISIT(conn->server);
    if (conn->callbacks != NULL) {
        Py_VISIT(conn->callbacks->protocol);
        Py_VISIT(conn->callbacks->on_accept_error);
    }
    if (conn->transport != NULL) {
        int result = transport_traverse(conn->transport, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    int result = rate_visit(conn, visit, arg);
    return result != 0 ? result : conn_visit_output(conn, visit, arg);
}

static int
SkConn_clear(SkConnObject *conn)
{
    Py_CLEAR(conn->coroutine);
    Py_CLEAR(conn->server);
    return 0;
}

// Dropped without close(): says so, and closes it, which may keep it alive to send what
// is left.
static void
SkConn_finalize(SkConnObject *conn)
{
    if (conn->is_closed || conn->fd < 0) {
        return;
    }
    PyObject *exception = take_exception();
    if (PyErr_ResourceWarning((PyObject *)conn, 1, "unclosed %R", conn) < 0) {
        report_exception((PyObject *)conn);
    }
    if (conn_close(conn) < 0) {
        report_exception((PyObject *)conn);
    }
    restore_exception(exception);
}

static void
SkConn_dealloc(SkConnObject *conn)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)conn) < 0) {
        return; // it lives on until its output is sent
    }
    PyTypeObject *type = Py_TYPE(conn);
    PyObject_GC_UnTrack(conn);
    if (conn->weak_references != NULL) {
        PyObject_ClearWeakRefs((PyObject *)conn);
    }
    line_buffer_clear(&conn->input);
    write_queue_clear(&conn->output);
    PyMem_Free(conn->options);
    valve_free(conn);
    SkConn_clear(conn);
    Py_CLEAR(conn->traffic);
    if (conn->transport != NULL) {
        transport_free(conn);
    }
    Py_CLEAR(conn->hub);
    LIVE_COUNT(LIVE_CONNECTIONS, -1);
    type->tp_free(conn);
    Py_DECREF(type);
}

static PyMethodDef own_methods[] = {
    {"close", (PyCFunction)SkConn_close, METH_NOARGS, close_doc},
    {"abort", (PyCFunction)SkConn_abort, METH_NOARGS, abort_doc},
    {"detach", (PyCFunction)SkConn_detach, METH_NOARGS, detach_doc},
    {"_attach", (PyCFunction)conn_attach, METH_O, conn_attach_doc},
    {"fileno", (PyCFunction)SkConn_fileno, METH_NOARGS, fileno_doc},
    {"mod", (PyCFunction)SkConn_mod, METH_O, mod_doc},
    {"__enter__", (PyCFunction)SkConn_enter, METH_NOARGS,
     PyDoc_STR("__enter__($self, /)\n--\n\nThe connection; the with block closes it.")},
    {"__exit__", (PyCFunction)(void (*)(void))SkConn_exit, METH_FASTCALL,
     PyDoc_STR(
         "__exit__($self, type, value, traceback, /)\n--\n\nClose the connection.")},
    {NULL, NULL, 0, NULL},
};

// Puts the methods of all files behind each other, where the type can point at them.
static PyMethodDef *
collect_methods(void)
{
    static PyMethodDef collected[128];
    PyMethodDef *const parts[] = {
        own_methods,         conn_read_methods,   conn_line_methods,
        conn_take_methods,   conn_write_methods,  conn_output_methods,
        conn_file_methods,   conn_socket_methods, conn_message_methods,
        conn_layer_methods,  protocol_methods,    conn_now_methods,
        conn_accept_methods, valve_methods,       conn_input_methods,
        conn_frame_methods,  conn_option_methods, rate_methods,
    };
    size_t count = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(parts); i++) {
        for (PyMethodDef *method = parts[i]; method->ml_name != NULL; method++) {
            assert(count + 1 < Py_ARRAY_LENGTH(collected));
            collected[count++] = *method;
        }
    }
    return collected;
}

static PyGetSetDef *
collect_attributes(void)
{
    static PyGetSetDef collected[48];
    PyGetSetDef *const parts[] = {
        own_attributes,         conn_output_attributes, conn_layer_attributes,
        valve_attributes,       conn_accept_attributes, conn_input_attributes,
        conn_option_attributes, rate_attributes,        traffic_attributes,
    };
    size_t count = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(parts); i++) {
        for (PyGetSetDef *attribute = parts[i]; attribute->name != NULL; attribute++) {
            assert(count + 1 < Py_ARRAY_LENGTH(collected));
            collected[count++] = *attribute;
        }
    }
    return collected;
}

PyDoc_STRVAR(
    SkConn_doc,
    "sk_conn(fd)\n--\n\n"
    "A connection over any descriptor that can be waited for: socket, pipe, terminal ...\n\n"
    "fd: a descriptor, or a socket object, which is detached. It becomes non-blocking and\n"
    "belongs to the connection from then on.\n\n"
    "One task may read and another write at the same time. Each operation that has to wait\n"
    "lets other tasks run meanwhile. Iterating gives lines. Raises ValueError for a regular\n"
    "file or an fd in use, OSError for one that is not open, TypeError for other objects.\n\n"
    "Source: coronet's conet_new_conn; libevent's bufferevent with its two evbuffers;\n"
    "libsock's sockets. Methods that Python's socket.socket has are its own; others without\n"
    "a source are pycoronet's.");

PyTypeObject *
conn_type_new(PyObject *module)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, (void *)SkConn_doc},
        {Py_tp_new, conn_construct},
        {Py_tp_dealloc, SkConn_dealloc},
        {Py_tp_finalize, SkConn_finalize},
        {Py_tp_traverse, SkConn_traverse},
        {Py_tp_clear, SkConn_clear},
        {Py_tp_repr, SkConn_repr},
        {Py_tp_iter, PyObject_SelfIter},
        {Py_tp_iternext, conn_next_line},
        {Py_tp_methods, collect_methods()},
        {Py_tp_getset, collect_attributes()},
        {Py_tp_members, SkConn_members},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "pycoronet.sk_conn",
        .basicsize = sizeof(SkConnObject),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return add_type(module, &spec);
}
