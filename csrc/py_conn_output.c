// py_conn_output.c: the output queue as users see it: enqueue, pending, flush_all.
//
// What a packet refers to is given back by the release function it was queued with. Python
// functions that a user gave (dealloc) never run there, in the middle of a flush and in
// whatever coroutine that happens to be, but in the hub greenlet, soon after. In a forked child
// they do not run at all: what was queued is the parent's.
//
// Not here: sending (py_conn_send.c), files (py_conn_file.c), how much may wait
// (py_conn_options.c).

#include "py_conn.h"

#include "py_convert.h"
#include "py_layer.h"

// Bytes up to this length are copied: a reference to them costs as much.
#define COPY_LIMIT 1024

// --- Giving back ------------------------------------------------------------------------

// A function to call when a packet has gone.
struct release_call {
    struct hub_call call;
    HubObject *hub;     // borrowed: whoever holds this record keeps it alive
    PyObject *function; // owned
    PyObject *data;     // owned
};

// A buffer that is held until it was sent. It lies on the heap for its address.
struct held_buffer {
    Py_buffer view;
};

static void
release_object(void *owner, uint64_t unsent)
{
    (void)unsent;
    Py_DECREF((PyObject *)owner);
}

static void
release_buffer(void *owner, uint64_t unsent)
{
    struct held_buffer *held = owner;
    (void)unsent;
    PyObject *exception = take_exception();
    PyBuffer_Release(&held->view);
    PyMem_Free(held);
    restore_exception(exception);
}

static void
free_release(struct release_call *release)
{
    PyObject *function = release->function;
    PyObject *data = release->data;
    PyMem_Free(release);
    Py_DECREF(function);
    Py_DECREF(data);
}

static void
run_release(struct hub_call *call)
{
    struct release_call *release = CONTAINER_OF(call, struct release_call, call);
    PyObject *exception = take_exception();
    PyObject *result = PyObject_CallOneArg(release->function, release->data);
    if (result == NULL) {
        hub_take_exception(release->hub, release->function);
    }
    Py_XDECREF(result);
    free_release(release);
    restore_exception(exception);
}

static void
drop_release(struct hub_call *call, bool is_forked)
{
    if (is_forked) {
        free_release(CONTAINER_OF(call, struct release_call, call));
    }
    else {
        run_release(call); // it is promised
    }
}

static void
release_by_call(void *owner, uint64_t unsent)
{
    struct release_call *release = owner;
    (void)unsent;
    if (release->hub->is_closed) {
        run_release(&release->call);
    }
    else {
        hub_queue_call(release->hub, &release->call);
    }
}

PyObject *
conn_packet_bytes(const struct write_packet *packet)
{
    return packet->release == release_object ? packet->owner : NULL;
}

int
conn_visit_output(SkConnObject *conn, visitproc visit, void *arg)
{
    for (struct write_packet *packet = write_queue_first(&conn->output); packet != NULL;
         packet = packet->next) {
        if (packet->release == release_object) {
            Py_VISIT((PyObject *)packet->owner);
        }
        else if (packet->release == release_buffer) {
            Py_VISIT(((struct held_buffer *)packet->owner)->view.obj);
        }
        else if (packet->release == release_by_call) {
            Py_VISIT(((struct release_call *)packet->owner)->function);
            Py_VISIT(((struct release_call *)packet->owner)->data);
        }
    }
    return 0;
}

// --- Queueing ---------------------------------------------------------------------------

static int
add_bytes(struct write_queue *batch, PyObject *bytes)
{
    size_t length = (size_t)PyBytes_GET_SIZE(bytes);
    const char *data = PyBytes_AS_STRING(bytes);
    if (length <= COPY_LIMIT) {
        return write_queue_copy(batch, data, length);
    }
    int error = write_queue_refer(batch, data, length, release_object, bytes);
    if (error == 0) {
        Py_INCREF(bytes);
    }
    return error;
}

