// py_protocol.c: set_callbacks: whose methods a connection's events call.
//
// A protocol is anything with the eight methods of pycoronet.Protocol. One object may serve
// any number of connections; a class, or another callable without the methods, is a factory
// that is called for each connection. What is wrong with one is said here, where the caller
// can see it, rather than at the first event.

#include <errno.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_valve.h"

// Adds the methods that the object lacks to a list of names. 0, or -1 with an exception.
static int
list_missing(struct module_state *state, PyObject *object, PyObject *missing)
{
    PyObject *const names[] = {state->on_open,     state->on_data,  state->on_ready,
                               state->on_eof,      state->on_error, state->on_timeout,
                               state->on_shutdown, state->on_close};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *method = PyObject_GetAttr(object, names[i]);
        if (method == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
                return -1;
            }
            PyErr_Clear();
        }
        bool is_missing = method == NULL || !PyCallable_Check(method);
        Py_XDECREF(method);
        if (is_missing && PyList_Append(missing, names[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

// 0 if the object has all methods; else -1 with a TypeError that names those it lacks.
static int
check_methods(struct module_state *state, PyObject *object)
{
    PyObject *missing = PyList_New(0);
    if (missing == NULL || list_missing(state, object, missing) < 0) {
        Py_XDECREF(missing);
        return -1;
    }
    int error = 0;
    if (PyList_GET_SIZE(missing) > 0) {
        PyObject *comma = PyUnicode_FromString(", ");
        PyObject *text = comma == NULL ? NULL : PyUnicode_Join(comma, missing);
        if (text != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "%R cannot be called back: it has no method %U; "
                         "pycoronet.Protocol is a base class with all of them",
                         object, text);
        }
        Py_XDECREF(comma);
        Py_XDECREF(text);
        error = -1;
    }
    Py_DECREF(missing);
    return error;
}

// The same for what may also be a factory, which is told in [*is_factory].
static int
check_protocol(struct module_state *state, PyObject *object, bool *is_factory)
{
    *is_factory = PyType_Check(object);
    if (check_methods(state, object) == 0) {
        return 0;
    }
    if (*is_factory || !PyCallable_Check(object) ||
        !PyErr_ExceptionMatches(PyExc_TypeError)) {
        return -1;
    }
    // What it makes is looked at when it has been made.
    PyErr_Clear();
    *is_factory = true;
    return 0;
}

// 0 if this can be the connection's on_accept_error; else -1 with an exception.
static int
check_accept_error(SkConnObject *conn, PyObject *function, bool receives)
{
    if (!PyCallable_Check(function)) {
        PyErr_Format(PyExc_TypeError, "on_accept_error must be callable or None, not %s",
                     Py_TYPE(function)->tp_name);
        return -1;
    }
    conn_notice_listener(conn);
    if (!conn->is_listener || !receives) {
        PyErr_SetString(PyExc_ValueError, "on_accept_error is for a listener whose "
                                          "connections are accepted for it");
        return -1;
    }
    return 0;
}

PyObject *
protocol_make(HubObject *hub, PyObject *factory)
{
    PyObject *protocol = PyObject_CallNoArgs(factory);
    if (protocol != NULL && check_methods(hub->state, protocol) < 0) {
        Py_CLEAR(protocol);
    }
    return protocol;
}

PyObject *
protocol_get(SkConnObject *conn, void *unused)
{
    (void)unused;
    return Py_NewRef(conn->callbacks == NULL ? Py_None : conn->callbacks->protocol);
}

const char protocol_priority_doc[] =
    "How urgent its callbacks are: HIGH, NORMAL (at first) or LOW.\n\n"
    "The hub runs those of the most urgent connections that have something to tell, then\n"
    "looks for events, and so on; a lower one has its turn at the latest after 16 such rounds.\n"
    "It may be set at any time, and is nothing to coroutines. Timers and call_soon() are\n"
    "NORMAL.";

PyObject *
protocol_get_priority(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyLong_FromLong(conn->priority);
}

int
protocol_set_priority(SkConnObject *conn, PyObject *value, void *unused)
{
    uint8_t priority;
    (void)unused;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "priority cannot be deleted");
        return -1;
    }
    if (convert_priority(value, &priority) < 0 || conn_check_usable(conn) < 0) {
        return -1;
    }
    conn->priority = priority;
    if (conn->callbacks != NULL && conn->callbacks->call.priority != priority) {
        hub_set_call_priority(conn->hub, &conn->callbacks->call, (enum priority)priority);
    }
    return 0;
}

