// py_conn_layers.c: receiving through layers, and what users call to have them.
//
// Layers are pushed and popped only while nobody reads or writes: a reader that waits has
// looked for layers already.

#include "py_layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "py_callbacks.h"
#include "py_convert.h"

// How much is received at once.
#define RECEIVE_SIZE (64 * 1024)

// A peer that has layers answer (by TLS alerts, key updates) and reads no answers is read
// no more once so much waits for it.
#define WIRE_LIMIT (256 * 1024)

// What a closing connection takes off the kernel at most: so many times as much.
#define DISCARDED_RECEIPTS 4

// Rounds that give nothing, after which others get their turn.
#define ROUND_BUDGET HARD_OR_USUAL(1, 64)

// --- Receiving ------------------------------------------------------------------------

int
transport_refuse_reentry(SkConnObject *conn)
{
    if (conn->transport == NULL || conn->transport->depth == 0) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "a layer's code may not use the connection that it is part of");
    return -1;
}

// Keeps bytes that came out of the layers. 0, or -1 with MemoryError.
static int
keep_plain(SkConnObject *conn, PyObject *plain)
{
    return conn_keep_input(conn, PyBytes_AS_STRING(plain),
                           (size_t)PyBytes_GET_SIZE(plain));
}

// Closes the connection for the exception that is set, and raises it. NULL.
static PyObject *
fail(SkConnObject *conn)
{
    transport_fail(conn);
    return conn_raise_closed(conn);
}

// Unwraps what was received: [count] bytes in the scratch area, 0 at the end of file.
static PyObject *
unwrap_received(SkConnObject *conn, ssize_t count)
{
    PyObject *data = PyBytes_FromStringAndSize(conn->hub->scratch, count);
    if (data == NULL) {
        conn_abort(conn); // the stream has a hole
        return NULL;
    }
    struct transport *transport = conn->transport;
    if (transport == NULL) {
        return data; // not reached: nobody pops a layer that is read through
    }
    PyObject *plain = transport_unwrap(conn, transport->bottom, data, count == 0);
    if (plain == NULL) {
        return fail(conn);
    }
    if (transport->wire.length > 0) {
        transport_send_wire(conn); // the layers' answers; a failure is kept
    }
    return plain;
}

// True if all layers have been popped: what comes is what was received, b"" the end.
static bool
is_bare(SkConnObject *conn)
{
    return !conn->is_closed && transport_top(conn) == NULL;
}

bool
transport_owes_answers(const SkConnObject *conn)
{
    return transport_wire_length(conn) > WIRE_LIMIT;
}

static ssize_t
receive_wire(SkConnObject *conn)
{
    return conn_receive_now(conn, conn->hub->scratch,
                            conn_receive_size(conn, RECEIVE_SIZE));
}

// Receives once and unwraps that; parks until there is something. NULL with an exception,
// None if prepend() put bytes into the buffer meanwhile.
static PyObject *
receive_once(SkConnObject *conn, const char *operation)
{
    for (;;) {
        if (conn->reader_needs_answer && conn->write_error < 0) {
            conn_raise_write_error(conn);
            return NULL;
        }
        bool waits_for_room = transport_owes_answers(conn);
        if (conn->may_read && !waits_for_room) {
            ssize_t count = receive_wire(conn);
            if (count >= 0) {
                return unwrap_received(conn, count);
            }
            if (count != -EAGAIN) {
                return conn_raise(conn, count);
            }
        }
        size_t held = line_buffer_length(&conn->input);
        conn->reader_wants_room = waits_for_room;
        int error = conn_wait_readable(conn, operation);
        conn->reader_wants_room = false;
        if (error < 0) {
            return NULL;
        }
        if (line_buffer_length(&conn->input) != held) {
            return Py_NewRef(Py_None);
        }
    }
}

PyObject *
transport_receive(SkConnObject *conn, const char *operation)
{
    for (unsigned rounds = 1;; rounds++) {
        if (transport_has_ended(conn)) {
            return PyBytes_FromStringAndSize(NULL, 0);
        }
        PyObject *plain = receive_once(conn, operation);
        if (plain == NULL || plain == Py_None || PyBytes_GET_SIZE(plain) > 0 ||
            is_bare(conn)) {
            return plain;
        }
        Py_DECREF(plain);
        if (rounds % ROUND_BUDGET == 0) {
            int status = hub_park(conn->hub, &conn->reader, NULL, WAITS_FOR_TURN, -1,
                                  operation, (PyObject *)conn);
            if (status < 0) {
                return NULL; // not reached: peers send less than it takes
            }
        }
        if (conn->is_closed) {
            return conn_raise_closed(conn); // not reached: as above
        }
    }
}

