// py_conn_message.c: messages: datagrams, addresses, ancillary data.
//
// The socket module's recvfrom, sendto, recvmsg and sendmsg, as methods of sk_conn. Each
// tries its call first and parks when the kernel says EAGAIN.
//
// Invariants: bytes that a reading verb has buffered come before what the kernel holds,
// and bytes that wait to be sent go before a message; a buffer stays exported while its
// sender is parked; a descriptor that was received reaches the caller or is closed.
//
// Not here: splitting a message that a stream took in part. The count is returned.

#include "py_conn.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "py_address.h"
#include "py_ancillary.h"
#include "py_convert.h"
#include "py_layer.h"
#include "py_traffic.h"

#if !defined(MSG_CMSG_CLOEXEC)
#define MSG_CMSG_CLOEXEC 0
#endif
#if !defined(MSG_ERRQUEUE)
#define MSG_ERRQUEUE 0
#endif

// How long to wait before asking again where no event tells that there is room.
#define FIRST_RETRY_NS INT64_C(1000000)
#define LAST_RETRY_NS INT64_C(20000000)

// True if the caller wants an answer at once: the error queue never makes anybody wait,
// in a blocking socket neither.
static bool
never_waits(int flags)
{
    return (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) != 0;
}

// --- Receiving --------------------------------------------------------------------------

// One message, from asking for it to handing it over.
struct reception {
    const char *operation; // for reports
    Py_ssize_t size;       // how many bytes are wanted at most
    int flags;
    char *control; // owned; room for ancillary data, NULL = none
    size_t control_size;
    PyObject *data;        // owned; what was received, NULL until then
    struct msghdr message; // msg_controllen is 0 until ancillary data is there
    struct sockaddr_storage address;
};

// What has left the kernel cannot reach the caller: no descriptor leaks, and a stream,
// which would have a hole now, ends. A datagram may get lost.
static void
drop_reception(SkConnObject *conn, struct reception *reception)
{
    ancillary_close_descriptors(&reception->message);
    if (conn->is_stream && (reception->flags & (MSG_PEEK | MSG_OOB)) == 0) {
        conn->error = ENOMEM;
        conn_abort(conn);
    }
}

// A message goes whole or not at all, however long it is.
static bool
is_held(SkConnObject *conn, enum flow_direction direction)
{
    return conn->valve != NULL && valve_allowance(conn, direction, 1) == 0;
}

// Asks the kernel for a message with room for it in [place]. The count or -errno.
static ssize_t
receive_message(SkConnObject *conn, struct reception *reception, void *place)
{
    struct iovec block = {place, (size_t)reception->size};
    struct msghdr *message = &reception->message;
    memset(message, 0, sizeof(*message));
    message->msg_name = &reception->address;
    message->msg_namelen = sizeof(reception->address);
    message->msg_iov = &block;
    message->msg_iovlen = 1;
    message->msg_control = reception->control;
    message->msg_controllen =
        (__typeof__(message->msg_controllen))reception->control_size;
    ssize_t count = io_receive_message(conn->fd, message, reception->flags);
    count = conn_tell(conn, count, 0);
    if (count < 0) {
        message->msg_controllen = 0;
    }
    bool moves = (reception->flags & (MSG_PEEK | MSG_ERRQUEUE)) == 0;
    return moves ? conn_note_moved(conn, FLOW_IN, count) : count;
}

// Receives without waiting: 1, 0 if nothing is there, -1 with an exception.
static int
receive_now(SkConnObject *conn, struct reception *reception)
{
    PyObject *large = NULL;
    char *place = conn->hub->scratch;
    if (reception->size > HUB_SCRATCH_SIZE) {
        large = PyBytes_FromStringAndSize(NULL, reception->size);
        if (large == NULL) {
            return -1;
        }
        place = PyBytes_AS_STRING(large);
    }
    ssize_t count = receive_message(conn, reception, place);
    if (count < 0) {
        Py_XDECREF(large);
        if (count == -EAGAIN) {
            return 0;
        }
        conn_raise(conn, count);
        return -1;
    }
    if (large == NULL) {
        reception->data = PyBytes_FromStringAndSize(place, count);
    }
    else if (_PyBytes_Resize(&large, count) == 0) {
        reception->data = large;
    }
    if (reception->data == NULL) {
        drop_reception(conn, reception);
        return -1;
    }
    if ((reception->flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE)) == 0) {
        line_buffer_end_run(&conn->input);
    }
    return 1;
}

