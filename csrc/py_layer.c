// py_layer.c: the way through a stack of layers: down by wrap(), up by unwrap().
//
// Invariants:
//   1. No layer is called while a call of the same connection's layers is going on: what a
//      layer emits waits until its call is over. (transport->depth; users are refused.)
//   2. After each call everything is looked at anew: it may have closed the connection,
//      and then the layers are gone; `is_cleared` tells.
//   3. A layer is cleared once: when it has been popped and what it wrapped is on the wire,
//      or when the connection lets go of its descriptor.
//
// Not here: when things are sent and received.

#include "py_layer.h"

#include <errno.h>
#include <stdlib.h>

#include "py_callbacks.h"
#include "py_convert.h"

// --- Calling --------------------------------------------------------------------------

// Calls a method of the layer, with [data] if that is not NULL.
static PyObject *
call(SkConnObject *conn, TransportLayerObject *layer, PyObject *name, PyObject *data)
{
    HubObject *hub = conn->hub;
    struct transport *transport = conn->transport;
    PyObject *arguments[2] = {(PyObject *)layer, data};
    hub->layer_depth++;
    transport->depth++;
    PyObject *result =
        PyObject_VectorcallMethod(name, arguments, data == NULL ? 1 : 2, NULL);
    transport->depth--;
    hub->layer_depth--;
    return result;
}

// The same, for methods that give bytes. b"" instead of None if [may_be_none] is given,
// where it is noted.
static PyObject *
call_for_bytes(SkConnObject *conn, TransportLayerObject *layer, PyObject *name,
               PyObject *data, bool *is_none)
{
    PyObject *result = call(conn, layer, name, data);
    if (result == NULL || PyBytes_CheckExact(result)) {
        return result;
    }
    PyObject *bytes = NULL;
    if (result == Py_None && is_none != NULL) {
        *is_none = true;
        bytes = PyBytes_FromStringAndSize(NULL, 0);
    }
    else if (PyObject_CheckBuffer(result)) {
        bytes = PyBytes_FromObject(result);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%.100s.%U() returned %.100s, not bytes",
                     Py_TYPE(layer)->tp_name, name, Py_TYPE(result)->tp_name);
    }
    Py_DECREF(result);
    return bytes;
}

// [first] and [second] together; steals both, either may be NULL with an exception.
static PyObject *
join(PyObject *first, PyObject *second)
{
    if (first == NULL || second == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    if (PyBytes_GET_SIZE(first) == 0) {
        Py_DECREF(first);
        return second;
    }
    PyBytes_ConcatAndDel(&first, second);
    return first;
}

// 0 if the layer is still the connection's, else -1 with ClosedError.
static int
check_still_there(SkConnObject *conn, TransportLayerObject *layer)
{
    if (!layer->is_cleared) {
        return 0;
    }
    raise_os_error(conn->hub->state->ClosedError, EBADF,
                   "the connection was closed by one of its layers");
    return -1;
}

// --- Down -----------------------------------------------------------------------------

// What the layer makes of [data], behind what it emits. NULL with an exception.
static PyObject *
wrap_once(SkConnObject *conn, TransportLayerObject *layer, PyObject *data)
{
    PyObject *name = conn->hub->state->name_wrap;
    PyObject *wrapped = call_for_bytes(conn, layer, name, data, NULL);
    if (wrapped != NULL && byte_block_length(&layer->emitted) > 0) {
        wrapped = join(layer_take_emitted(layer), wrapped);
    }
    if (wrapped != NULL && check_still_there(conn, layer) < 0) {
        Py_CLEAR(wrapped);
    }
    return wrapped;
}

// False for a view: there are none of no bytes.
static bool
is_empty(PyObject *data)
{
    return PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) == 0;
}

int
transport_wrap(SkConnObject *conn, TransportLayerObject *layer, PyObject *data)
{
    Py_XINCREF(layer);
    while (layer != NULL && data != NULL && !is_empty(data)) {
        // What comes after the end, as an alert may, has nowhere to go.
        bool is_over = layer->is_finished || layer->is_cleared;
        PyObject *wrapped =
            is_over ? PyBytes_FromStringAndSize(NULL, 0) : wrap_once(conn, layer, data);
        Py_SETREF(data, wrapped);
        TransportLayerObject *below = layer->below;
        Py_XINCREF(below);
        Py_SETREF(layer, below);
    }
    Py_XDECREF(layer);
    int error = data == NULL ? -1 : transport_add_to_wire(conn->transport, data);
    Py_XDECREF(data);
    return error;
}

