// py_conn_take.c: reading without waiting: take, take_line and take_frame.
//
// This is how callbacks read. What has just come for one lies in the hub's fresh area and is
// handed out from there; only what the callback leaves goes into the connection's buffer. At
// most one connection has fresh bytes, and only while its callback runs. Invariant: while it
// has some its buffer is empty, so the order of bytes is never in question.

#include "py_conn.h"

#include <errno.h>
#include <string.h>

#include "py_callbacks.h"
#include "py_convert.h"
#include "py_layer.h"

// How much is received at once for a line or a frame.
#define RECEIVE_SIZE ((size_t)64 * 1024)

int
conn_keep_fresh(SkConnObject *conn)
{
    HubObject *hub = conn->hub;
    if (hub->fresh_conn != conn) {
        return 0;
    }
    hub->fresh_conn = NULL;
    return conn_keep_input(conn, hub->fresh_data, hub->fresh_length);
}

// Some of the [held] bytes in the buffer were taken: there may be room in it again.
static void
note_taken(SkConnObject *conn, size_t held)
{
    if (conn->callbacks != NULL && conn->callbacks->is_paused) {
        callbacks_note_taken(conn->callbacks, held);
    }
}

static void
drain_fresh(SkConnObject *conn, size_t length)
{
    HubObject *hub = conn->hub;
    if (length > 0) {
        line_buffer_end_run(&conn->input);
    }
    hub->fresh_data += length;
    hub->fresh_length -= length;
    if (hub->fresh_length == 0) {
        hub->fresh_conn = NULL;
    }
}

void
conn_drain_input(SkConnObject *conn, size_t length)
{
    if (conn->hub->fresh_conn == conn) {
        drain_fresh(conn, length);
        return;
    }
    size_t held = line_buffer_length(&conn->input);
    line_buffer_drain(&conn->input, length);
    note_taken(conn, held);
}

// The first [length] of the fresh bytes, without the last [trimmed] ones.
static PyObject *
take_fresh(SkConnObject *conn, size_t length, size_t trimmed)
{
    PyObject *bytes =
        PyBytes_FromStringAndSize(conn->hub->fresh_data, (Py_ssize_t)(length - trimmed));
    if (bytes != NULL) {
        drain_fresh(conn, length);
    }
    return bytes;
}

// Whether taking may receive, too. Callbacks that are given what has come may not: who takes
// until nothing is left would go on for as long as the peer sends, and hold all it answers.
static bool
may_receive(SkConnObject *conn)
{
    struct callbacks *callbacks = conn->callbacks;
    return callbacks == NULL ||
           (callbacks_receives_itself(callbacks) && !callbacks->has_ended);
}

// One attempt to receive, for somebody who does not wait: as conn_receive_now(), but 0 for
// -EAGAIN, too, and -1 with an exception.
static ssize_t
try_to_receive(SkConnObject *conn, char *data, size_t length)
{
    if (!may_receive(conn) || (conn->callbacks != NULL && !conn->may_read)) {
        return 0; // an event will tell
    }
    if (length == 0) {
        return 0;
    }
    ssize_t count = conn_receive_now(conn, data, length);
    if (count == 0 && conn->callbacks != NULL) {
        callbacks_notice(conn); // which will find the end of file, too
    }
    if (count < 0 && count != -EAGAIN) {
        conn_raise(conn, count);
        return -1;
    }
    return count < 0 ? 0 : count;
}

// The same through layers, into the input buffer: true if something was received, though
// it need not have given anything. May set an exception.
static bool
try_to_receive_layered(SkConnObject *conn)
{
    if (!may_receive(conn)) {
        return false;
    }
    if (conn->callbacks == NULL) {
        conn->may_read = true; // it need not be registered: no event may ever tell
    }
    int status = transport_receive_now(conn);
    if (status == 0 && conn->callbacks != NULL) {
        callbacks_notice(conn); // which will find the end of file, too
    }
    return status == 1;
}

// True, with an exception, if what is held is not whole and never can be: callbacks hold no
// more than their high mark.
static bool
refuse_if_full(SkConnObject *conn, const char *what)
{
    uint64_t most = conn_options_of(conn)->high_mark[FLOW_IN];
    if (may_receive(conn) || conn->callbacks->has_ended ||
        line_buffer_length(&conn->input) < most) {
        return false;
    }
    PyErr_Format(conn->hub->state->LineTooLongError,
                 "no end of %s within the %llu bytes that may be held (read_high); they "
                 "stay readable",
                 what, (unsigned long long)most);
    return true;
}