// What a reading verb left in the buffer comes first, as a message of its own, without
// an address. 1, 0 if there is nothing, -1 with an exception.
static int
take_buffered(SkConnObject *conn, struct reception *reception)
{
    size_t held = line_buffer_length(&conn->input);
    if (held == 0 || (reception->flags & (MSG_OOB | MSG_ERRQUEUE)) != 0) {
        return 0;
    }
    size_t length = held < (size_t)reception->size ? held : (size_t)reception->size;
    reception->data =
        PyBytes_FromStringAndSize(line_buffer_data(&conn->input), (Py_ssize_t)length);
    if (reception->data == NULL) {
        return -1;
    }
    if ((reception->flags & MSG_PEEK) == 0) {
        line_buffer_drain(&conn->input, length);
    }
    return 1;
}

// Receives, parking until a message is there. 0, or -1 with an exception.
static int
receive(SkConnObject *conn, struct reception *reception)
{
    if (conn_begin(conn, &conn->reader, "reading") < 0 ||
        conn_check_unlayered(conn, reception->operation) < 0) {
        return -1;
    }
    for (;;) {
        int status = take_buffered(conn, reception); // prepend() may have added something
        if (status != 0) {
            return status < 0 ? -1 : 0;
        }
        if (conn->may_read || never_waits(reception->flags)) {
            status = is_held(conn, FLOW_IN) ? 0 : receive_now(conn, reception);
            if (status != 0) {
                return status < 0 ? -1 : 0;
            }
            if (never_waits(reception->flags)) {
                conn_raise(conn, -EAGAIN);
                return -1;
            }
            conn->may_read = false;
        }
        // It may have been closed after it woke us and before our turn came.
        if (conn_wait_readable(conn, reception->operation) < 0 ||
            conn_check_usable(conn) < 0) {
            return -1;
        }
    }
}

// The sender's address as it came with the message. A new reference.
static PyObject *
sender_of(const struct reception *reception)
{
    return address_to_python((const struct sockaddr *)&reception->address,
                             reception->message.msg_namelen);
}

PyDoc_STRVAR(
    recvfrom_doc,
    "recvfrom($self, n, /, flags=0)\n--\n\n"
    "Receive one datagram of at most n bytes: (bytes, the sender's address).\n\n"
    "flags: as in the socket module.\n\n"
    "A datagram of length 0 is b\"\", which is not the end of anything. On a\n"
    "stream the bytes are what is there, b\"\" is the end of file, and the\n"
    "address is None. With MSG_DONTWAIT BlockingIOError is raised instead of\n"
    "waiting. May switch. Raises TimeoutError, ClosedError, BusyError if another\n"
    "task is reading, or the OSError of the failure.");

static PyObject *
SkConn_recvfrom(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                PyObject *keyword_names)
{
    static const char *const names[] = {"n", "flags", NULL};
    static const struct parameters parameters = {"recvfrom", names, 1, 2};
    PyObject *values[2];
    struct reception reception = {.operation = "recvfrom"};
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[0], "n", 0, 0, &reception.size) < 0 ||
        convert_int(values[1], "flags", 0, &reception.flags) < 0 ||
        conn_check_socket(conn) < 0 || receive(conn, &reception) < 0) {
        return NULL;
    }
    PyObject *address = sender_of(&reception);
    PyObject *result = address == NULL ? NULL : PyTuple_Pack(2, reception.data, address);
    if (result == NULL) {
        drop_reception(conn, &reception);
    }
    Py_XDECREF(address);
    Py_DECREF(reception.data);
    return result;
}

// recvmsg's four results, from what was received. A new reference, NULL with an exception.
static PyObject *
message_to_python(struct reception *reception)
{
    // The kernel repeats the flag that we set on our own account.
    int flags = reception->message.msg_flags & ~(MSG_CMSG_CLOEXEC & ~reception->flags);
    PyObject *result = NULL;
    PyObject *address = sender_of(reception);
    PyObject *ancillary =
        address == NULL ? NULL : ancillary_to_python(&reception->message);
    if (ancillary != NULL) {
        result = Py_BuildValue("(OOiO)", reception->data, ancillary, flags, address);
    }
    Py_XDECREF(ancillary);
    Py_XDECREF(address);
    return result;
}