// True if what [layer] emits now can go down at once: nothing waits that was written
// before the layer was pushed.
static bool
is_next(SkConnObject *conn, TransportLayerObject *layer)
{
    struct write_packet *first = write_queue_first(&conn->output);
    if (first == NULL || layer->is_popped) {
        return true;
    }
    TransportLayerObject *tag = first->layer;
    while (tag != NULL && tag != layer) {
        // not reached: a layer emits while one above it has output in line
        tag = tag->below;
    }
    return tag != NULL;
}

// Has what the layer emitted go down, or wait for its place.
static int
take_down_emitted(SkConnObject *conn, TransportLayerObject *layer)
{
    if (layer->is_finished) {
        byte_block_clear(&layer->emitted); // our direction has ended
    }
    if (byte_block_length(&layer->emitted) == 0) {
        return 0;
    }
    if (!is_next(conn, layer)) {
        conn->transport->has_held = true;
        return 0;
    }
    PyObject *bytes = layer_take_emitted(layer);
    return bytes == NULL ? -1 : transport_wrap(conn, layer->below, bytes);
}

int
transport_release_held(SkConnObject *conn, TransportLayerObject *layer)
{
    conn->transport->has_held = false;
    for (;;) {
        // The lowest one that has something, each time: a call may change everything.
        TransportLayerObject *lowest = NULL;
        for (TransportLayerObject *node = layer; node != NULL; node = node->below) {
            lowest = byte_block_length(&node->emitted) > 0 ? node : lowest;
        }
        if (lowest == NULL) {
            break;
        }
        PyObject *bytes = layer_take_emitted(lowest);
        if (bytes == NULL || transport_wrap(conn, lowest->below, bytes) < 0) {
            // not reached: held bytes without memory
            return -1;
        }
    }
    for (TransportLayerObject *node = conn->transport->top; node != NULL;
         node = node->below) {
        conn->transport->has_held |= byte_block_length(&node->emitted) > 0;
    }
    return 0;
}

int
transport_start(SkConnObject *conn, TransportLayerObject *layer)
{
    PyObject *result = call(conn, layer, conn->hub->state->name_started, NULL);
    if (result == NULL) {
        return -1;
    }
    Py_DECREF(result);
    return check_still_there(conn, layer) < 0 ? -1 : take_down_emitted(conn, layer);
}

int
transport_finish(SkConnObject *conn, TransportLayerObject *layer)
{
    if (layer->is_finished || layer->is_cleared) {
        return 0;
    }
    PyObject *name = conn->hub->state->name_finish;
    PyObject *last = call_for_bytes(conn, layer, name, NULL, NULL);
    layer->is_finished = true;
    if (last != NULL && byte_block_length(&layer->emitted) > 0) {
        last = join(layer_take_emitted(layer), last);
    }
    return last == NULL ? -1 : transport_wrap(conn, layer->below, last);
}

// --- Up -------------------------------------------------------------------------------

// One unwrap(). Steals [data].
static PyObject *
unwrap_piece(SkConnObject *conn, TransportLayerObject *layer, PyObject *data)
{
    if (data == NULL) {
        return NULL;
    }
    bool is_end = false;
    PyObject *name = conn->hub->state->name_unwrap;
    PyObject *plain = call_for_bytes(conn, layer, name, data, &is_end);
    Py_DECREF(data);
    layer->has_ended |= is_end;
    if (plain != NULL &&
        (check_still_there(conn, layer) < 0 || take_down_emitted(conn, layer) < 0)) {
        Py_CLEAR(plain);
    }
    return plain;
}

