// py_layer.h: transport layers: what lies between a connection and its descriptor.
//
// A layer turns what the program writes into what is sent (wrap) and what is received into
// what the program reads (unwrap): TLS, compression, a recorder. Layers lie on a connection
// in a stack; the top one is next to the program, the bottom one next to the descriptor.
// py_layer_type.c has the base class, py_layer.c the way up and down through a stack,
// py_layer_output.c sending, py_conn_layers.c receiving and what users call.
//
// A connection without layers has no struct transport, and pays one test of a pointer.
//
// Output is wrapped when it leaves, not when it is written: packets wait as plain text,
// tagged with the layer that was on top when they were queued, so that urgent ones can
// still overtake, and so that a layer pushed in mid-stream does not get what is older.
//
// Layer code is Python code that runs in the middle of reading or sending, whoever caused
// that: so it may not wait, and the hub refuses it while hub->layer_depth is above zero.

#ifndef CORONET_PY_LAYER_H
#define CORONET_PY_LAYER_H

#include "py_conn.h"

typedef struct TransportLayerObject TransportLayerObject;

struct TransportLayerObject {
    PyObject_HEAD
    TransportLayerObject *below; // owned; NULL at the bottom, and for one not pushed
    TransportLayerObject *above; // borrowed; NULL at the top, and once popped
    struct byte_block emitted;   // what emit() was given and has not gone down yet
    bool is_used : 1;            // it was pushed, and so cannot be pushed again
    bool is_popped : 1;          // off the stack; its mark in the queue owns it
    bool has_ended : 1;          // no more will come out of unwrap()
    bool is_finished : 1;        // finish() was called: it wraps no more
    bool is_cleared : 1;         // on_clear() was called
    bool takes_views : 1;        // wrap() can do with a memoryview
};

// Bytes that are wrapped and not yet sent: those in the block, then the pieces. A piece is
// sent as it came from the layer, without being copied; only what the kernel does not take
// goes into the block.
#define WIRE_PIECES 8

struct wire {
    struct byte_block block;
    PyObject *pieces[WIRE_PIECES]; // owned bytes objects
    unsigned piece_count;
    size_t length; // of all
};

// The layers of a connection. On the heap from the first push on, for as long as anything
// needs it.
struct transport {
    TransportLayerObject *top;    // owned; NULL once all have been popped
    TransportLayerObject *bottom; // borrowed
    struct wire wire;
    PyObject *written; // borrowed; the bytes that a write() waits for, NULL = others
    PyObject *failure; // owned; what closed the connection and nobody has been
                       // told; NULL = nothing
    unsigned depth;    // calls of layers that are going on
    bool has_held;     // some layer's emitted bytes wait for their place
    bool is_flushing;  // output is on its way down
};

// What packets that are queued now are tagged with.
static inline void *
transport_top(const SkConnObject *conn)
{
    return conn->transport == NULL ? NULL : conn->transport->top;
}

// True if no more will come out at the top.
static inline bool
transport_has_ended(const SkConnObject *conn)
{
    const TransportLayerObject *top = (TransportLayerObject *)transport_top(conn);
    return top != NULL && top->has_ended;
}

// Bytes wrapped and not sent.
static inline size_t
transport_wire_length(const SkConnObject *conn)
{
    return conn->transport == NULL ? 0 : conn->transport->wire.length;
}

// Bytes written and not sent, as far as they are not wrapped yet as they were written.
static inline uint64_t
conn_unsent(const SkConnObject *conn)
{
    return write_queue_length(&conn->output) + transport_wire_length(conn);
}

// True if something waits to be sent.
static inline bool
conn_has_output(const SkConnObject *conn)
{
    return !write_queue_is_empty(&conn->output) || transport_wire_length(conn) > 0;
}

// --- py_layer_type.c ------------------------------------------------------------------

// What emit() was given, which is taken; NULL with MemoryError.
PyObject *layer_take_emitted(TransportLayerObject *layer);

// --- py_layer.c -----------------------------------------------------------------------

// Wraps [data], which it steals, by [layer] and those below it (NULL: by none) onto the
// wire: bytes, or a memoryview of some if [layer] takes views. 0, or -1 with an exception.
int transport_wrap(SkConnObject *conn, TransportLayerObject *layer, PyObject *data);