PyDoc_STRVAR(recvmsg_doc,
             "recvmsg($self, bufsize, /, ancbufsize=0, flags=0)\n--\n\n"
             "Receive a message: (data, ancdata, msg_flags, address).\n\n"
             "flags: as in the socket module.\n\n"
             "data has at most bufsize bytes; ancdata is a list of (level, type, bytes)\n"
             "for which ancbufsize bytes are set aside, CMSG_SPACE(n) for each item.\n"
             "Descriptors received by SCM_RIGHTS are the caller's to close, and\n"
             "close-on-exec. Bytes that a reading verb has buffered come first, without\n"
             "ancillary data. May switch. Raises what recvfrom() raises.");

static PyObject *
SkConn_recvmsg(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const char *const names[] = {"bufsize", "ancbufsize", "flags", NULL};
    static const struct parameters parameters = {"recvmsg", names, 1, 3};
    PyObject *values[3];
    Py_ssize_t control_size;
    struct reception reception = {.operation = "recvmsg"};
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[0], "bufsize", 0, 0, &reception.size) < 0 ||
        convert_size(values[1], "ancbufsize", 0, 0, &control_size) < 0 ||
        convert_int(values[2], "flags", 0, &reception.flags) < 0 ||
        conn_check_socket(conn) < 0) {
        return NULL;
    }
    if (control_size > INT_MAX) {
        PyErr_SetString(PyExc_ValueError, "ancbufsize is too large");
        return NULL;
    }
    if (control_size > 0) {
        // Zeroed: the kernel does not fill the gaps between the items.
        reception.control = PyMem_Calloc(1, (size_t)control_size);
        reception.control_size = (size_t)control_size;
        if (reception.control == NULL) {
            return PyErr_NoMemory();
        }
    }
    PyObject *result = NULL;
    if (receive(conn, &reception) == 0) {
        result = message_to_python(&reception);
        if (result == NULL) {
            drop_reception(conn, &reception);
        }
    }
    Py_XDECREF(reception.data);
    PyMem_Free(reception.control);
    return result;
}

// --- Sending ----------------------------------------------------------------------------

// One message to send.
struct sending {
    const char *operation; // for reports
    int flags;
    size_t length; // of all blocks together
    struct msghdr message;
    struct sockaddr_storage address;
};

int
conn_send_pending(SkConnObject *conn, const char *operation)
{
    while (conn->write_error == 0 && conn_has_output(conn)) {
        // Room is made by an event, which also sends what waits.
        int result = conn_flush(conn);
        if ((result == -EAGAIN && conn_wait_writable(conn, operation) < 0) ||
            conn_check_usable(conn) < 0) {
            return -1;
        }
    }
    return conn->write_error < 0 || conn->is_cut_off ? conn_raise_write_error(conn) : 0;
}

static ssize_t
send_now(SkConnObject *conn, const struct sending *sending)
{
    if (sending->length < GIL_RELEASE_SIZE) {
        return conn_note_moved(
            conn, FLOW_OUT, io_send_message(conn->fd, &sending->message, sending->flags));
    }
    ssize_t count;
    Py_BEGIN_ALLOW_THREADS
    count = io_send_message(conn->fd, &sending->message, sending->flags);
    Py_END_ALLOW_THREADS
    return conn_note_moved(conn, FLOW_OUT, count);
}

// True if [error] means that the receiver's queue, not our own, is full: a Unix socket that
// sends to an address without being connected to it counts as writable all the while. On
// Linux the failed attempt itself makes an event, so trying again at each event would spin.
static bool
is_room_untold(SkConnObject *conn, const struct sending *sending, ssize_t error)
{
    if (conn->is_stream || !conn_flows(conn, FLOW_OUT)) {
        return false;
    }
#if !defined(__linux__)
    // macOS and the BSDs say ENOBUFS, to a connected sender as well.
    if (error == -ENOBUFS) {
        return io_socket_family(conn->fd) == AF_UNIX;
    }
#endif
    return error == -EAGAIN && sending->message.msg_name != NULL &&
           sending->address.ss_family == AF_UNIX;
}