// Gives a connection that has callbacks already others.
static void
replace(SkConnObject *conn, PyObject *protocol, PyObject *on_accept_error,
        bool is_factory)
{
    struct callbacks *callbacks = conn->callbacks;
    callbacks->is_factory = is_factory;
    if (line_buffer_length(&conn->input) > 0) {
        // It has not heard of these bytes.
        callbacks->has_news = true;
        callbacks_notice(conn);
    }
    callbacks_set_protocol(callbacks, protocol, on_accept_error);
}

static int
install(SkConnObject *conn, PyObject *protocol, PyObject *on_accept_error,
        bool is_factory, bool receives)
{
    if (conn->hub->is_closing) {
        PyErr_SetString(PyExc_RuntimeError, "the connection's hub is closing");
        return -1;
    }
    if (conn_check_free(conn, conn->reader, "reading") < 0 || conn_keep_fresh(conn) < 0) {
        return -1;
    }
    conn_notice_listener(conn);
    if (conn->callbacks != NULL && conn->callbacks->receives == receives) {
        replace(conn, protocol, on_accept_error, is_factory);
        return 0;
    }
    if (conn->callbacks != NULL) {
        callbacks_drop(conn);
    }
    if (valve_hold_unconnected(conn) < 0) {
        return -1;
    }
    return callbacks_attach(conn, protocol, on_accept_error, is_factory, receives);
}

PyDoc_STRVAR(
    set_callbacks_doc,
    "set_callbacks($self, protocol, /, *, receive=True, on_accept_error=None, opened=False)\n--\n\n"
    "Have the methods of protocol called when something happens to the connection.\n\n"
    "protocol: an object with the methods of pycoronet.Protocol; a class, or another callable\n"
    "without them, is called to make one; None ends the callbacks and calls nothing. It may\n"
    "be changed at any time, from inside a callback too. On a listener, protocol is given to\n"
    "each connection that comes in (a class: an object to each), and then on_open() called.\n"
    "Its on_data() is looked up now, once.\n"
    "receive: False only tells by on_data() that there is something to receive, or to accept,\n"
    "each time it is news, and now and then when it is none; take it until nothing is left.\n"
    "So it is for datagrams.\n"
    "on_accept_error: on a listener, called as on_accept_error(listener, error) when accepting\n"
    "fails. The system is short of descriptors or memory: the connections stay queued and it\n"
    "tries again after 0.1 s, unless the function closes or disables the listener. Anything\n"
    "else: it is closed after the call. None: shortages are waited out unseen, and the rest\n"
    "goes to sys.unraisablehook, as what the function raises does.\n"
    "opened: True has on_open() called first, as for one that a listener has accepted.\n\n"
    "From now on the hub keeps the connection alive until it is closed. Its timeout becomes\n"
    "that of on_timeout(): so long without anything coming or going; None or 0: none. Tasks\n"
    "may write to it, but not read. Raises TypeError for a protocol without all methods,\n"
    "ValueError for an on_accept_error where nothing is accepted, BusyError if a task is\n"
    "reading, ClosedError, RuntimeError while the hub closes. Never switches.\n\n"
    "Source: libevent's bufferevent_setcb; libreact's reactor_add.");

