// py_layer_output.c: sending through layers.
//
// What waits in the queue is plain text. It is wrapped piece by piece as it leaves, by the
// layer that its packet is tagged with and those below that, onto the wire: a block of
// bytes that is kept short, so that little is wrapped of what an urgent packet could still
// overtake. A mark is the place where a layer ends: it is finished there and, if it has
// been popped, cleared.

#include "py_layer.h"

#include <errno.h>

#include "py_convert.h"
#include "py_traffic.h"

// The wire is filled up to this before it is sent, and wrapped in pieces of at most so much:
// a few records of TLS, for each call of a layer costs something.
#define WIRE_FILL_SIZE (64 * 1024)
#define PIECE_SIZE (64 * 1024)
#define MAX_PIECE_SPANS 16

// A packet with so much left is not copied together with what is behind it.
#define VIEW_SIZE (16 * 1024)

// How often the wire is filled in a turn, so that no connection keeps the others waiting.
#define WIRES_A_TURN 8

// --- Marks ----------------------------------------------------------------------------

// What a mark's release function needs to know.
struct mark {
    SkConnObject *conn;          // borrowed: the mark is in its queue
    TransportLayerObject *layer; // owned
};

static void
release_mark(void *owner, uint64_t unsent)
{
    (void)unsent;
    struct mark *mark = owner;
    if (mark->layer->is_popped) {
        transport_clear_layer(mark->conn, mark->layer);
    }
    Py_DECREF(mark->layer);
    PyMem_Free(mark);
}

int
transport_add_mark(SkConnObject *conn, TransportLayerObject *layer)
{
    struct mark *mark = PyMem_Malloc(sizeof(*mark));
    if (mark == NULL) {
        return -ENOMEM;
    }
    *mark = (struct mark){conn, layer};
    int error = write_queue_add_mark(&conn->output, layer, release_mark, mark);
    if (error < 0) {
        PyMem_Free(mark);
        return error;
    }
    Py_INCREF(layer);
    return 0;
}

void
transport_add_all_marks(SkConnObject *conn)
{
    TransportLayerObject *layer = conn->transport->top;
    for (; layer != NULL; layer = layer->below) {
        if (transport_add_mark(conn, layer) < 0) {
            return; // no memory: it closes without its last words
        }
    }
}

void
transport_withdraw_marks(SkConnObject *conn)
{
    struct write_packet *packet = write_queue_first(&conn->output);
    while (packet != NULL) {
        // The layer stays, for the stack holds it: this runs no code.
        struct write_packet *next = packet->next;
        TransportLayerObject *layer = packet->layer;
        if (packet->kind == WRITE_MARK && !layer->is_popped) {
            write_queue_withdraw(&conn->output, packet->owner);
        }
        packet = next;
    }
}

// --- The wire -------------------------------------------------------------------------

static void
drop_pieces(struct wire *wire)
{
    while (wire->piece_count > 0) {
        Py_DECREF(wire->pieces[--wire->piece_count]);
    }
}

void
transport_clear_wire(struct transport *transport)
{
    byte_block_clear(&transport->wire.block);
    drop_pieces(&transport->wire);
    transport->wire.length = 0;
}

// Copies what is left of the pieces, without their first [skipped] bytes, into the block.
static int
move_pieces_to_block(struct wire *wire, size_t skipped)
{
    for (unsigned i = 0; i < wire->piece_count; i++) {
        size_t length = (size_t)PyBytes_GET_SIZE(wire->pieces[i]);
        size_t gone = skipped < length ? skipped : length;
        skipped -= gone;
        if (gone < length &&
            byte_block_append(&wire->block, PyBytes_AS_STRING(wire->pieces[i]) + gone,
                              length - gone) < 0) {
            return -ENOMEM;
        }
    }
    drop_pieces(wire);
    return 0;
}

int
transport_add_to_wire(struct transport *transport, PyObject *data)
{
    struct wire *wire = &transport->wire;
    if (PyBytes_GET_SIZE(data) == 0) {
        return 0;
    }
    if (wire->piece_count == WIRE_PIECES && move_pieces_to_block(wire, 0) < 0) {
        PyErr_NoMemory(); // not reached: many pieces, without memory
        return -1;
    }
    wire->pieces[wire->piece_count++] = Py_NewRef(data);
    wire->length += (size_t)PyBytes_GET_SIZE(data);
    return 0;
}

// Adds at most [*room] bytes to the spans, and takes them off it.
static void
add_span(struct iovec *spans, int *count, char *data, size_t length, size_t *room)
{
    size_t taken = length < *room ? length : *room;
    if (taken > 0) {
        spans[(*count)++] = (struct iovec){data, taken};
        *room -= taken;
    }
}

