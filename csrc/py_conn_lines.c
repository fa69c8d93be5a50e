// py_conn_lines.c: reading lines, and records up to a separator.
//
// What ends a line is told by line_buffer.h. A whole line that is received at once is taken
// from the scratch area and never copied into the connection's buffer; every other one is
// found there. Invariant: a time-out, a limit and a missing end leave the bytes readable.

#include "py_conn.h"

#include <string.h>

#include "py_convert.h"

#define DEFAULT_LINE_LIMIT 65536

// Raises LineTooLongError: no end of [what], within the limit.
static PyObject *
raise_too_long(SkConnObject *conn, const char *what, size_t limit)
{
    PyErr_Format(conn->hub->state->LineTooLongError,
                 "no end of %s within %zu bytes; they stay readable", what, limit);
    return NULL;
}

// --- Arguments --------------------------------------------------------------------------

static const struct line_options usual_options = {DEFAULT_LINE_LIMIT, LINE_ENDING_LF,
                                                  true};

const char *const conn_line_option_names[] = {"limit", "eol", "keepends", NULL};

// NULL leaves [*ending], the default, as it is. 0, or -1 with an exception.
static int
convert_ending(PyObject *name, enum line_ending *ending)
{
    static const char *const names[] = {
        [LINE_ENDING_LF] = "lf",   [LINE_ENDING_CRLF] = "crlf",
        [LINE_ENDING_ANY] = "any", [LINE_ENDING_CRLF_STRICT] = "crlf_strict",
        [LINE_ENDING_NUL] = "nul", NULL};
    if (name == NULL) {
        return 0;
    }
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "eol must be a str, not %s",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    int found = find_name(names, name);
    if (found < 0) {
        PyErr_Format(PyExc_ValueError,
                     "eol must be 'lf', 'crlf', 'crlf_strict', 'any' or 'nul', not %R",
                     name);
        return -1;
    }
    *ending = (enum line_ending)found;
    return 0;
}

int
conn_parse_line_options(const struct parameters *parameters, PyObject *const *arguments,
                        Py_ssize_t count, PyObject *keyword_names,
                        struct line_options *options)
{
    *options = usual_options;
    if (count == 0 && keyword_names == NULL) {
        return 0;
    }
    PyObject *values[3];
    Py_ssize_t limit;
    int keeps_end = true;
    if (parse_arguments(parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[0], "limit", 1, DEFAULT_LINE_LIMIT, &limit) < 0 ||
        convert_ending(values[1], &options->ending) < 0 ||
        convert_flag(values[2], &keeps_end) < 0) {
        return -1;
    }
    options->limit = (size_t)limit;
    options->keeps_end = keeps_end != 0;
    return 0;
}

// --- Lines ------------------------------------------------------------------------------

// The bytes object of a line of [length] bytes at [data].
static inline PyObject *
make_line(const char *data, size_t length, size_t ending_length,
          const struct line_options *options)
{
    return PyBytes_FromStringAndSize(
        data, (Py_ssize_t)(options->keeps_end ? length : length - ending_length));
}

// Takes the line of [length] bytes that was found in the buffer.
static inline PyObject *
take_found_line(SkConnObject *conn, size_t length, size_t ending_length,
                const struct line_options *options)
{
    PyObject *line =
        make_line(line_buffer_data(&conn->input), length, ending_length, options);
    if (line != NULL) {
        line_buffer_drain_line(&conn->input, length);
    }
    return line;
}

// conn_take_buffered_line() for what line_buffer_find_lf() does not find.
static PyObject *
take_other_line(SkConnObject *conn, const struct line_options *options)
{
    size_t length;
    size_t ending_length;
    switch (line_buffer_find_line(&conn->input, options->ending, options->limit, &length,
                                  &ending_length)) {
    case LINE_FOUND:
        return take_found_line(conn, length, ending_length, options);
    case LINE_TOO_LONG:
        return raise_too_long(conn, "line", options->limit);
    case LINE_INCOMPLETE:
        break;
    }
    return NULL;
}

static inline PyObject *
take_buffered_line(SkConnObject *conn, const struct line_options *options)
{
    size_t length = 0;
    if (options->ending == LINE_ENDING_LF) {
        length = line_buffer_find_lf(&conn->input, options->limit);
    }
    return length > 0 ? take_found_line(conn, length, 1, options)
                      : take_other_line(conn, options);
}

PyObject *
conn_take_buffered_line(SkConnObject *conn, const struct line_options *options)
{
    return take_buffered_line(conn, options);
}

