// py_conn_frames.c: reading length-prefixed frames; frame.h tells what one is.
//
// Invariant: as with lines, a time-out, a limit and a bad length leave the bytes readable,
// those of the length too.

#include "py_conn.h"

#include <string.h>

#include "py_convert.h"

#define DEFAULT_FRAME_LIMIT (1024 * 1024)

const char *const conn_frame_option_names[] = {"format", "limit", NULL};

int
conn_parse_frame_options(const struct parameters *parameters, PyObject *const *arguments,
                         Py_ssize_t count, PyObject *keyword_names,
                         struct frame_options *options)
{
    PyObject *values[2];
    Py_ssize_t limit;
    const char *text = ">I";
    if (parse_arguments(parameters, arguments, count, keyword_names, values) < 0 ||
        convert_size(values[1], "limit", 1, DEFAULT_FRAME_LIMIT, &limit) < 0) {
        return -1;
    }
    if (values[0] != NULL && !PyUnicode_Check(values[0])) {
        PyErr_Format(PyExc_TypeError, "format must be a str, not %s",
                     Py_TYPE(values[0])->tp_name);
        return -1;
    }
    Py_ssize_t text_length = 2;
    if (values[0] != NULL) {
        text = PyUnicode_AsUTF8AndSize(values[0], &text_length);
        if (text == NULL) {
            return -1;
        }
    }
    if ((size_t)text_length != strlen(text) ||
        frame_parse_format(text, &options->format) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "format must be one of bBhHiIlLqQ, perhaps with one of @=<>! before "
                     "it, not %R",
                     values[0]);
        return -1;
    }
    options->limit = (size_t)limit;
    return 0;
}

PyObject *
conn_take_buffered_frame(SkConnObject *conn, const struct frame_options *options,
                         size_t *missing)
{
    const char *data = line_buffer_data(&conn->input);
    size_t held = line_buffer_length(&conn->input);
    size_t prefix = options->format.size;
    uint64_t length;
    switch (frame_find(&options->format, data, held, options->limit, &length)) {
    case FRAME_FOUND: {
        PyObject *payload = PyBytes_FromStringAndSize(data + prefix, (Py_ssize_t)length);
        if (payload != NULL) {
            line_buffer_drain(&conn->input, prefix + (size_t)length);
        }
        return payload;
    }
    case FRAME_INCOMPLETE:
        *missing = prefix + (size_t)length - held;
        break;
    case FRAME_NEGATIVE:
        PyErr_Format(PyExc_ValueError,
                     "a frame has the negative length %lld; it stays readable",
                     (long long)length);
        break;
    case FRAME_TOO_LONG:
        PyErr_Format(conn->hub->state->LineTooLongError,
                     "a frame of %llu bytes is over the limit of %zu; it stays readable",
                     (unsigned long long)length, options->limit);
        break;
    }
    return NULL;
}

static PyObject *
read_frame(SkConnObject *conn, const struct frame_options *options)
{
    if (conn_begin(conn, &conn->reader, "reading") < 0) {
        return NULL;
    }
    for (;;) {
        size_t missing;
        PyObject *payload = conn_take_buffered_frame(conn, options, &missing);
        if (payload != NULL || PyErr_Occurred()) {
            return payload;
        }
        int filled = conn_fill_input(conn, missing, "read_frame");
        if (filled < 0) {
            return NULL;
        }
        if (filled == 0) {
            return line_buffer_length(&conn->input) == 0 ? Py_NewRef(Py_None)
                                                         : conn_raise_incomplete(conn);
        }
    }
}

PyDoc_STRVAR(
    read_frame_doc,
    "read_frame($self, /, format='>I', *, limit=1048576)\n--\n\n"
    "Return the payload of the next length-prefixed frame; None at the end of file.\n\n"
    "format: the length before it, as in the struct module: one of bBhHiIlLqQ, perhaps with\n"
    "  one of @=<>! before it. It counts the bytes behind itself.\n"
    "limit: the most bytes a payload may have.\n\n"
    "May switch. Raises ValueError for a negative length and LineTooLongError for one over\n"
    "the limit (the frame stays readable, its length too), IncompleteReadError if the end of\n"
    "file comes within a frame with what there was as .partial, and what readsome() raises;\n"
    "after a time-out the part received stays readable.");

static PyObject *
SkConn_read_frame(SkConnObject *conn, PyObject *const *arguments, Py_ssize_t count,
                  PyObject *keyword_names)
{
    static const struct parameters parameters = {"read_frame", conn_frame_option_names, 0,
                                                 1};
    struct frame_options options;
    if (conn_parse_frame_options(&parameters, arguments, count, keyword_names, &options) <
        0) {
        return NULL;
    }
    return read_frame(conn, &options);
}

PyMethodDef conn_frame_methods[] = {
    {"read_frame", (PyCFunction)(void (*)(void))SkConn_read_frame,
     METH_FASTCALL | METH_KEYWORDS, read_frame_doc},
    {NULL, NULL, 0, NULL},
};