// Sends what the valve allows of the wire. The count, or -errno.
static ssize_t
send_some(SkConnObject *conn, const struct wire *wire)
{
    struct iovec spans[WIRE_PIECES + 1];
    int count = 0;
    size_t room =
        conn->valve == NULL ? SIZE_MAX : valve_allowance(conn, FLOW_OUT, wire->length);
    if (room == 0) {
        return -EAGAIN;
    }
    if (HARD_MODE) {
        room = conn_send_length(conn, wire->length < room ? wire->length : room);
    }
    add_span(spans, &count, byte_block_data(&wire->block),
             byte_block_length(&wire->block), &room);
    for (unsigned i = 0; i < wire->piece_count; i++) {
        add_span(spans, &count, PyBytes_AS_STRING(wire->pieces[i]),
                 (size_t)PyBytes_GET_SIZE(wire->pieces[i]), &room);
    }
    return conn_note_moved(conn, FLOW_OUT, conn_send_spans(conn, spans, count));
}

// Takes what has been sent away. 0 or -ENOMEM.
static int
drain_wire(struct wire *wire, size_t count)
{
    wire->length -= count;
    if (wire->length == 0) {
        byte_block_clear(&wire->block);
        drop_pieces(wire);
        return 0;
    }
    size_t held = byte_block_length(&wire->block);
    size_t from_block = count < held ? count : held;
    byte_block_drain(&wire->block, from_block);
    return move_pieces_to_block(wire, count - from_block);
}

// --- Wrapping -------------------------------------------------------------------------

// A memoryview of what leaves next, or the whole bytes object, taken off the queue. NULL
// without an exception if it has to be copied: only a bytes object can be handed out, for
// a layer may keep what it gets, and other memory is only lent to us.
static PyObject *
take_view(SkConnObject *conn, struct write_packet *packet, TransportLayerObject *layer)
{
    PyObject *bytes =
        packet->owner == conn ? conn->transport->written : conn_packet_bytes(packet);
    if (bytes == NULL || packet->left < VIEW_SIZE) {
        return NULL;
    }
    Py_ssize_t start = packet->bytes - PyBytes_AS_STRING(bytes);
    size_t length = packet->left < PIECE_SIZE ? (size_t)packet->left : PIECE_SIZE;
    PyObject *view = NULL;
    if (length == (size_t)PyBytes_GET_SIZE(bytes)) {
        view = Py_NewRef(bytes);
    }
    else if (layer != NULL && layer->takes_views) {
        PyObject *whole = PyMemoryView_FromObject(bytes);
        if (whole != NULL) {
            view = PySequence_GetSlice(whole, start, start + (Py_ssize_t)length);
            Py_DECREF(whole);
        }
    }
    if (view != NULL) {
        write_queue_drain(&conn->output, length, &conn->hub->spare_packet);
    }
    return view;
}

// Copies what leaves next, at most a piece, and takes it off the queue.
static PyObject *
copy_piece(SkConnObject *conn)
{
    struct iovec spans[MAX_PIECE_SPANS];
    int count = write_queue_gather(&conn->output, spans, MAX_PIECE_SPANS);
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        size_t room = PIECE_SIZE - length;
        spans[i].iov_len = spans[i].iov_len < room ? spans[i].iov_len : room;
        length += spans[i].iov_len;
    }
    PyObject *piece = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (piece == NULL) {
        return NULL;
    }
    char *place = PyBytes_AS_STRING(piece);
    for (int i = 0; i < count; i++) {
        memcpy(place, spans[i].iov_base, spans[i].iov_len);
        place += spans[i].iov_len;
    }
    write_queue_drain(&conn->output, length, &conn->hub->spare_packet);
    return piece;
}

static PyObject *
take_piece(SkConnObject *conn, struct write_packet *packet, TransportLayerObject *layer)
{
    PyObject *view = take_view(conn, packet, layer);
    return view != NULL || PyErr_Occurred() ? view : copy_piece(conn);
}

// The same of a file. NULL with an exception, or without one and -errno in [*error].
static PyObject *
read_piece(SkConnObject *conn, struct write_packet *packet, int *error)
{
    size_t length = packet->left < PIECE_SIZE ? (size_t)packet->left : PIECE_SIZE;
    int fd = packet->fd;
    int64_t offset = packet->offset;
    ssize_t count = length == 0 ? 0 : io_read_at(fd, conn->hub->scratch, length, offset);
    if (count < 0 || (count == 0 && length > 0)) {
        *error = count == 0 ? -EIO : (int)count; // it has become shorter
        return NULL;
    }
    PyObject *piece = PyBytes_FromStringAndSize(conn->hub->scratch, count);
    if (piece != NULL) {
        write_queue_drain(&conn->output, (uint64_t)count, &conn->hub->spare_packet);
    }
    return piece;
}