// With nothing buffered: receives, and takes the line from the scratch area if a whole
// one came, which saves copying it into the buffer. NULL without an exception: not yet a
// whole line, or with [*is_end] the end of file.
static PyObject *
receive_line(SkConnObject *conn, const struct line_options *options,
             const char *operation, bool *is_end)
{
    char *scratch = conn->hub->scratch;
    size_t size = conn_receive_size(conn, READ_CHUNK_SIZE);
    ssize_t count = conn_receive(conn, scratch, size, operation);
    if (count <= 0) {
        *is_end = count == 0;
        return NULL;
    }
    size_t received = (size_t)count;
    size_t searched = received < options->limit ? received : options->limit;
    size_t ending_length;
    size_t length = line_find(scratch, searched, options->ending, &ending_length);
    if (length == 0) {
        if (conn_keep_input(conn, scratch, received) == 0) {
            line_buffer_note_searched(&conn->input, options->ending, searched);
        }
        return NULL;
    }
    PyObject *line = make_line(scratch, length, ending_length, options);
    size_t taken = line == NULL ? 0 : length;
    line_buffer_end_run(&conn->input);
    if (conn_keep_input(conn, scratch + taken, received - taken) < 0) {
        Py_CLEAR(line); // not reached: a line in scratch memory, without memory
    }
    return line;
}

// What is left at the end of file.
static PyObject *
take_last_line(SkConnObject *conn, const struct line_options *options)
{
    size_t held = line_buffer_length(&conn->input);
    return held > 0 || options->keeps_end ? conn_take_input(conn, held)
                                          : Py_NewRef(Py_None);
}

// For a line that is not whole: receives until it is.
static PyObject *
wait_for_line(SkConnObject *conn, const struct line_options *options,
              const char *operation)
{
    // A run is found in the buffer alone, which knows whether it began before.
    bool is_direct = conn->transport == NULL && options->ending != LINE_ENDING_ANY;
    for (;;) {
        PyObject *line = NULL;
        bool is_end = false;
        if (is_direct && line_buffer_length(&conn->input) == 0) {
            line = receive_line(conn, options, operation, &is_end);
        }
        else {
            is_end = conn_fill_input(conn, 0, operation) == 0;
        }
        if (line == NULL && !PyErr_Occurred()) {
            line = is_end ? take_last_line(conn, options)
                          : conn_take_buffered_line(conn, options);
        }
        if (line != NULL || PyErr_Occurred()) {
            return line;
        }
    }
}

static inline PyObject *
read_line(SkConnObject *conn, const struct line_options *options, const char *operation)
{
    if (conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    PyObject *line = take_buffered_line(conn, options);
    return line != NULL || PyErr_Occurred() ? line
                                            : wait_for_line(conn, options, operation);
}

PyDoc_STRVAR(
    readln_doc,
    "readln($self, /, limit=65536, *, eol='lf', keepends=True)\n--\n\n"
    "Return the next line with its end; at the end of file what is left, then b\"\".\n\n"
    "limit: the most bytes a line may have, end included.\n"
    "eol: what ends a line: 'lf'; 'crlf' (a LF, and a CR before it if there is one);\n"
    "  'crlf_strict' (CR LF alone); 'any' (a run of CRs and LFs, however long, is one end);\n"
    "  'nul'. With 'any' a line is there with the first of them, and what comes of the run\n"
    "  later, or is over the limit, is dropped by the next call with 'any'; other calls see it.\n"
    "keepends: False leaves the end out and gives None at the end of file.\n\n"
    "May switch. Raises LineTooLongError (the bytes stay readable) and what readsome()\n"
    "raises; after a time-out the part received stays readable.\n\n"
    "Source: coronet's conet_readln; libevent's evbuffer_readln.");

// Apart, so that a plain readln() has no frame for it.
static PyObject *
read_line_with(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
               PyObject *keyword_names)
{
    static const struct parameters parameters = {"readln", conn_line_option_names, 0, 1};
    struct line_options options;
    if (conn_parse_line_options(&parameters, arguments, count, keyword_names, &options) <
        0) {
        return NULL;
    }
    return read_line(conn, &options, "readln");
}

static PyObject *
SkConn_readln(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
              PyObject *keyword_names)
{
    return count == 0 && keyword_names == NULL
               ? read_line(conn, &usual_options, "readln")
               : read_line_with(conn, arguments, count, keyword_names);
}

PyDoc_STRVAR(readline_doc,
             "readline($self, limit=65536, /)\n--\n\n"
             "The same as readln(limit), by the name of Python's files. May switch.\n\n"
             "Source: Python's io.IOBase.readline.");

static PyObject *
SkConn_readline(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count)
{
    struct line_options options = usual_options;
    Py_ssize_t limit;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "readline() takes at most 1 argument");
        return NULL;
    }
    if (convert_size(count == 1 ? arguments[0] : NULL, "limit", 1, DEFAULT_LINE_LIMIT,
                     &limit) < 0) {
        return NULL;
    }
    options.limit = (size_t)limit;
    return read_line(conn, &options, "readline");
}