// One attempt to add to what is held, for a line or a frame that is not whole: true if
// something was received. May set an exception.
static bool
try_to_add(SkConnObject *conn, const char *what)
{
    if (refuse_if_full(conn, what)) {
        return false;
    }
    if (conn->transport != NULL) {
        return try_to_receive_layered(conn);
    }
    char *scratch = conn->hub->scratch;
    ssize_t count = try_to_receive(conn, scratch, RECEIVE_SIZE);
    return count > 0 && conn_keep_input(conn, scratch, (size_t)count) == 0;
}

int
conn_check_may_take(SkConnObject *conn)
{
    return conn_check_usable(conn) < 0 || transport_refuse_reentry(conn) < 0 ||
                   (conn->reader != NULL &&
                    conn_check_free(conn, conn->reader, "reading") < 0)
               ? -1
               : 0;
}

PyDoc_STRVAR(
    take_doc,
    "take($self, n, /)\n--\n\n"
    "Return what is there, at most n bytes; b\"\" if nothing is there now, or at the end.\n\n"
    "What was received before comes first; if that is nothing, one attempt is made to\n"
    "receive (through layers, until they give something), but not where callbacks are given\n"
    "what comes: they are called again. Never waits, never switches; for callbacks, and of use\n"
    "elsewhere too. On a datagram socket it takes one packet. Raises ClosedError, BusyError if\n"
    "a task is reading, or the OSError of the failure.\n\n"
    "Source: libevent's evbuffer_remove.");