// A copy of what [data] holds, or with [is_moved] the buffer itself. 0, -ENOMEM, or -1 with
// an exception.
static int
add_buffer(struct write_queue *batch, PyObject *data, bool is_moved)
{
    struct held_buffer *held = PyMem_Malloc(sizeof(*held));
    if (held == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (PyObject_GetBuffer(data, &held->view, PyBUF_SIMPLE) < 0) {
        PyMem_Free(held);
        return -1;
    }
    size_t length = (size_t)held->view.len;
    int error =
        is_moved ? write_queue_refer(batch, held->view.buf, length, release_buffer, held)
                 : write_queue_copy(batch, held->view.buf, length);
    if (error < 0 || !is_moved) {
        release_buffer(held, 0);
    }
    if (error < 0) {
        PyErr_NoMemory();
    }
    return error;
}

static int
add_piece(struct write_queue *batch, PyObject *data, bool is_moved)
{
    if (!PyBytes_CheckExact(data)) {
        return add_buffer(batch, data, is_moved);
    }
    if (add_bytes(batch, data) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

// All of [data], one buffer or a tuple or list of them. 0, or -1 with an exception.
static int
add_pieces(struct write_queue *batch, PyObject *data, bool is_moved)
{
    if (!PyTuple_Check(data) && !PyList_Check(data)) {
        return add_piece(batch, data, is_moved);
    }
    // A list may change while buffers are taken: that may run anything.
    PyObject *pieces = PySequence_Tuple(data);
    if (pieces == NULL) {
        return -1;
    }
    int error = 0;
    for (Py_ssize_t i = 0; error == 0 && i < PyTuple_GET_SIZE(pieces); i++) {
        error = add_piece(batch, PyTuple_GET_ITEM(pieces, i), is_moved);
    }
    Py_DECREF(pieces);
    return error;
}

// A packet without bytes, whose going calls [function]. 0, or -1 with an exception.
static int
add_call(struct write_queue *batch, HubObject *hub, PyObject *function, PyObject *data)
{
    struct release_call *call = PyMem_Malloc(sizeof(*call));
    if (call == NULL || write_queue_refer(batch, "", 0, release_by_call, call) < 0) {
        PyMem_Free(call);
        PyErr_NoMemory();
        return -1;
    }
    *call = (struct release_call){
        .call = {.priority = PRIORITY_NORMAL, .run = run_release, .drop = drop_release},
        .hub = hub,
        .function = Py_NewRef(function),
        .data = Py_NewRef(data),
    };
    return 0;
}

int
conn_check_may_queue(SkConnObject *conn)
{
    if (conn_check_usable(conn) < 0) {
        return -1;
    }
    return conn->write_error < 0 || conn->is_cut_off ? conn_raise_write_error(conn) : 0;
}

void
conn_queue(SkConnObject *conn, struct write_queue *batch, bool is_urgent, bool is_joined)
{
    const struct write_placing placing = {transport_top(conn), is_urgent, is_joined};
    write_queue_join(&conn->output, batch, &placing);
    if (!write_queue_is_empty(&conn->output)) {
        conn_mark_dirty(conn);
    }
}

PyDoc_STRVAR(
    enqueue_doc,
    "enqueue($self, data, /, *, urgent=False, can_interrupt=True, move=False, dealloc=None)\n--\n\n"
    "Queue data to be sent soon; never switches. Returns the number of bytes.\n\n"
    "data: bytes-like, or a tuple or list of such: one message, which nothing is put into.\n"
    "urgent: overtake messages that have not begun to leave. can_interrupt=False: nothing\n"
    "urgent goes between this message and the one before it. Long bytes objects are kept\n"
    "until they are sent, other buffers copied; with move=True those are kept too, and cannot\n"
    "be resized meanwhile. dealloc(data) is called in the hub, once, when all has left or was\n"
    "dropped; it cannot wait, what it raises is reported. On a datagram socket each buffer\n"
    "is a packet. Raises ClosedError, or the OSError of output that could not be sent before.\n\n"
    "Source: libsock's sock_write2; libevent's evbuffer_add_iovec, evbuffer_add_reference.");

static PyObject *
SkConn_enqueue(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const char *const names[] = {"data", "urgent",  "can_interrupt",
                                        "move", "dealloc", NULL};
    static const struct parameters parameters = {"enqueue", names, 1, 1};
    PyObject *values[5] = {NULL};
    struct write_queue batch;
    int is_urgent = 0, can_interrupt = 1, is_moved = 0;
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_flag(values[1], &is_urgent) < 0 ||
        convert_flag(values[2], &can_interrupt) < 0 ||
        convert_flag(values[3], &is_moved) < 0) {
        return NULL;
    }
    PyObject *dealloc = values[4] == Py_None ? NULL : values[4];
    if (dealloc != NULL && !PyCallable_Check(dealloc)) {
        return PyErr_Format(PyExc_TypeError, "dealloc must be callable, not %s",
                            Py_TYPE(dealloc)->tp_name);
    }
    write_queue_init(&batch);
    // Taking buffers may run anything, closing the connection included.
    if (conn_check_may_queue(conn) < 0 || add_pieces(&batch, values[0], is_moved) < 0 ||
        conn_check_may_queue(conn) < 0 ||
        (dealloc != NULL && add_call(&batch, conn->hub, dealloc, values[0]) < 0)) {
        write_queue_clear(&batch);
        return NULL;
    }
    uint64_t length = write_queue_length(&batch);
    conn_queue(conn, &batch, is_urgent, !can_interrupt);
    return PyLong_FromUnsignedLongLong(length);
}

// --- Methods ----------------------------------------------------------------------------

static PyObject *
get_pending(SkConnObject *conn, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(conn_pending(conn));
}

PyGetSetDef conn_output_attributes[] = {
    {"pending", (getter)get_pending, NULL,
     PyDoc_STR("Bytes that were written or queued, files included, and not yet sent."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef conn_output_methods[] = {
    {"enqueue", (PyCFunction)(void (*)(void))SkConn_enqueue,
     METH_FASTCALL | METH_KEYWORDS, enqueue_doc},
    {NULL, NULL, 0, NULL},
};

PyObject *
conn_flush_all(PyObject *module, PyObject *unused)
{
    HubObject *hub = hub_get(module_state_of(module));
    uint64_t pending = 0;
    (void)unused;
    if (hub == NULL) {
        return NULL;
    }
    hub_flush_output(hub);
    // Runs nothing, so the list stays as it is.
    for (struct list_node *node = hub->connections.next; node != &hub->connections;
         node = node->next) {
        pending += conn_pending(CONTAINER_OF(node, SkConnObject, hub_link));
    }
    return PyLong_FromUnsignedLongLong(pending);
}