// --- Iteration --------------------------------------------------------------------------

typedef struct {
    PyObject_HEAD
    SkConnObject *conn; // owned
    struct line_options options;
} LineIteratorObject;

// The next line; NULL without an exception at the end of file, which is an empty one if
// lines keep their ends, and None if they do not.
static PyObject *
next_line(SkConnObject *conn, const struct line_options *options)
{
    PyObject *line = read_line(conn, options, "readln");
    if (line != NULL &&
        (options->keeps_end ? PyBytes_GET_SIZE(line) == 0 : line == Py_None)) {
        Py_CLEAR(line);
    }
    return line;
}

PyObject *
conn_next_line(SkConnObject *conn)
{
    return next_line(conn, &usual_options);
}

static PyObject *
LineIterator_next(LineIteratorObject *iterator)
{
    return next_line(iterator->conn, &iterator->options);
}

PyDoc_STRVAR(
    lines_doc,
    "lines($self, /, limit=65536, *, eol='lf', keepends=True)\n--\n\n"
    "Return an iterator over the lines, each read as readln() does with these arguments.\n\n"
    "It ends at the end of file. `for line in conn` is the same with the usual arguments.\n"
    "Each step may switch and raises what readln() raises; the iteration can go on after\n"
    "that. Nothing is read ahead: other calls may read in between.\n\n"
    "Source: libevent's evbuffer_readln, for coroutines.");

static PyObject *
SkConn_lines(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
             PyObject *keyword_names)
{
    static const struct parameters parameters = {"lines", conn_line_option_names, 0, 1};
    struct line_options options;
    if (conn_parse_line_options(&parameters, arguments, count, keyword_names, &options) <
        0) {
        return NULL;
    }
    LineIteratorObject *iterator =
        PyObject_GC_New(LineIteratorObject, conn->hub->state->line_iterator_type);
    if (iterator == NULL) {
        return NULL;
    }
    iterator->conn = (SkConnObject *)Py_NewRef((PyObject *)conn);
    iterator->options = options;
    PyObject_GC_Track(iterator);
    return (PyObject *)iterator;
}

static int
LineIterator_traverse(LineIteratorObject *iterator, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(iterator));
    Py_VISIT(iterator->conn);
    return 0;
}

static void
LineIterator_dealloc(LineIteratorObject *iterator)
{
    PyTypeObject *type = Py_TYPE(iterator);
    PyObject_GC_UnTrack(iterator);
    Py_DECREF(iterator->conn);
    type->tp_free(iterator);
    Py_DECREF(type);
}

PyDoc_STRVAR(LineIterator_doc, "What sk_conn.lines() returns: an iterator over lines.");

static PyType_Slot LineIterator_slots[] = {
    {Py_tp_doc, (void *)LineIterator_doc},   {Py_tp_dealloc, LineIterator_dealloc},
    {Py_tp_traverse, LineIterator_traverse}, {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, LineIterator_next},     {0, NULL},
};

static PyType_Spec LineIterator_spec = {
    .name = "pycoronet.LineIterator",
    .basicsize = sizeof(LineIteratorObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = LineIterator_slots,
};

PyTypeObject *
line_iterator_type_new(PyObject *module)
{
    return add_type(module, &LineIterator_spec);
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
    if (conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    for (size_t searched = 0;;) {
        size_t length = find_separator(conn, separator, &searched);
        size_t held = line_buffer_length(&conn->input);
        if (length > limit || (length == 0 && held >= limit)) {
            return raise_too_long(conn, "record", limit);
        }
        if (length > 0) {
            return conn_take_input(conn, length);
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
    "what there was as .partial, and what readsome() raises.\n\n"
    "Source: Python's asyncio.StreamReader.readuntil.");

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
    {"lines", (PyCFunction)(void (*)(void))SkConn_lines, METH_FASTCALL | METH_KEYWORDS,
     lines_doc},
    {"read_until", (PyCFunction)(void (*)(void))SkConn_read_until, METH_FASTCALL,
     read_until_doc},
    {NULL, NULL, 0, NULL},
};