static PyObject *
SkConn_take(SkConnObject *conn, PyObject *number)
{
    Py_ssize_t size;
    if (convert_size(number, "n", 0, 0, &size) < 0 || conn_check_may_take(conn) < 0) {
        return NULL;
    }
    HubObject *hub = conn->hub;
    if (hub->fresh_conn == conn) {
        size_t length = hub->fresh_length;
        return take_fresh(conn, (size_t)size < length ? (size_t)size : length, 0);
    }
    if (conn->transport != NULL && line_buffer_length(&conn->input) == 0) {
        // What layers give nothing for is not the last: no event may tell of more.
        while (try_to_receive_layered(conn) && line_buffer_length(&conn->input) == 0) {
        }
        if (PyErr_Occurred() || line_buffer_length(&conn->input) == 0) {
            return PyErr_Occurred() ? NULL : PyBytes_FromStringAndSize(NULL, 0);
        }
    }
    size_t held = line_buffer_length(&conn->input);
    if (held > 0) {
        PyObject *bytes =
            conn_take_input(conn, (size_t)size < held ? (size_t)size : held);
        note_taken(conn, held);
        return bytes;
    }
    size_t room = (size_t)size < HUB_SCRATCH_SIZE ? (size_t)size : HUB_SCRATCH_SIZE;
    ssize_t count = try_to_receive(conn, hub->scratch, room);
    if (count < 0) {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(hub->scratch, count);
    if (bytes == NULL) {
        conn_keep_input(conn, hub->scratch, (size_t)count);
    }
    else if (count > 0) {
        line_buffer_end_run(&conn->input);
    }
    return bytes;
}

// A line of the fresh bytes, if they are all that is there.
static PyObject *
take_fresh_line(SkConnObject *conn, const struct line_options *options)
{
    HubObject *hub = conn->hub;
    size_t size = hub->fresh_length < options->limit ? hub->fresh_length : options->limit;
    size_t ending_length;
    size_t length = line_find(hub->fresh_data, size, options->ending, &ending_length);
    if (length > 0) {
        return take_fresh(conn, length, options->keeps_end ? 0 : ending_length);
    }
    if (conn_keep_fresh(conn) == 0) {
        line_buffer_note_searched(&conn->input, options->ending, size);
    }
    return NULL;
}

// A line of those bytes that are held.
static PyObject *
take_held_line(SkConnObject *conn, const struct line_options *options)
{
    size_t held = line_buffer_length(&conn->input);
    PyObject *line = conn_take_buffered_line(conn, options);
    note_taken(conn, held);
    return line;
}

// A line, or NULL without an exception if no whole one is there.
static PyObject *
take_line(SkConnObject *conn, const struct line_options *options)
{
    HubObject *hub = conn->hub;
    if (hub->fresh_conn == conn && options->ending != LINE_ENDING_ANY) {
        PyObject *line = take_fresh_line(conn, options);
        if (line != NULL || PyErr_Occurred()) {
            return line;
        }
    }
    else if (conn_keep_fresh(conn) < 0) {
        return NULL;
    }
    PyObject *line;
    do {
        line = take_held_line(conn, options);
    } while (line == NULL && !PyErr_Occurred() && try_to_add(conn, "line"));
    return line;
}

PyDoc_STRVAR(
    take_line_doc,
    "take_line($self, /, limit=65536, *, eol='lf', keepends=True)\n--\n\n"
    "Return the next line with its end, None if no whole line is there yet.\n\n"
    "limit: the most bytes a line may have, end included.\n"
    "eol: what ends a line: 'lf', 'crlf', 'crlf_strict', 'any' or 'nul', as in readln().\n"
    "keepends: False leaves the end out.\n\n"
    "What follows the last line stays for take(), at the end of file, too. Never waits,\n"
    "never switches. Raises LineTooLongError (the bytes stay readable), also if callbacks may\n"
    "hold no more (read_high) and no line is there, and what take() raises.\n\n"
    "Source: libevent's evbuffer_readln.");

static PyObject *
SkConn_take_line(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                 PyObject *keyword_names)
{
    static const struct parameters parameters = {"take_line", conn_line_option_names, 0,
                                                 1};
    struct line_options options;
    if (conn_parse_line_options(&parameters, arguments, count, keyword_names, &options) <
            0 ||
        conn_check_may_take(conn) < 0) {
        return NULL;
    }
    PyObject *line = take_line(conn, &options);
    return line != NULL || PyErr_Occurred() ? line : Py_NewRef(Py_None);
}

// A frame's payload, or NULL without an exception if no whole one is there.
static PyObject *
take_frame(SkConnObject *conn, const struct frame_options *options)
{
    if (conn_keep_fresh(conn) < 0) {
        return NULL;
    }
    PyObject *payload;
    size_t held;
    do {
        size_t missing;
        held = line_buffer_length(&conn->input);
        payload = conn_take_buffered_frame(conn, options, &missing);
    } while (payload == NULL && !PyErr_Occurred() && try_to_add(conn, "frame"));
    note_taken(conn, held);
    return payload;
}

PyDoc_STRVAR(
    take_frame_doc,
    "take_frame($self, /, format='>I', *, limit=1048576)\n--\n\n"
    "Return the payload of the next length-prefixed frame, None if it is not whole yet.\n\n"
    "format: the length before it, as in read_frame().\n"
    "limit: the most bytes a payload may have.\n\n"
    "What is left at the end of file stays for take(). Never waits, never switches. Raises\n"
    "ValueError for a negative length, LineTooLongError for one over the limit, and if\n"
    "callbacks may not hold that much (read_high); the frame stays readable, its length too.\n"
    "And what take() raises.");

static PyObject *
SkConn_take_frame(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names)
{
    static const struct parameters parameters = {"take_frame", conn_frame_option_names, 0,
                                                 1};
    struct frame_options options;
    if (conn_parse_frame_options(&parameters, arguments, count, keyword_names, &options) <
            0 ||
        conn_check_may_take(conn) < 0) {
        return NULL;
    }
    PyObject *payload = take_frame(conn, &options);
    return payload != NULL || PyErr_Occurred() ? payload : Py_NewRef(Py_None);
}

PyMethodDef conn_take_methods[] = {
    {"take", (PyCFunction)SkConn_take, METH_O, take_doc},
    {"take_line", (PyCFunction)(void (*)(void))SkConn_take_line,
     METH_FASTCALL | METH_KEYWORDS, take_line_doc},
    {"take_frame", (PyCFunction)(void (*)(void))SkConn_take_frame,
     METH_FASTCALL | METH_KEYWORDS, take_frame_doc},
    {NULL, NULL, 0, NULL},
};