// Calls finish() of [layer], once, and wraps what it gives. 0, or -1 with an exception.
int transport_finish(SkConnObject *conn, TransportLayerObject *layer);

// Calls started().
int transport_start(SkConnObject *conn, TransportLayerObject *layer);

// Has what emit() left waiting go down before the packets of [layer], the top one of its
// stack at their time; of layers below it first. 0, or -1 with an exception.
int transport_release_held(SkConnObject *conn, TransportLayerObject *layer);

// Takes [data], which it steals, up from [layer] to the top; [is_end]: and then the stream
// ends. A new bytes object, NULL with an exception. After an error call transport_fail().
PyObject *transport_unwrap(SkConnObject *conn, TransportLayerObject *layer,
                           PyObject *data, bool is_end);

// Lets go of a layer whose place in the stream has passed: on_clear(), once.
void transport_clear_layer(SkConnObject *conn, TransportLayerObject *layer);

// The exception that is set closes the connection; it is kept for the next user. What
// layers have emitted (an alert) is still sent.
void transport_fail(SkConnObject *conn);

// True if somebody is to be told of a failure: it is raised. With callbacks it is kept all
// the same, for on_error() is to hear of it whoever else has.
bool transport_raise_failure(SkConnObject *conn);

// The failure, if nobody has been told: an exception, which is the caller's now, or NULL.
PyObject *transport_take_failure(SkConnObject *conn);

// For a connection that is closed: no layers any more, but the failure stays.
void transport_drop_layers(SkConnObject *conn);

// Frees it; for a connection that is deallocated.
void transport_free(SkConnObject *conn);

// Frees it if nothing needs it any more: then the connection is as if it never had one.
void transport_free_if_unused(SkConnObject *conn);

int transport_traverse(struct transport *transport, visitproc visit, void *arg);

// --- py_layer_output.c ----------------------------------------------------------------

// What conn_flush() is for a connection with layers: wraps and sends what waits. 0, -EAGAIN
// (an event will tell when to go on), or another -errno: the output is dropped, the error
// kept as write_error or, a layer's, as the transport's failure. Runs layer code.
int transport_flush(SkConnObject *conn);

// Sends what is wrapped already. The same results.
int transport_send_wire(SkConnObject *conn);

// Adds [data], a bytes object, to the wire. 0, or -1 with MemoryError.
int transport_add_to_wire(struct transport *transport, PyObject *data);
void transport_clear_wire(struct transport *transport);

// Queues a mark, where [layer] is finished. [layer] belongs to the mark from then on, which
// takes a reference of its own. 0 or -ENOMEM.
int transport_add_mark(SkConnObject *conn, TransportLayerObject *layer);

// Queues the marks of all layers, from the top. For a connection that closes in order.
void transport_add_all_marks(SkConnObject *conn);

// Takes the marks of layers that have not ended off the queue, those of popped ones excepted.
void transport_withdraw_marks(SkConnObject *conn);

// --- py_conn_layers.c -----------------------------------------------------------------

extern PyMethodDef conn_layer_methods[];
extern PyGetSetDef conn_layer_attributes[];

// 0, or -1 with a RuntimeError if the caller is the code of one of its layers.
int transport_refuse_reentry(SkConnObject *conn);

// Receives once more and unwraps that, parking until something comes out. New bytes, b""
// at the end of the stream, NULL with an exception. None if prepend() put bytes into the
// buffer meanwhile: those come first. For the connection's reader. Switches.
PyObject *transport_receive(SkConnObject *conn, const char *operation);

// For a connection that closes in order: takes what has come and nobody has read away from
// the kernel, which would answer it with a reset, and that can destroy what the peer has
// not read yet. With TLS 1.3 there is always something: a server's session tickets.
void transport_discard_input(SkConnObject *conn);

// Receives at most once, without waiting, and adds what comes out to the input buffer.
// 1: something was received (which need not have given anything), 0: the stream has ended,
// -EAGAIN: nothing is there, -1: with an exception.
int transport_receive_now(SkConnObject *conn);

// True if so much that the layers answered waits to be sent that nothing is received.
bool transport_owes_answers(const SkConnObject *conn);

#endif