// What the layer makes of [data], which is stolen, and then of the end of the stream.
static PyObject *
unwrap_once(SkConnObject *conn, TransportLayerObject *layer, PyObject *data, bool is_end)
{
    bool has_data = PyBytes_GET_SIZE(data) > 0;
    PyObject *plain = has_data ? unwrap_piece(conn, layer, data) : data;
    if (plain != NULL && is_end && !layer->has_ended) {
        PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0);
        plain = join(plain, unwrap_piece(conn, layer, nothing));
        layer->has_ended = true;
    }
    return plain;
}

PyObject *
transport_unwrap(SkConnObject *conn, TransportLayerObject *layer, PyObject *data,
                 bool is_end)
{
    Py_XINCREF(layer);
    while (layer != NULL && data != NULL && (is_end || PyBytes_GET_SIZE(data) > 0)) {
        if (layer->has_ended) {
            // Nobody asked for what comes behind the end.
            // not reached: the transport reads no more then
            Py_SETREF(data, PyBytes_FromStringAndSize(NULL, 0));
            break;
        }
        data = unwrap_once(conn, layer, data, is_end);
        is_end = layer->has_ended;
        TransportLayerObject *above = layer->above;
        Py_XINCREF(above);
        Py_SETREF(layer, above);
    }
    Py_XDECREF(layer);
    return data;
}

// --- The end --------------------------------------------------------------------------

void
transport_clear_layer(SkConnObject *conn, TransportLayerObject *layer)
{
    if (layer->is_cleared) {
        return; // not reached: each goes once
    }
    layer->is_cleared = true;
    PyObject *exception = take_exception();
    PyObject *result = call(conn, layer, conn->hub->state->name_on_clear, NULL);
    if (result == NULL) {
        report_exception((PyObject *)layer);
    }
    Py_XDECREF(result);
    restore_exception(exception);
}

void
transport_drop_layers(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    TransportLayerObject *layer;
    while ((layer = transport->top) != NULL) {
        transport->top = layer->below;
        layer->below = NULL;
        if (transport->top != NULL) {
            transport->top->above = NULL;
        }
        else {
            transport->bottom = NULL;
        }
        byte_block_clear(&layer->emitted);
        transport_clear_layer(conn, layer);
        Py_DECREF(layer);
    }
}

// Sends what the layers have emitted before one of them failed, as far as it can be.
static void
say_last_words(SkConnObject *conn)
{
    if (transport_release_held(conn, conn->transport->top) < 0) {
        // not reached: a layer that fails twice
        PyErr_Clear(); // the first failure is the one that counts
    }
}

void
transport_fail(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    PyObject *exception = take_exception();
    write_queue_clear(&conn->output);
    say_last_words(conn);
    transport_drop_layers(conn);
    if (conn->fd < 0) {
        // A layer closed it: what it raised besides concerns nobody.
        Py_DECREF(exception);
        return;
    }
    if (!conn->is_closed && conn_close(conn) < 0) {
        PyErr_Clear(); // an earlier failure, or that of the last words
    }
    Py_XSETREF(transport->failure, exception);
    if (conn->callbacks != NULL) {
        callbacks_notice(conn); // on_error is due
    }
}

PyObject *
transport_take_failure(SkConnObject *conn)
{
    PyObject *failure = conn->transport == NULL ? NULL : conn->transport->failure;
    if (failure != NULL) {
        conn->transport->failure = NULL;
    }
    return failure;
}

bool
transport_raise_failure(SkConnObject *conn)
{
    PyObject *failure = conn->transport->failure;
    if (failure == NULL) {
        return false;
    }
    if (conn->callbacks == NULL) {
        conn->transport->failure = NULL;
    }
    else {
        Py_INCREF(failure);
    }
    restore_exception(failure);
    return true;
}

void
transport_free(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    transport_drop_layers(conn);
    conn->transport = NULL;
    transport_clear_wire(transport);
    Py_CLEAR(transport->failure);
    LIVE_COUNT(LIVE_TRANSPORTS, -1);
    free(transport);
}

void
transport_free_if_unused(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    if (!conn->is_closed && transport->top == NULL && transport->depth == 0 &&
        transport->wire.length == 0 && write_queue_is_empty(&conn->output)) {
        transport_free(conn);
    }
}

int
transport_traverse(struct transport *transport, visitproc visit, void *arg)
{
    Py_VISIT(transport->top);
    Py_VISIT(transport->failure);
    return 0;
}