void
transport_discard_input(SkConnObject *conn)
{
    if (conn->transport == NULL || conn->fd < 0 || !conn->is_socket) {
        return;
    }
    for (int i = 0; i < DISCARDED_RECEIPTS; i++) {
        if (conn_receive_now(conn, conn->hub->scratch, RECEIVE_SIZE) <= 0) {
            return;
        }
    }
}

int
transport_receive_now(SkConnObject *conn)
{
    if (transport_has_ended(conn)) {
        return 0;
    }
    if (!conn->may_read || transport_owes_answers(conn)) {
        return -EAGAIN;
    }
    ssize_t count = receive_wire(conn);
    if (count == -EAGAIN) {
        return -EAGAIN;
    }
    if (count < 0) {
        conn_raise(conn, count);
        return -1;
    }
    PyObject *plain = unwrap_received(conn, count);
    int error = plain == NULL ? -1 : keep_plain(conn, plain);
    bool is_end = plain != NULL && PyBytes_GET_SIZE(plain) == 0 &&
                  (transport_has_ended(conn) || (count == 0 && is_bare(conn)));
    Py_XDECREF(plain);
    return error < 0 ? -1 : !is_end;
}

PyDoc_STRVAR(
    receive_layered_doc,
    "_receive_layered($self, /)\n--\n\n"
    "Receive once and have the layers unwrap it; what comes out can be read then.\n\n"
    "For what a layer needs before there is anything to read: a handshake, a header. Raises\n"
    "EOFError if the stream has ended, what a layer raises, what readsome() raises, and the\n"
    "OSError that has lost what was to be sent.\n"
    "Switches.");