static int
wrap_mark(SkConnObject *conn, struct write_packet *mark)
{
    TransportLayerObject *layer = mark->layer;
    Py_INCREF(layer);
    int error = transport_finish(conn, layer);
    Py_DECREF(layer);
    if (write_queue_first(&conn->output) == mark) {
        write_queue_drop_first(&conn->output);
    }
    return error;
}

// Wraps what leaves next. 0, -1 with an exception, or without one -errno.
static int
wrap_next(SkConnObject *conn)
{
    struct write_packet *packet = write_queue_first(&conn->output);
    TransportLayerObject *layer = packet->layer;
    if (packet->kind == WRITE_MARK) {
        return wrap_mark(conn, packet);
    }
    if (layer != NULL && layer->is_finished) {
        return -EPIPE;
    }
    int error = -1;
    Py_XINCREF(layer); // taking a packet away may run Python code
    PyObject *piece = packet->kind == WRITE_FILE ? read_piece(conn, packet, &error)
                                                 : take_piece(conn, packet, layer);
    if (piece != NULL) {
        error = transport_wrap(conn, layer, piece);
    }
    Py_XDECREF(layer);
    return error;
}

// Fills the wire with what waits. 0, or as wrap_next().
static int
fill_wire(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    while (transport->wire.length < WIRE_FILL_SIZE) {
        struct write_packet *first = write_queue_first(&conn->output);
        if (transport->has_held) {
            // Behind what is older, before what is younger.
            TransportLayerObject *layer = first == NULL ? transport->top : first->layer;
            if (transport_release_held(conn, layer) < 0) {
                // not reached: held bytes without memory
                return -1;
            }
            first = write_queue_first(&conn->output);
        }
        if (first == NULL) {
            break;
        }
        int error = wrap_next(conn);
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

// --- Sending --------------------------------------------------------------------------

static void
drop_output(SkConnObject *conn, int error)
{
    conn_fail_output(conn, error);
    transport_clear_wire(conn->transport);
}

// -EAGAIN, or what registering fails with.
static int
wait_for_room(SkConnObject *conn)
{
    conn->may_write = false;
    int error = conn_register(conn);
    return error == 0 ? -EAGAIN : error;
}

static int
go_on_next_turn(SkConnObject *conn)
{
    list_remove(&conn->dirty_link);
    list_append(&conn->hub->unfinished, &conn->dirty_link);
    return FLUSH_GOES_ON;
}

int
transport_send_wire(SkConnObject *conn)
{
    struct wire *wire = &conn->transport->wire;
    uint64_t budget = conn_turn_budget(conn);
    while (wire->length > 0) {
        if (budget == 0) {
            return go_on_next_turn(conn);
        }
        ssize_t count = conn->may_write ? send_some(conn, wire) : -EAGAIN;
        if (count == -EAGAIN && (count = wait_for_room(conn)) == -EAGAIN) {
            return -EAGAIN;
        }
        if (count >= 0) {
            budget -= (uint64_t)count < budget ? (uint64_t)count : budget;
            count = drain_wire(wire, (size_t)count);
        }
        if (count < 0) {
            drop_output(conn, (int)count);
            return (int)count;
        }
    }
    return 0;
}

static int
wrap_and_send(SkConnObject *conn)
{
    for (unsigned turns = 0;; turns++) {
        if (turns == WIRES_A_TURN) {
            return go_on_next_turn(conn);
        }
        // Nothing is wrapped ahead of time: what waits can still be overtaken.
        int error = conn->may_write && conn_flows(conn, FLOW_OUT) ? fill_wire(conn)
                                                                  : wait_for_room(conn);
        if (error == 0 && conn->transport->wire.length == 0) {
            return 0; // all has left
        }
        if (error == 0) {
            error = transport_send_wire(conn);
        }
        else if (error != -EAGAIN && !PyErr_Occurred()) {
            drop_output(conn, error);
        }
        if (error != 0) {
            return error;
        }
    }
}

int
transport_flush(SkConnObject *conn)
{
    struct transport *transport = conn->transport;
    list_remove(&conn->dirty_link);
    if (transport->is_flushing || transport->depth > 0) {
        return 0; // whoever is at it sees what has come
    }
    PyObject *exception = take_exception();
    Py_INCREF(conn); // a layer's code may let go of it
    transport->is_flushing = true;
    int error = wrap_and_send(conn);
    transport->is_flushing = false;
    if (PyErr_Occurred()) {
        transport_fail(conn);
        // What was wrapped before still leaves, and so do the layers' last words.
        error = conn->fd < 0 ? 0 : transport_send_wire(conn);
        error = error == 0 ? -ECONNABORTED : error;
    }
    else if (error == 0) {
        transport_free_if_unused(conn);
    }
    restore_exception(exception);
    Py_DECREF(conn);
    return error;
}