// Parks for a while that grows with what has been [*waited_ns] already, within the
// connection's timeout. 0, or -1 with an exception.
static int
wait_for_untold_room(SkConnObject *conn, const char *operation, int64_t *waited_ns)
{
    int64_t delay_ns = *waited_ns < FIRST_RETRY_NS  ? FIRST_RETRY_NS
                       : *waited_ns > LAST_RETRY_NS ? LAST_RETRY_NS
                                                    : *waited_ns;
    int64_t limit_ns = conn_wait_limit_ns(conn, FLOW_OUT);
    if (limit_ns >= 0) {
        int64_t left_ns = limit_ns - *waited_ns;
        if (left_ns <= 0) {
            conn_raise(conn, -ETIMEDOUT);
            return -1;
        }
        delay_ns = delay_ns < left_ns ? delay_ns : left_ns;
    }
    *waited_ns += delay_ns;
    struct reactor *reactor = &conn->hub->reactor;
    uint64_t now_ns = reactor_now_ns(reactor);
    uint64_t end_ns = now_ns + (uint64_t)delay_ns;
    do {
        // Events wake us as well, and say nothing.
        if (hub_park(conn->hub, &conn->writer, NULL, WAITS_FOR_TIME,
                     (int64_t)(end_ns - now_ns), operation, (PyObject *)conn) < 0 ||
            conn_check_usable(conn) < 0) {
            return -1;
        }
        now_ns = reactor_now_ns(reactor);
    } while (now_ns < end_ns);
    return 0;
}

// Sends, parking until the kernel takes it. The number of bytes, NULL with an exception.
static PyObject *
send_message(SkConnObject *conn, const struct sending *sending)
{
    if (conn_begin(conn, &conn->writer, "writing") < 0 ||
        conn_check_unlayered(conn, sending->operation) < 0 ||
        conn_send_pending(conn, sending->operation) < 0) {
        return NULL;
    }
    int64_t waited_ns = 0;
    for (;;) {
        if (conn->may_write || never_waits(sending->flags)) {
            ssize_t count = is_held(conn, FLOW_OUT) ? -EAGAIN : send_now(conn, sending);
            if (count >= 0) {
                return PyLong_FromSsize_t(count);
            }
            if (never_waits(sending->flags)) {
                return conn_raise(conn, count);
            }
            if (is_room_untold(conn, sending, count)) {
                if (wait_for_untold_room(conn, sending->operation, &waited_ns) < 0) {
                    return NULL;
                }
                continue;
            }
            if (count != -EAGAIN) {
                return conn_raise(conn, count);
            }
            conn->may_write = false;
        }
        if (conn_wait_writable(conn, sending->operation) < 0 ||
            conn_check_usable(conn) < 0) {
            return NULL;
        }
    }
}

// Where the message goes. May switch, to look a name up. 0, or -1 with an exception.
static int
set_destination(SkConnObject *conn, struct sending *sending, PyObject *address)
{
    int family = io_socket_family(conn->fd);
    if (family < 0) {
        conn_raise(conn, family);
        return -1;
    }
    socklen_t length;
    if (address_from_python(conn->hub->state, address, family,
                            conn->is_stream ? SOCK_STREAM : SOCK_DGRAM, &sending->address,
                            &length) < 0) {
        return -1;
    }
    sending->message.msg_name = &sending->address;
    sending->message.msg_namelen = length;
    return 0;
}

PyDoc_STRVAR(
    sendto_doc,
    "sendto($self, data, /, *flags_and_address)\n--\n\n"
    "Send data (bytes-like) as one datagram; return the number of bytes sent.\n\n"
    "The other arguments are the address, or flags and the address, as in the\n"
    "socket module. What waits in a buffered connection is sent before. May\n"
    "switch. Raises TimeoutError, ClosedError, BusyError if another task is\n"
    "writing, or the OSError of the failure.");