static PyObject *
SkConn_receive_layered(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    if (transport_has_ended(conn)) {
        PyErr_SetString(PyExc_EOFError, "the stream has ended");
        return NULL;
    }
    // If our part of a handshake is lost, the peer's part never comes.
    conn->reader_needs_answer = true;
    PyObject *plain = receive_once(conn, "_receive_layered");
    conn->reader_needs_answer = false;
    int error = plain == NULL ? -1 : plain == Py_None ? 0 : keep_plain(conn, plain);
    Py_XDECREF(plain);
    if (error < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

// --- Pushing and popping --------------------------------------------------------------

static int
check_may_change(SkConnObject *conn)
{
    return conn_check_usable(conn) < 0 || transport_refuse_reentry(conn) < 0 ||
                   conn_check_free(conn, conn->reader, "reading") < 0 ||
                   conn_check_free(conn, conn->writer, "writing") < 0
               ? -1
               : 0;
}

static int
check_pushable(SkConnObject *conn, PyObject *object)
{
    if (!PyObject_TypeCheck(object, conn->hub->state->layer_type)) {
        PyErr_Format(PyExc_TypeError, "push_layer() takes a TransportLayer, not %.100s",
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    PyObject *takes_views = get_attribute(object, "_takes_views");
    if (takes_views == NULL) {
        return -1;
    }
    ((TransportLayerObject *)object)->takes_views = takes_views == Py_True;
    Py_DECREF(takes_views);
    if (((TransportLayerObject *)object)->is_used) {
        PyErr_Format(PyExc_ValueError, "%R was pushed before; each use needs a new one",
                     object);
        return -1;
    }
    if (!conn->is_stream || conn->is_listener) {
        PyErr_SetString(PyExc_ValueError, "only streams can have layers");
        return -1;
    }
    return 0;
}

static int
put_on_top(SkConnObject *conn, TransportLayerObject *layer)
{
    struct transport *transport = conn->transport;
    if (transport == NULL) {
        transport = calloc(1, sizeof(*transport));
        if (transport == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        byte_block_init(&transport->wire.block);
        LIVE_COUNT(LIVE_TRANSPORTS, 1);
        conn->transport = transport;
    }
    line_buffer_end_run(&conn->input); // what comes next is the layer's
    layer->is_used = true;
    layer->below = transport->top; // with the reference
    if (layer->below != NULL) {
        layer->below->above = layer;
    }
    else {
        transport->bottom = layer;
    }
    transport->top = (TransportLayerObject *)Py_NewRef((PyObject *)layer);
    return 0;
}

// What was received and not yet read came before anybody knew of the layer, but is meant
// for it: with STARTTLS the peer's first record may follow the answer at once.
static int
unwrap_what_was_read_ahead(SkConnObject *conn, TransportLayerObject *layer)
{
    size_t held = line_buffer_length(&conn->input);
    bool is_end = layer->below != NULL && layer->below->has_ended;
    if (held == 0 && !is_end) {
        return 0;
    }
    PyObject *data =
        PyBytes_FromStringAndSize(line_buffer_data(&conn->input), (Py_ssize_t)held);
    PyObject *plain = NULL;
    if (data != NULL) {
        line_buffer_drain(&conn->input, held);
        plain = transport_unwrap(conn, layer, data, is_end);
    }
    if (plain == NULL) {
        fail(conn);
        return -1;
    }
    int error = keep_plain(conn, plain); // which closes the connection by itself
    Py_DECREF(plain);
    return error;
}

// After a change of layers: what is read from now on is another stream, with an end of its
// own, and there may be room where there was none.
static void
begin_stream(SkConnObject *conn)
{
    line_buffer_end_run(&conn->input);
    if (conn->callbacks != NULL) {
        conn->callbacks->has_ended = false;
        callbacks_notice(conn);
        callbacks_note_input(conn);
    }
}

PyDoc_STRVAR(
    push_layer_doc,
    "push_layer($self, layer, /)\n--\n\n"
    "Put a TransportLayer on top: what is written from now on goes down through it, what is\n"
    "read comes up through it.\n\n"
    "Bytes that were received and not read yet go through it; bytes that were written before\n"
    "do not, sent or not. It is a stream of its own: after on_eof() that is called again, for\n"
    "the end of this one. Never switches. Raises BusyError while a task reads or writes,\n"
    "ValueError for what is no stream and for a layer that was pushed before, and what the\n"
    "layer raises, which closes the connection.\n\n"
    "Source: libsock's sock_tlc_add; libevent's bufferevent_filter_new.");

static PyObject *
SkConn_push_layer(SkConnObject *conn, PyObject *object)
{
    TransportLayerObject *layer = (TransportLayerObject *)object;
    // The first one may run code of the layer's class.
    if (check_pushable(conn, object) < 0 || check_may_change(conn) < 0 ||
        conn_keep_fresh(conn) < 0 || put_on_top(conn, layer) < 0) {
        return NULL;
    }
    if (transport_start(conn, layer) < 0) {
        return fail(conn);
    }
    if (unwrap_what_was_read_ahead(conn, layer) < 0) {
        return NULL;
    }
    transport_flush(conn); // a failure is kept
    begin_stream(conn);
    Py_RETURN_NONE;
}

// What the popped layer did not want: bytes that came behind its own end.
static int
take_leftover(SkConnObject *conn, TransportLayerObject *layer)
{
    PyObject *leftover = get_attribute((PyObject *)layer, "leftover");
    if (leftover == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear(); // most layers have none
        return 0;
    }
    if (leftover == NULL) {
        fail(conn); // nobody knows what is missing now
        return -1;
    }
    int error = PyBytes_Check(leftover) ? keep_plain(conn, leftover) : 0;
    Py_DECREF(leftover);
    return error;
}

PyDoc_STRVAR(
    pop_layer_doc,
    "pop_layer($self, /)\n--\n\n"
    "Take the top layer off and return it.\n\n"
    "What was written before still goes through it, and so does its end; it is told by\n"
    "on_clear() when that has been sent. What it has unwrapped stays readable, then what it\n"
    "has as `leftover`; what it holds besides is lost. Never switches. Raises BusyError while\n"
    "a task reads or writes, IndexError if there is no layer.");

static PyObject *
SkConn_pop_layer(SkConnObject *conn, PyObject *unused)
{
    (void)unused;
    if (check_may_change(conn) < 0) {
        return NULL;
    }
    struct transport *transport = conn->transport;
    TransportLayerObject *layer = transport == NULL ? NULL : transport->top;
    if (layer == NULL) {
        PyErr_SetString(PyExc_IndexError, "the connection has no layers");
        return NULL;
    }
    if (transport_add_mark(conn, layer) < 0) {
        return PyErr_NoMemory();
    }
    // The stack's reference becomes ours. The layer keeps what is below it alive, for as
    // long as something waits that has to go through both.
    layer->is_popped = true;
    transport->top = layer->below;
    Py_XINCREF(transport->top);
    if (transport->top != NULL) {
        transport->top->above = NULL;
    }
    else {
        transport->bottom = NULL;
    }
    if (take_leftover(conn, layer) < 0) {
        Py_DECREF(layer);
        return NULL;
    }
    transport_flush(conn); // a failure is kept
    begin_stream(conn);
    return (PyObject *)layer;
}

PyDoc_STRVAR(
    start_tls_doc,
    "start_tls($self, /, context=None, *, server_side=False, server_hostname=None, session=None, timeout=None)\n--\n\n"
    "Encrypt from here on: push a TLSLayer, wait for the handshake, and return the layer.\n\n"
    "context: an ssl.SSLContext; a client's may be None, and then the peer's certificate is\n"
    "verified by the system's authorities. server_side: this end is the server. server_hostname: the name that the certificate\n"
    "has to be for. session: one to resume. timeout: seconds for the handshake, None for no\n"
    "limit.\n\n"
    "Whatever fails closes the connection. Raises ssl.SSLError (of a certificate:\n"
    "ssl.SSLCertVerificationError), TimeoutError, and what push_layer() raises. Switches.\n\n"
    "Source: libevent's bufferevent_openssl_filter_new.");

static PyObject *
SkConn_start_tls(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                 PyObject *keyword_names)
{
    // The module, and ssl with it, is loaded by those who need it.
    PyObject *module = PyImport_ImportModule("pycoronet.tls");
    PyObject *function = module == NULL ? NULL : get_attribute(module, "start_tls");
    Py_XDECREF(module);
    if (function == NULL) {
        return NULL;
    }
    Py_ssize_t keyword_count =
        keyword_names == NULL ? 0 : PyTuple_GET_SIZE(keyword_names);
    Py_ssize_t total = count + keyword_count;
    PyObject **values = PyMem_New(PyObject *, (size_t)total + 1);
    PyObject *layer = NULL;
    if (values == NULL) {
        PyErr_NoMemory();
    }
    else {
        values[0] = (PyObject *)conn;
        for (Py_ssize_t i = 0; i < total; i++) {
            values[i + 1] = arguments[i];
        }
        layer = PyObject_Vectorcall(function, values, (size_t)count + 1, keyword_names);
    }
    PyMem_Free(values);
    Py_DECREF(function);
    return layer;
}

// --- Attributes -----------------------------------------------------------------------

static PyObject *
get_layers(SkConnObject *conn, void *unused)
{
    (void)unused;
    PyObject *list = PyList_New(0);
    TransportLayerObject *layer = conn->transport == NULL ? NULL : conn->transport->top;
    for (; layer != NULL && list != NULL; layer = layer->below) {
        if (PyList_Append(list, (PyObject *)layer) < 0) {
            Py_CLEAR(list);
        }
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

static PyObject *
get_tls(SkConnObject *conn, void *unused)
{
    (void)unused;
    TransportLayerObject *layer = conn->transport == NULL ? NULL : conn->transport->top;
    for (; layer != NULL; layer = layer->below) {
        PyObject *is_tls = get_attribute((PyObject *)layer, "_is_tls");
        if (is_tls == NULL) {
            return NULL;
        }
        Py_DECREF(is_tls);
        if (is_tls == Py_True) {
            return Py_NewRef((PyObject *)layer);
        }
    }
    Py_RETURN_NONE;
}

PyGetSetDef conn_layer_attributes[] = {
    {"layers", (getter)get_layers, NULL,
     PyDoc_STR("The transport layers, a tuple, the top one first."), NULL},
    {"tls", (getter)get_tls, NULL,
     PyDoc_STR("The topmost TLSLayer, with what was agreed upon; None without one."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef conn_layer_methods[] = {
    {"push_layer", (PyCFunction)SkConn_push_layer, METH_O, push_layer_doc},
    {"pop_layer", (PyCFunction)SkConn_pop_layer, METH_NOARGS, pop_layer_doc},
    {"start_tls", (PyCFunction)(void (*)(void))SkConn_start_tls,
     METH_FASTCALL | METH_KEYWORDS, start_tls_doc},
    {"_receive_layered", (PyCFunction)SkConn_receive_layered, METH_NOARGS,
     receive_layered_doc},
    {NULL, NULL, 0, NULL},
};