static PyObject *
SkConn_set_callbacks(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                     PyObject *keyword_names)
{
    static const char *const names[] = {"protocol", "receive", "on_accept_error",
                                        "opened", NULL};
    static const struct parameters parameters = {"set_callbacks", names, 1, 1};
    PyObject *values[4];
    int is_opened = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0) {
        return NULL;
    }
    int receives = values[1] == NULL ? 1 : PyObject_IsTrue(values[1]);
    if (receives < 0 || convert_flag(values[3], &is_opened) < 0 ||
        conn_check_usable(conn) < 0) {
        return NULL;
    }
    PyObject *protocol = values[0];
    if (protocol == Py_None) {
        if (conn->callbacks != NULL) {
            if (conn_keep_fresh(conn) < 0) {
                return NULL;
            }
            callbacks_drop(conn);
        }
        Py_RETURN_NONE;
    }
    PyObject *on_accept_error = values[2] == Py_None ? NULL : values[2];
    bool is_factory;
    if (check_protocol(conn->hub->state, protocol, &is_factory) < 0 ||
        (on_accept_error != NULL &&
         check_accept_error(conn, on_accept_error, receives != 0) < 0)) {
        return NULL;
    }
    PyObject *made = NULL;
    if (is_factory && !(conn->is_listener && receives)) {
        made = protocol_make(conn->hub, protocol);
        if (made == NULL || conn_check_usable(conn) < 0) {
            Py_XDECREF(made);
            return NULL;
        }
        protocol = made;
        is_factory = false;
    }
    int error = install(conn, protocol, on_accept_error, is_factory, receives != 0);
    Py_XDECREF(made);
    if (error < 0) {
        return NULL;
    }
    if (is_opened && conn->callbacks != NULL && !callbacks_is_acceptor(conn->callbacks)) {
        conn->callbacks->is_connected = true;
        callbacks_notice(conn);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    trigger_doc,
    "trigger($self, events, /, *, ignore_watermarks=False)\n--\n\n"
    "Have on_data() (READ) and on_ready() (WRITE) called soon, whatever comes or goes.\n\n"
    "events: READ, WRITE or both. on_data() only if at least the read_low bytes are held, on_ready() only if no more than\n"
    "write_low wait, both as it is now; with ignore_watermarks in any case. They run as all\n"
    "callbacks do, in the hub, after the one that is running, also where disable() holds the\n"
    "direction. Raises RuntimeError without callbacks and for a listener, ValueError for\n"
    "other bits, ClosedError. Never switches.\n\n"
    "Source: libevent's bufferevent_trigger.");

static PyObject *
SkConn_trigger(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const char *const names[] = {"events", "ignore_watermarks", NULL};
    static const struct parameters parameters = {"trigger", names, 1, 1};
    PyObject *values[2] = {NULL};
    bool chosen[2];
    int is_forced = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        valve_convert_directions(values[0], chosen) < 0 ||
        convert_flag(values[1], &is_forced) < 0 || conn_check_usable(conn) < 0) {
        return NULL;
    }
    struct callbacks *callbacks = conn->callbacks;
    if (callbacks == NULL || callbacks_is_acceptor(callbacks)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "trigger() needs a connection with callbacks");
        return NULL;
    }
    const struct conn_options *options = conn_options_of(conn);
    size_t held = conn->hub->fresh_conn == conn ? conn->hub->fresh_length
                                                : line_buffer_length(&conn->input);
    callbacks->is_triggered |=
        chosen[FLOW_IN] &&
        (is_forced || (held > 0 && held >= options->low_mark[FLOW_IN]));
    callbacks->is_ready |=
        chosen[FLOW_OUT] &&
        (is_forced || conn_unsent(conn) <= options->low_mark[FLOW_OUT]);
    callbacks_notice(conn);
    Py_RETURN_NONE;
}

PyMethodDef protocol_methods[] = {
    {"trigger", (PyCFunction)(void (*)(void))SkConn_trigger,
     METH_FASTCALL | METH_KEYWORDS, trigger_doc},
    {"set_callbacks", (PyCFunction)(void (*)(void))SkConn_set_callbacks,
     METH_FASTCALL | METH_KEYWORDS, set_callbacks_doc},
    {NULL, NULL, 0, NULL},
};