static PyObject *
SkConn_sendto(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 2 || count > 3) {
        return PyErr_Format(PyExc_TypeError,
                            "sendto() takes 2 or 3 arguments (%zd given)", count);
    }
    struct sending sending = {.operation = "sendto"};
    if ((count == 3 && convert_int(arguments[1], "flags", 0, &sending.flags) < 0) ||
        conn_check_socket(conn) < 0 ||
        set_destination(conn, &sending, arguments[count - 1]) < 0) {
        return NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(arguments[0], &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    struct iovec block = {view.buf, (size_t)view.len};
    sending.message.msg_iov = &block;
    sending.message.msg_iovlen = 1;
    sending.length = block.iov_len;
    PyObject *result = send_message(conn, &sending);
    PyBuffer_Release(&view);
    return result;
}

// The data of a sendmsg(): its blocks, held while it lasts.
struct blocks {
    Py_ssize_t count;      // how many views are held
    Py_buffer *views;      // owned, each exported by its object
    struct iovec *vectors; // owned; the views as the kernel wants them
};

static void
release_blocks(struct blocks *blocks)
{
    while (blocks->count > 0) {
        PyBuffer_Release(&blocks->views[--blocks->count]);
    }
    PyMem_Free(blocks->views);
    PyMem_Free(blocks->vectors);
}

// Holds the buffers of an iterable; release_blocks() is due in any case. 0, or -1 with an
// exception.
static int
hold_blocks(PyObject *buffers, struct blocks *blocks, size_t *length)
{
    // A tuple of our own, for asking for a buffer may run code that changes the list.
    PyObject *objects = PySequence_Tuple(buffers);
    if (objects == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(objects);
    blocks->views = PyMem_Calloc((size_t)count, sizeof(*blocks->views));
    blocks->vectors = PyMem_Calloc((size_t)count, sizeof(*blocks->vectors));
    int error = 0;
    if (blocks->views == NULL || blocks->vectors == NULL) {
        PyErr_NoMemory();
        error = -1;
    }
    *length = 0;
    while (error == 0 && blocks->count < count) {
        Py_buffer *view = &blocks->views[blocks->count];
        error = PyObject_GetBuffer(PyTuple_GET_ITEM(objects, blocks->count), view,
                                   PyBUF_SIMPLE);
        if (error == 0) {
            blocks->vectors[blocks->count++] =
                (struct iovec){view->buf, (size_t)view->len};
            *length += (size_t)view->len;
        }
    }
    Py_DECREF(objects);
    return error;
}

PyDoc_STRVAR(
    sendmsg_doc,
    "sendmsg($self, buffers, /, ancdata=(), flags=0, address=None)\n--\n\n"
    "Send the bytes-like objects in buffers as one message; return the number of\n"
    "bytes.\n\n"
    "flags, address: as in the socket module; no address on what is connected.\n\n"
    "ancdata has (level, type, bytes-like) tuples, as for SCM_RIGHTS. A stream\n"
    "may take less than everything, and the ancillary data with it. What waits in\n"
    "a buffered connection is sent before. May switch. Raises what sendto()\n"
    "raises.");

static PyObject *
SkConn_sendmsg(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const char *const names[] = {"buffers", "ancdata", "flags", "address", NULL};
    static const struct parameters parameters = {"sendmsg", names, 1, 4};
    PyObject *values[4];
    struct sending sending = {.operation = "sendmsg"};
    if (parse_arguments(&parameters, arguments, count, keyword_names, values) < 0 ||
        convert_int(values[2], "flags", 0, &sending.flags) < 0 ||
        conn_check_socket(conn) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    struct blocks blocks = {.count = 0};
    char *control = NULL;
    size_t control_size = 0;
    if ((values[3] != NULL && values[3] != Py_None &&
         set_destination(conn, &sending, values[3]) < 0) ||
        (values[1] != NULL &&
         ancillary_from_python(values[1], &control, &control_size) < 0) ||
        hold_blocks(values[0], &blocks, &sending.length) < 0) {
        goto done;
    }
    struct msghdr *message = &sending.message;
    message->msg_iov = blocks.vectors;
    message->msg_iovlen = (__typeof__(message->msg_iovlen))blocks.count;
    message->msg_control = control;
    message->msg_controllen = (__typeof__(message->msg_controllen))control_size;
    result = send_message(conn, &sending);
done:
    release_blocks(&blocks);
    PyMem_Free(control);
    return result;
}

PyMethodDef conn_message_methods[] = {
    {"recvfrom", (PyCFunction)(void (*)(void))SkConn_recvfrom,
     METH_FASTCALL | METH_KEYWORDS, recvfrom_doc},
    {"sendto", (PyCFunction)(void (*)(void))SkConn_sendto, METH_FASTCALL, sendto_doc},
    {"recvmsg", (PyCFunction)(void (*)(void))SkConn_recvmsg,
     METH_FASTCALL | METH_KEYWORDS, recvmsg_doc},
    {"sendmsg", (PyCFunction)(void (*)(void))SkConn_sendmsg,
     METH_FASTCALL | METH_KEYWORDS, sendmsg_doc},
    {NULL, NULL, 0, NULL},
};
