// py_conn_lines.c: reading lines, and records up to a separator.
//
// A whole line that is received at once is taken from the scratch area and never copied
// into the connection's buffer; every other one is found there by line_buffer.h. Invariant:
// a time-out, a limit and a missing end leave the bytes readable.

#include "py_conn.h"

#include <string.h>

#include "py_convert.h"

#define DEFAULT_LINE_LIMIT 65536

// --- Lines ------------------------------------------------------------------------------

static PyObject *
raise_too_long(SkConnObject *conn, const char *what, size_t limit)
{
    PyErr_Format(conn->hub->state->LineTooLongError,
                 "no end of %s within %zu bytes; they stay readable", what, limit);
    return NULL;
}

// A line out of the buffer. NULL without an exception: there is no whole one.
static PyObject *
take_buffered_line(SkConnObject *conn, size_t limit, bool keeps_end)
{
    size_t length;
    switch (line_buffer_find_line(&conn->input, limit, &length)) {
    case LINE_FOUND:
        return conn_take_input(conn, length, keeps_end ? 0 : 1);
    case LINE_TOO_LONG:
        return raise_too_long(conn, "line", limit);
    case LINE_INCOMPLETE:
        break;
    }
    return NULL;
}

// With nothing buffered: receives, and takes the line from the scratch area if a whole
// one came, which saves copying it into the buffer. NULL without an exception: not yet a
// whole line, or with [*is_end] the end of file.
static PyObject *
receive_line(SkConnObject *conn, size_t limit, bool keeps_end, const char *operation,
             bool *is_end)
{
    char *scratch = conn->hub->scratch;
    ssize_t count = conn_receive(conn, scratch, READ_CHUNK_SIZE, operation);
    if (count <= 0) {
        *is_end = count == 0;
        return NULL;
    }
    size_t received = (size_t)count;
    char *feed = memchr(scratch, '\n', received);
    size_t length = feed == NULL ? 0 : (size_t)(feed - scratch) + 1;
    if (length == 0 || length > limit) {
        // The buffer's own search says what to make of it.
        conn_keep_input(conn, scratch, received);
        return NULL;
    }
    PyObject *line =
        PyBytes_FromStringAndSize(scratch, (Py_ssize_t)(keeps_end ? length : length - 1));
    size_t taken = line == NULL ? 0 : length;
    if (conn_keep_input(conn, scratch + taken, received - taken) < 0) {
        Py_CLEAR(line);
    }
    return line;
}

static PyObject *
read_line(SkConnObject *conn, size_t limit, bool keeps_end, const char *operation)
{
    if (conn_begin(conn, conn->reader, "reading") < 0) {
        return NULL;
    }
    for (bool is_end = false;;) {
        PyObject *line = take_buffered_line(conn, limit, keeps_end);
        if (line != NULL || PyErr_Occurred()) {
            return line;
        }
        size_t held = line_buffer_length(&conn->input);
        if (held == 0 && conn->transport == NULL) {
            line = receive_line(conn, limit, keeps_end, operation, &is_end);
            if (line != NULL || PyErr_Occurred()) {
                return line;
            }
        }
        else {
            int filled = conn_fill_input(conn, 0, operation);
            if (filled < 0) {
                return NULL;
            }
            is_end = filled == 0;
        }
        if (is_end) {
            if (held > 0) {
                return conn_take_input(conn, held, 0);
            }
            return keeps_end ? PyBytes_FromStringAndSize(NULL, 0) : Py_NewRef(Py_None);
        }
    }
}

PyDoc_STRVAR(
    readln_doc,
    "readln($self, /, limit=65536, *, keepends=True)\n--\n\n"
    "Return the next line with its line feed; at the end of file what is left, then b\"\".\n\n"
    "limit: the most bytes a line may have, line feed included.\n"
    "keepends: False leaves the line feed out and gives None at the end of file.\n\n"
    "May switch. Raises LineTooLongError (the bytes stay readable) and what readsome()\n"
    "raises; after a time-out the part received stays readable. Answers to conet_readln.");

int
conn_parse_line_arguments(const struct parameters *parameters, PyObject *const *arguments,
                          Py_ssize_t count, PyObject *keyword_names, size_t *limit,
                          bool *keeps_end)
{
    *limit = DEFAULT_LINE_LIMIT;
    *keeps_end = true;
    if (count == 0 && keyword_names == NULL) {
        return 0;
    }
    PyObject *values[2];
    Py_ssize_t size;
    if (parse_arguments(parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[0], "limit", 1, DEFAULT_LINE_LIMIT, &size) < 0) {
        return -1;
    }
    int keepends = values[1] == NULL ? 1 : PyObject_IsTrue(values[1]);
    if (keepends < 0) {
        return -1;
    }
    *limit = (size_t)size;
    *keeps_end = keepends != 0;
    return 0;
}

static PyObject *
SkConn_readln(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    static const char *const names[] = {"limit", "keepends", NULL};
    static const struct parameters parameters = {"readln", names, 0, 1};
    size_t limit;
    bool keeps_end;
    if (conn_parse_line_arguments(&parameters, arguments, count, keyword_names, &limit,
                                  &keeps_end) < 0) {
        return NULL;
    }
    return read_line(conn, limit, keeps_end, "readln");
}

PyDoc_STRVAR(readline_doc, "readline($self, limit=65536, /)\n--\n\n"
                           "The same as readln(limit), by the name of Python's files.");

static PyObject *
SkConn_readline(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t limit;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "readline() takes at most 1 argument");
        return NULL;
    }
    if (convert_size(count == 1 ? arguments[0] : NULL, "limit", 1, DEFAULT_LINE_LIMIT,
                     &limit) < 0) {
        return NULL;
    }
    return read_line(conn, (size_t)limit, true, "readline");
}

PyObject *
conn_next_line(SkConnObject *conn)
{
    PyObject *line = read_line(conn, DEFAULT_LINE_LIMIT, true, "readln");
    if (line != NULL && PyBytes_GET_SIZE(line) == 0) {
        Py_CLEAR(line); // the end of file ends the iteration
    }
    return line;
}

// --- Records --------------------------------------------------------------------------

// Where [separator] ends in the buffer, 0 if it is not there. [*searched] bytes are known
// not to hold its beginning; it is brought forward.
static size_t
find_separator(SkConnObject *conn, const Py_buffer *separator, size_t *searched)
{
    const char *data = line_buffer_data(&conn->input);
    size_t held = line_buffer_length(&conn->input);
    size_t size = (size_t)separator->len;
    if (held < size) {
        return 0;
    }
    const char *found = memmem(data + *searched, held - *searched, separator->buf, size);
    if (found != NULL) {
        return (size_t)(found - data) + size;
    }
    *searched = held - size + 1;
    return 0;
}

static PyObject *
read_until(SkConnObject *conn, const Py_buffer *separator, size_t limit)
{
    if (conn_begin(conn, conn->reader, "reading") < 0) {
        return NULL;
    }
    for (size_t searched = 0;;) {
        size_t length = find_separator(conn, separator, &searched);
        size_t held = line_buffer_length(&conn->input);
        if (length > limit || (length == 0 && held >= limit)) {
            return raise_too_long(conn, "record", limit);
        }
        if (length > 0) {
            return conn_take_input(conn, length, 0);
        }
        int filled = conn_fill_input(conn, 0, "read_until");
        if (filled < 0) {
            return NULL;
        }
        if (filled == 0) {
            return conn_raise_incomplete(conn);
        }
        if (filled == FILLED_IN_FRONT) {
            searched = 0;
        }
    }
}

PyDoc_STRVAR(
    read_until_doc,
    "read_until($self, separator, limit=65536, /)\n--\n\n"
    "Return everything up to and with separator (bytes-like, not empty).\n\n"
    "limit: the most bytes that may be, separator included. May switch. Raises\n"
    "LineTooLongError (the bytes stay readable), IncompleteReadError at the end of file with\n"
    "what there was as .partial, and what readsome() raises.");

static PyObject *
SkConn_read_until(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    Py_ssize_t limit;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "read_until() takes a separator and a limit");
        return NULL;
    }
    if (convert_size(count == 2 ? arguments[1] : NULL, "limit", 1, DEFAULT_LINE_LIMIT,
                     &limit) < 0) {
        return NULL;
    }
    Py_buffer separator;
    if (PyObject_GetBuffer(arguments[0], &separator, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *bytes = NULL;
    if (separator.len == 0) {
        PyErr_SetString(PyExc_ValueError, "the separator must not be empty");
    }
    else {
        bytes = read_until(conn, &separator, (size_t)limit);
    }
    PyBuffer_Release(&separator);
    return bytes;
}

PyMethodDef conn_line_methods[] = {
    {"readln", (PyCFunction)(void (*)(void))SkConn_readln, METH_FASTCALL | METH_KEYWORDS,
     readln_doc},
    {"readline", (PyCFunction)(void (*)(void))SkConn_readline, METH_FASTCALL,
     readline_doc},
    {"read_until", (PyCFunction)(void (*)(void))SkConn_read_until, METH_FASTCALL,
     read_until_doc},
    {NULL, NULL, 0, NULL},
};
